"""`mesh-proxy localhost`: short descriptions become bootstraps that load, and bad ones say why not."""

from pathlib import Path

import pytest

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.interception.localhost import localhost

SHORT = """
admin: 127.0.0.1:15000
providers:
- {listen: 20881, application: 20880}
- {protocol: http, listen: "[::]:8081", application: unix:/run/app/http.sock}
consumers:
- {listen: 20882, endpoints: [10.0.0.1:20881, 10.0.0.2:20881]}
- {protocol: grpc, listen: /run/mesh/greeter.sock, endpoints: greeter.default.svc:50051}
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = localhost(arguments, "mesh-proxy")
    out, err = capsys.readouterr()
    return code, out, err


def test_a_short_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, whole = tmp_path / "short.yaml", tmp_path / "bootstrap.yaml"
    short.write_text(SHORT)
    code, out, err = run(capsys, "--file", str(short), "-o", str(whole))
    assert (code, out, err) == (0, "", "")
    found = load_bootstrap(str(whole), "")
    assert [(one.name, str(one.address), one.traffic_direction) for one in found.listeners] == [
        ("provider_dubbo_20881", "0.0.0.0:20881", "INBOUND"),
        ("provider_http_8081", "[::]:8081", "INBOUND"),
        ("consumer_dubbo_20882", "127.0.0.1:20882", "OUTBOUND"),
        ("consumer_grpc_/run/mesh/greeter.sock", "/run/mesh/greeter.sock", "OUTBOUND"),
    ]
    assert found.listeners[3].address.mode == 0o660
    assert [(one.kind, one.upstream_protocol) for one in found.clusters] == [
        ("STATIC", "HTTP1"),
        ("STATIC", "DOWNSTREAM"),
        ("STATIC", "HTTP1"),
        ("STRICT_DNS", "HTTP2"),
    ]
    assert found.admin is not None


def test_the_same_by_flags(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--provider", "20881=20880", "--consumer", "tcp:@db=10.0.0.9:3306", "--admin", "none")
    assert code == 0
    found = load_bootstrap(None, out)
    assert [str(one.address) for one in found.listeners] == ["0.0.0.0:20881", "@db"]
    assert found.admin is None


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no port is described"),
        (("--provider", "20881"), "'20881': say [PROTOCOL:]LISTEN=TARGET"),
        (("--provider", "70000=1"), "'70000' is no port, HOST:PORT or path of a unix socket"),
        (("--consumer", "localhost:1=10.0.0.1:2"), "localhost:1: an IP address is needed to listen on, not a name"),
        (("--consumer", "127.0.0.1:1=1"), "127.0.0.1:1: it leads to itself"),
        (("--consumer", "1=2", "--consumer", "http:1=3"), "127.0.0.1:1: it is there twice"),
        (("--file", "/nonexistent"), "/nonexistent: [Errno 2]"),
    ],
)
def test_descriptions_that_make_no_sense(arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"mesh-proxy localhost: {why}")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1]", "a mapping with providers, consumers and admin is needed"),
        ("ports: []", "a mapping with"),
        ("providers: [{listen: 1}]", "providers[0]: needs listen and application"),
        ("consumers: [{listen: 1, endpoints: []}]", "consumers[0]: 1: it leads nowhere"),
        ("consumers: [{protocol: thrift, listen: 1, endpoints: 2}]", "consumers[0]: protocol 'thrift': one of dubbo"),
        ("{", "while parsing"),
    ],
)
def test_files_that_make_no_sense(tmp_path: Path, text: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(text)
    code, _, err = run(capsys, "--file", str(path))
    assert code == 1
    assert why in err
