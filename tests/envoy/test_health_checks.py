"""Active health checks: what is asked, what is made of the answers, and where requests go then."""

import time

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req
from parity.case import Observation
from parity.proxy import Side

pytestmark = pytest.mark.envoy

LONG = "timeout: 1s, interval: 60s, no_traffic_interval: 60s, healthy_threshold: 2, unhealthy_threshold: 2"
OFTEN = "timeout: 1s, interval: 0.1s, no_traffic_interval: 0.1s, healthy_threshold: 2, unhealthy_threshold: 2"


def checked(name: str, check: str, *endpoints: str, times: str = LONG, extra: str = "") -> object:
    return cluster(name, *(endpoints or (name,)), extra=f"health_checks: [{{{times}, {check}}}]\n{extra}")


def http_check(more: str = "") -> str:
    return f"http_health_check: {{path: /hc{', ' + more if more else ''}}}"


POSTED = "method: POST, send: {text: '6869'}"
CLUSTERS = [
    checked("good", http_check()),
    checked("bad", http_check("expected_statuses: [{start: 204, end: 205}]")),
    checked("retriable", http_check("expected_statuses: [{start: 204, end: 205}], retriable_statuses: [{start: 200, end: 201}]")),
    checked("body", http_check('receive: [{text: "68656c6c6f"}]')),
    checked("wrongbody", http_check('receive: [{text: "ffff"}]')),
    checked("named", http_check("service_name_matcher: {prefix: x}")),
    checked("tcp", "tcp_health_check: {}", "tcp.t"),
    checked("tcpfound", 'tcp_health_check: {receive: [{text: "746370"}]}', "tcp.t"),
    checked("refused", http_check(), "refused.r"),
    checked("refusedtcp", "tcp_health_check: {}", "refused.r"),
    checked("half", "tcp_health_check: {}", "good", "refused.r"),
    checked("nopanic", "tcp_health_check: {}", "refused.r", extra="common_lb_config: {healthy_panic_threshold: {value: 0}}"),
    checked("panic", http_check("expected_statuses: [{start: 204, end: 205}]"), "p"),
    checked(
        "excluded",
        "tcp_health_check: {}",
        "refused.r",
        extra="common_lb_config: {ignore_new_hosts_until_first_hc: true}",
    ),
    cluster("asked", "asked", extra=f"health_checks: [{{{OFTEN}, http_health_check: {{path: '/healthz?x=1', host: check.test, method: HEAD, request_headers_to_add: [{{header: {{key: x-plain, value: v}}}}]}}}}]"),
    cluster("plainly", "plainly", extra=f"health_checks: [{{{OFTEN}, {http_check()}}}]"),
    cluster("posted", "posted", extra=f"health_checks: [{{{OFTEN}, {http_check(POSTED)}}}]"),
    cluster(
        "unchecked",
        extra=f"health_checks: [{{{LONG}, tcp_health_check: {{}}}}]\nload_assignment: {{cluster_name: unchecked, endpoints: [{{lb_endpoints: "
        "[{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(refused.r)}}, health_check_config: {disable_active_health_check: true}}}]}]}",
    ),
    cluster(
        "elsewhere",
        extra=f"health_checks: [{{{LONG}, tcp_health_check: {{}}}}]\nload_assignment: {{cluster_name: elsewhere, endpoints: [{{lb_endpoints: "
        "[{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(refused.r)}}, health_check_config: {port_value: $(tcp.t)}}}]}]}",
    ),
]  # fmt: skip
NAMES = [str(one["name"]) for one in CLUSTERS]  # type: ignore[index]
QUIET = [name for name in NAMES if name not in ("asked", "plainly", "posted")]
ROUTES = "".join(
    f"- {{match: {{prefix: /{name}}}, route: {{cluster: {name}}}}}\n" for name in ("half", "nopanic", "panic", "good")
)
WAIT_S = 20.0


def verdicts(pair: Pair, side: Side, seen: Observation) -> None:
    """Every counter and every flag of the clusters that were checked just once."""
    stats: dict[str, int] = {}
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        stats = side.stats()
        if all(stats.get(f"cluster.{name}.health_check.attempt", 0) for name in QUIET if name != "unchecked"):
            break
        time.sleep(0.05)
    for name in QUIET:
        prefix = f"cluster.{name}."
        for key, value in stats.items():
            if key.startswith((f"{prefix}health_check.", f"{prefix}membership_")) and not key.endswith("membership_change"):
                seen.notes[key] = str(value)
    for line in side.admin("/clusters").body.decode().splitlines():
        if "::health_flags::" in line and line.partition("::")[0] in QUIET:
            seen.notes[line.rpartition("::health_flags::")[0]] = line.rpartition("::")[2]


def request_of(name: str):  # type: ignore[no-untyped-def]
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = [one for one in list(side.upstream.received) if one.endpoint == name and one.done.is_set()]
            if found:
                one = found[0]
                seen.notes["line"] = f"{one.method} {one.target} {one.version}"
                seen.notes["body"] = one.body.decode()
                for key, value in one.headers:
                    seen.notes[f"header {key}"] = value
                break
            time.sleep(0.02)
        side.upstream.received = []

    return run


CONNECTED = {"upstream*": "checks of other clusters may come meanwhile"}
SUITE = Suite(
    bootstrap([http("main", ROUTES)], CLUSTERS),
    (
        Case("verdicts", run=verdicts, log=0, accept=CONNECTED, want={
            "note.cluster.good.health_check.healthy": "1", "note.cluster.bad.health_check.failure": "1",
            "note.cluster.refused.health_check.network_failure": "1", "note.cluster.half.membership_healthy": "1",
        }),
        *(
            Case(f"request_{name}", run=request_of(name), log=0, accept=CONNECTED, want={"note.line": line})
            for name, line in (("asked", "HEAD /healthz?x=1 1.1"), ("plainly", "GET /hc 1.1"), ("posted", "POST /hc 1.1"))
        ),
        Case("to_the_healthy_one", req("GET", "/half"), 200, "good", accept=CONNECTED),
        Case("no_panic", req("GET", "/nopanic"), 503, accept=CONNECTED, want={"log.flags": "UH"}),
        Case("panic", req("GET", "/panic"), 200, accept=CONNECTED, want={"log.upstream": "127.0.0.1:<up.p>"}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_health_check(pair: Pair, case: Case) -> None:
    pair.check(case)
