"""Request mirroring: what the copy looks like, which requests are copied, that the original does not care."""

import time

import pytest
from parity import Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req
from parity.compare import differences, report

pytestmark = pytest.mark.envoy

ALL = "runtime_fraction: {default_value: {numerator: 100}}"
ROUTES = f"""
- {{match: {{prefix: /plain}}, route: {{cluster: a, request_mirror_policies: [{{cluster: b}}]}}}}
- {{match: {{prefix: /all}}, route: {{cluster: a, request_mirror_policies: [{{cluster: b, {ALL}}}]}}}}
- {{match: {{prefix: /none}}, route: {{cluster: a, request_mirror_policies: [{{cluster: b, runtime_fraction: {{default_value: {{numerator: 0}}}}}}]}}}}
- {{match: {{prefix: /two}}, route: {{cluster: a, request_mirror_policies: [{{cluster: b}}, {{cluster: c}}]}}}}
- {{match: {{prefix: /dead}}, route: {{cluster: a, request_mirror_policies: [{{cluster: refused}}]}}}}
- {{match: {{prefix: /empty}}, route: {{cluster: a, request_mirror_policies: [{{cluster: empty}}]}}}}
- {{match: {{prefix: /watched}}, route: {{cluster: a, request_mirror_policies: [{{cluster: watched}}]}}}}
- {{match: {{prefix: /host}}, route: {{cluster: a, request_mirror_policies: [{{cluster: b, disable_shadow_host_suffix_append: true}}]}}}}
- {{match: {{prefix: /rewritten}}, route: {{cluster: a, prefix_rewrite: /new, host_rewrite_literal: other.test, request_mirror_policies: [{{cluster: b}}]}}, request_headers_to_add: [{{header: {{key: x-route, value: "1"}}}}]}}
- {{match: {{prefix: /}}, route: {{cluster: a}}}}
"""
WATCHED = "outlier_detection: {consecutive_5xx: 1, enforcing_consecutive_5xx: 100, max_ejection_percent: 100}"
SUITE = Suite(
    bootstrap(
        [http("main", ROUTES)],
        [
            cluster("a", "a"),
            cluster("b", "b"),
            cluster("c", "c"),
            cluster("refused", "refused.r"),
            cluster("empty"),
            cluster("watched", "c", extra=WATCHED),
        ],
    )
)
# name, request, endpoints that get it
ROWS = (
    ("plain", req("GET", "/plain"), "ab"),
    ("all", req("GET", "/all"), "ab"),
    ("none", req("GET", "/none"), "a"),
    ("two", req("GET", "/two"), "abc"),
    ("dead", req("GET", "/dead"), "a"),
    ("empty", req("GET", "/empty"), "a"),
    ("host", req("GET", "/host"), "ab"),
    ("port", req("GET", "/plain", host="a.test:81"), "ab"),
    ("rewritten", req("GET", "/rewritten/x"), "ab"),
    ("body", req("POST", "/plain", body=b"x" * 3000), "ab"),
    ("chunked", (req("POST", "/plain", "transfer-encoding: chunked"), b"3\r\nabc\r\n", b"0\r\n\r\n"), "ab"),
    ("forwarded", req("GET", "/plain", "x-forwarded-for: 1.2.3.4", "x-request-id: mine"), "ab"),
    ("elsewhere", req("GET", "/other"), "a"),
)
ACCEPT = {
    "*.headers.x-forwarded-for": "the address of this host is not the same for both",
    "upstream*.headers.x-request-id": "random",
}


def send(case_bytes: object, wanted: int) -> object:
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        parts = case_bytes if isinstance(case_bytes, tuple) else (case_bytes,)
        with Client(side, "main") as client:
            client.send(*parts)
            seen.responses.append(client.response())
            until = time.monotonic() + 20
            while len(side.upstream.received) < wanted and time.monotonic() < until:
                time.sleep(0.005)

    return run


@pytest.mark.parametrize(("name", "request_bytes", "to"), ROWS, ids=[row[0] for row in ROWS])
def test_mirror(pair: Pair, name: str, request_bytes: object, to: str) -> None:
    case = Case(name, run=send(request_bytes, len(to)), log=1)  # type: ignore[arg-type]
    seen = pair.both(lambda side: pair.observe(case, side))
    for one in seen:
        one.received.sort(key=lambda received: received.endpoint)  # which of them comes first is chance
        assert "".join(received.endpoint for received in one.received) == to
    flats = [pair.flat(side, one) for side, one in zip(pair.sides, seen, strict=True)]
    found = differences(name, flats[0], flats[1], ACCEPT)
    assert not found, report(name, found)


def test_copies_count_like_other_requests(pair: Pair) -> None:
    """An endpoint that fails only copies is ejected for them, and its cluster knows how long they took."""

    def counts(side: Side) -> dict[str, int]:
        side.upstream.begin((Reply(status=503),))
        with Client(side, "main") as client:
            client.send(req("GET", "/watched"))
            client.response()
        names = ("outlier_detection.ejections_active", "upstream_rq_completed", "upstream_rq_503", "internal.upstream_rq_503")
        until = time.monotonic() + 20
        while True:
            stats = side.stats()
            seen = {name: stats.get(f"cluster.watched.{name}", 0) for name in names}
            if all(seen.values()) or time.monotonic() > until:
                return seen
            time.sleep(0.05)

    ours, envoys = pair.both(counts)
    assert ours == envoys == dict.fromkeys(ours, 1)
