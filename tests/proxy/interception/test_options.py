"""Flags and environment of `mesh-proxy iptables`, hooks, and rules in the kernel's words."""

import argparse
import socket
import threading
from pathlib import Path

import pytest

from mesh_proxy.interception.command import iptables
from mesh_proxy.interception.hooks import HookError, call
from mesh_proxy.interception.options import add_flags, backend_of, has_ipv6, name_servers, settings_of
from mesh_proxy.interception.rules import Rule
from mesh_proxy.interception.settings import Settings, SettingsError
from mesh_proxy.interception.state import differences, normal, parse


def parsed(*words: str, **environment: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    given = parser.parse_args([*words, "--ipv6", "off"])
    return settings_of(given, environment)


def test_flags_of_istios_init_container() -> None:
    """As istiod writes them into a pod."""
    words = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020 --log_output_level=default:info"
    found = parsed(*words.split(), "-x", "")
    assert found == Settings(outbound_ip_ranges_include="*", inbound_ports_include="*", inbound_ports_exclude="15090,15021,15020")


def test_environment_counts_where_there_is_no_flag() -> None:
    found = parsed("-p", "1", ENVOY_PORT="2", INBOUND_CAPTURE_PORT="3", INVALID_DROP="true", ISTIO_OUTBOUND_OWNER_GROUPS="7")
    assert (found.proxy_port, found.inbound_capture_port, found.drop_invalid, found.owner_groups_include) == (1, 3, True, "7")
    assert parsed(PROXY_UID="5").proxy_gid == "5"
    with pytest.raises(SettingsError, match="-p: 'x' is no number"):
        parsed("-p", "x")


def test_back_ends_by_istios_names() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert backend_of(parser.parse_args(["--force-iptables-binary", "iptables-legacy"]), {}) == "legacy"
    assert backend_of(parser.parse_args([]), {}) == ""
    with pytest.raises(SettingsError):
        backend_of(parser.parse_args([]), {"FORCE_IPTABLES_BINARY": "ebtables"})


def test_name_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("search a\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver 10.0.0.2\n")
    assert name_servers(str(path)) == (("10.0.0.1", "10.0.0.2"), ("fe80::1",))
    with pytest.raises(SettingsError):
        name_servers(str(tmp_path / "none"))


def test_ipv6_only_by_an_address_that_others_reach(tmp_path: Path) -> None:
    path = tmp_path / "if_inet6"
    local = "00000000000000000000000000000001 01 80 10 80 lo\nfe800000000000000000000000000001 02 40 20 80 eth0\n"
    own = "00000000000000000000000000000006 01 80 00 80 lo\n"
    path.write_text(local + own)
    assert not has_ipv6(str(path))
    path.write_text(local + "fd770000000000000000000000000001 02 40 00 80 eth0\n")
    assert has_ipv6(str(path))
    assert not has_ipv6(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("given", "saved"),
    [
        ("-p tcp --dport 80 -j RETURN", "-p tcp -m tcp --dport 80 -j RETURN"),
        ("-o lo ! -d 127.0.0.1/32 -p tcp -j X", "! -d 127.0.0.1/32 -o lo -p tcp -j X"),
        ("-d 127.0.0.1/8 -j X", "-d 127.0.0.0/8 -j X"),
        ("-j MARK --set-mark 1337", "-j MARK --set-xmark 0x539/0xffffffff"),
        ("-m mark ! --mark 1338 -j X", "-m mark ! --mark 0x53a -j X"),
        ("-j CONNMARK --save-mark", "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff"),
        ("-j TPROXY --tproxy-mark 1337 --on-port 1", "-j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff"),
        ("-m owner --gid-owner root", "-m owner --gid-owner 0"),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j X", "-m conntrack --ctstate ESTABLISHED,RELATED -j X"),
        ("-p udp --dport 53 -j REDIRECT --to-port 15053", "-p udp -m udp --dport 53 -j REDIRECT --to-ports 15053"),
        ("-p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j X", "-p tcp -m tcp ! --tcp-flags SYN,FIN,RST,ACK SYN -j X"),
    ],
)  # fmt: skip
def test_one_rule_in_two_tongues(given: str, saved: str) -> None:
    assert normal(given.split()) == normal(saved.split())
    assert normal(given.split()) != normal([*saved.split(), "-s", "1.1.1.1"])


def test_order_within_a_chain_counts() -> None:
    rules = (Rule("nat", "ISTIO_X", ("-p", "tcp", "-j", "A")), Rule("nat", "ISTIO_X", ("-p", "udp", "-j", "B"), 1))
    assert differences(rules, parse("*nat\n:ISTIO_X - [0:0]\n-A ISTIO_X -p udp -j B\n-A ISTIO_X -p tcp -j A\nCOMMIT\n")) == []
    swapped = parse("*nat\n:ISTIO_X - [0:0]\n-A ISTIO_X -p tcp -j A\n-A ISTIO_X -p udp -j B\nCOMMIT\n")
    assert differences(rules, swapped) == ["nat: chain ISTIO_X holds other rules"]
    assert differences((), swapped) == ["nat: chain ISTIO_X is left from other rules"]


def test_a_dry_run_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert iptables(["apply", "-n", "-b", "80", "--ipv6", "on"], "mesh-proxy") == 0
    out = capsys.readouterr().out
    assert out.startswith("# for iptables-restore --noflush\n*nat\n-N ISTIO_INBOUND\n")
    assert "# for ip6tables-restore --noflush\n" in out
    assert iptables(["apply", "-n", "-m", "OTHER"], "mesh-proxy") == 1
    assert "-m: REDIRECT or TPROXY" in capsys.readouterr().err


def test_hooks_are_commands_or_calls() -> None:
    assert call("true", 20) >= 0
    for hook, why in [
        ("sh -c 'echo no; exit 3'", "exit code 3: no"),
        ("/nonexistent/program", "No such file"),
        ("sleep 30", "not done after 0.05 s"),
        ("http://127.0.0.1:1/offline", "refused"),
        ("", "no command"),
    ]:
        with pytest.raises(HookError, match=why):
            call(hook, 0.05 if hook.startswith("sleep") else 20)


@pytest.mark.parametrize(
    ("hook", "line", "status"), [("{}/offline?a=b", b"GET /offline?a=b ", b"200"), ("POST {}/x", b"POST /x ", b"500")]
)
def test_a_call_is_made_as_written(hook: str, line: bytes, status: bytes) -> None:
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as sock:
                seen.append(sock.recv(4096))
                sock.sendall(b"HTTP/1.1 " + status + b" x\r\ncontent-length: 2\r\n\r\nno")

        thread = threading.Thread(target=serve)
        thread.start()
        url = hook.format(f"http://127.0.0.1:{server.getsockname()[1]}")
        if status == b"200":
            call(url, 20)
        else:
            with pytest.raises(HookError, match="500 no"):
                call(url, 20)
        thread.join(20)
    assert seen[0].startswith(line)
