"""Two protocols on one port: the HTTP inspector tells HTTP and Triple from Dubbo 2 by the first bytes."""

import time

import pytest
from dubbo_support.wire import call, heartbeat
from parity import Case, Pair, Suite, bootstrap, cluster, req
from parity.case import Client, Observation
from parity.config import TYPE, hcm, listener
from parity.dubbo import calls, dubbo
from parity.proxy import Side

pytestmark = pytest.mark.envoy

INSPECTOR = [
    {"name": "http", "typed_config": {"@type": TYPE + "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}
]
ROUTES = "- {interface: '*', routes: [{match: {ANY}, route: {cluster: dubbo}}]}"


def shared(name: str, timeout: str = "15s", carry_on: bool = False) -> object:
    """A listener with a chain for HTTP and one for everything else."""
    one = dubbo(name, ROUTES)
    (chain,) = one["filter_chains"]
    web = hcm(name, [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}])
    return listener(name) | {
        "listener_filters": INSPECTOR,
        "listener_filters_timeout": timeout,
        "continue_on_listener_filters_timeout": carry_on,
        "filter_chains": [
            {"filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]}, "filters": [web]},
            {**chain, "filter_chain_match": {}},
        ],
    }


def preface(pair: Pair, side: Side, seen: Observation) -> None:
    """An HTTP/2 connection is one from its first SETTINGS on."""
    with Client(side, "main") as client:
        for piece in (b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n", b"\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))):
            client.send(piece)
        frame = client.stream.exactly(9)
        seen.notes["first frame"] = str(frame[3])
        client.send(bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + b"pingping")
        while frame[3] != 6:
            client.stream.exactly(int.from_bytes(frame[:3], "big"))
            frame = client.stream.exactly(9)
        seen.notes["ping answered"] = str(frame[4])


def counted(pair: Pair, side: Side, seen: Observation) -> None:
    before = side.stats()
    for send in (req(), b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", b"\xda\xbb\xe0\x00", b"nonsense and more\r\n"):
        with Client(side, "main") as client:
            client.send(send)
            seen.ends.append(client.stream.wait_end(0.2))
    keys = [f"http_inspector.{name}" for name in ("http10_found", "http11_found", "http2_found", "http_not_found")]
    deadline = time.monotonic() + 20
    while True:
        after = side.stats()
        found = {key: after.get(key, 0) - before.get(key, 0) for key in keys}
        if sum(found.values()) >= 4 or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    seen.notes |= {key: str(value) for key, value in found.items()}


def silent(name: str, text: bytes):  # type: ignore[no-untyped-def]
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, name) as client:
            client.send(text)
            seen.ends.append(seen.stand(side, client.stream.wait_end, 3.0))

    return run


SUITE = Suite(
    bootstrap(
        [shared("main"), shared("impatient", "1s"), shared("carrying", "1s", True)],
        [cluster("a", "a"), cluster("dubbo", "dubbo.d")],
    ),
    (
        Case("http", req("GET", "/x"), 200, "a"),
        Case("http_in_pieces", (b"GE", b"T / HT", b"TP/1.1\r", b"\nhost: a.test\r\n\r\n"), 200, "a", methods=("GET",)),
        Case("http_empty_line_first", b"\r\n" + req(), 0, methods=("GET",), log=0),
        calls("call", call("demo.Any", "m"), to="d"),
        calls("calls", call("demo.Any", "m"), call("demo.Any", "n", request_id=2), to="d", upstream=2),
        calls("heartbeat", heartbeat(), answers=1),
        calls("call_in_pieces", *(bytes((one,)) for one in call("demo.Any", "m")), answers=1, at_once=False, to="d"),
        Case("preface", run=preface, log=0, want={"note.first frame": "4", "note.ping answered": "1"}),
        Case("counted", run=counted, log=1, accept={"upstream*": "a request that nobody waits for", "end*": "Envoy reads on"}),
        Case("too_slow", run=silent("impatient", b"GE"), log=0, listener="impatient", seconds=(0.6, 19.0), accept={"end": "Envoy only peeks, so that the close is a reset"}),
        Case("too_slow_goes_on", run=silent("carrying", b"\xda"), log=0, listener="carrying"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_one_port(pair: Pair, case: Case) -> None:
    pair.check(case)
