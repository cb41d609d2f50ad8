"""Interception opened and closed under load: nothing is lost, and the hooks are called in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from e2e_support.peers import read_answer
from e2e_support.pod import PORTS, UID, Host, Pod, configuration
from e2e_support.sidecar import until
from e2e_support.steady_load import SteadyLoad
from netns_support import Cable, cable

pytestmark = pytest.mark.slow

FLAGS = ("-b", "*", "-d", "15020,15021,15090", "-i", "*", "--ipv6", "on")
SWITCHES = int(os.environ.get("MESH_PROXY_SWITCHES", "20"))
"""how often it is opened and closed under load"""


@pytest.fixture
def joined() -> Iterator[tuple[Cable, Host, Host]]:
    with cable() as one:
        here, there = Host(one.here), Host(one.there)
        try:
            yield one, here, there
        finally:
            here.close()
            there.close()


def intercept(pod: Pod, state: str, *words: str) -> tuple[int, str]:
    """(exit code, output) of `mesh-proxy intercept`, as root in the pod."""
    command = pod.host.command(sys.executable, "-m", "mesh_proxy", "intercept", state, *FLAGS, *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_nothing_is_lost(joined: tuple[Cable, Host, Host]) -> None:
    one, _, _ = joined
    pod = Pod(one, configuration())
    try:
        with (
            SteadyLoad(one.there, Cable.HERE, PORTS) as inbound,
            SteadyLoad(one.here, Cable.THERE, PORTS) as outbound,
            SteadyLoad(one.there, Cable.HERE6, PORTS) as inbound6,
        ):
            loads = (inbound, outbound, inbound6)
            for _ in range(SWITCHES):
                accepted = pod.accepted("0.0.0.0_15006")
                code, said = intercept(pod, "on")
                assert code == 0, said
                until("connections come through the proxy", lambda a=accepted: pod.accepted("0.0.0.0_15006") > a, 60)
                code, said = intercept(pod, "off", "--timeout", "60")
                assert code == 0, said
                before = [load.done.copy() for load in loads]
                until("calls go on directly", lambda b=before: all(more(x, y) for x, y in zip(loads, b, strict=True)), 60)
        assert [load.failures for load in loads] == [{}, {}, {}]
        print({kind: count for load in loads for kind, count in load.done.items()})
    finally:
        pod.close()


def more(load: SteadyLoad, before: dict[str, int]) -> bool:
    """Every kind of caller has done something since."""
    return all(load.done[kind] > count for kind, count in before.items())


def test_the_application_is_told_before_and_after(joined: tuple[Cable, Host, Host]) -> None:
    """The rules are written between the two hooks."""
    one, _, _ = joined
    pod = Pod(one, configuration())
    try:
        log = f"{pod.directory.name}/hooks"
        hook = f"sh -c 'echo {{}} $(iptables-save | grep -c ISTIO_OUTPUT) >> {log}'"
        code, said = intercept(pod, "on", "--offline-hook", hook.format("offline"), "--online-hook", hook.format("online"))
        assert code == 0, said
        with open(log) as file:
            told = [line.split() for line in file]
        assert [name for name, _ in told] == ["offline", "online"]
        assert (told[0][1], int(told[1][1]) > 0) == ("0", True)
        assert intercept(pod, "status")[0] == 0
        code, said = intercept(pod, "on", "--offline-hook", "false", "--online-hook", hook.format("back"))
        assert (code, "exit code 1" in said, "application: online" in said) == (2, True, True)
        assert intercept(pod, "off")[0] == 0
        assert intercept(pod, "status")[0] == 3
        code, said = intercept(pod, "on", "--offline-hook", "http://127.0.0.1:9/offline")
        assert (code, "Connection refused" in said) == (2, True)
    finally:
        pod.close()


def test_the_admin_interface_switches(joined: tuple[Cable, Host, Host]) -> None:
    """By POST, with the flags of the environment, if the proxy may write rules."""
    one, _, _ = joined
    environment = {"ISTIO_INBOUND_PORTS": "*", "ISTIO_SERVICE_CIDR": "*", "ISTIO_LOCAL_EXCLUDE_PORTS": "15020"}
    lock = {"XTABLES_LOCKFILE": f"/tmp/xtables-{UID}.lock"}
    pod = Pod(one, configuration(), capabilities="+net_admin,+net_raw,+dac_read_search", environment=environment | lock)
    try:
        assert pod.admin("GET", "/intercept").startswith(b"HTTP/1.1 405")
        assert pod.admin("POST", "/intercept?state=maybe").startswith(b"HTTP/1.1 400")
        on = pod.admin("POST", "/intercept?state=on")
        assert on.startswith(b"HTTP/1.1 200"), on
        with one.there.connect(Cable.HERE, PORTS["bytes"]) as sock:
            sock.sendall(b"hi")
            assert sock.recv(2) == b"hi"
            assert counted(pod) == 1
            left = pod.admin("POST", "/intercept?state=off&timeout=0.2")
            assert json.loads(left.partition(b"\r\n\r\n")[2])["exit_code"] == 3
            sock.sendall(b"ho")  # it goes on, although the rules are out of use
            assert sock.recv(2) == b"ho"
        until("it has ended", lambda: counted(pod) == 0, 30)
        off = pod.admin("POST", "/intercept?state=off")
        assert json.loads(off.partition(b"\r\n\r\n")[2])["exit_code"] == 0
        assert "ISTIO" not in pod.host.run("iptables-save")
    finally:
        pod.close()


def counted(pod: Pod) -> int:
    return int(json.loads(pod.admin("GET", "/intercepted").partition(b"\r\n\r\n")[2])["connections"])


def test_a_hot_upgrade_knows_what_was_intercepted(joined: tuple[Cable, Host, Host]) -> None:
    """A redirected connection goes to the new process with the address that it was made to."""
    one, here, _ = joined
    # The proxy starts its successor itself, from an installation that its user may not be able to read.
    pod = Pod(one, configuration(), capabilities="+dac_read_search", flags=())
    try:
        code, said = intercept(pod, "on")
        assert code == 0, said
        with one.there.connect(Cable.HERE, PORTS["http"], 60) as sock:
            sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
            assert read_answer(sock, timeout=60).body == b"word"
            pod.process.send_signal(signal.SIGHUP)
            until("another process serves", lambda: b'"restart_epoch": 1' in pod.admin("GET", "/server_info"), 60)
            until("it has taken the connection over", lambda: counted(pod) == 1, 60)
            sock.sendall(b"GET /0/again HTTP/1.1\r\nhost: a\r\n\r\n")
            answer = read_answer(sock, timeout=60)
            assert (answer.status, answer.body) == (200, b"again")
            assert counted(pod) == 1
        assert set(here.peers["http"]) == {"127.0.0.6"}
    finally:
        pod.close()
