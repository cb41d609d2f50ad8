"""Which endpoint gets a request: cluster types, load balancing, weights, and what the circuit breakers refuse."""

from collections import Counter

import pytest
from parity import Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, http, req, taken

pytestmark = pytest.mark.envoy


def localhost(name: str, kind: str, port: str) -> str:
    at = f"{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}"
    return f"""
type: {kind}
dns_lookup_family: V4_ONLY
load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{at}]}}]}}
"""


THREE = ("a", "b", "c")
CLUSTERS = [
    cluster("one", "a"),
    cluster("robin", *THREE),
    cluster("weighted", "a*3", "b*1"),
    cluster("least", *THREE, extra="lb_policy: LEAST_REQUEST"),
    cluster("leastweighted", "a*9", "b*1", extra="lb_policy: LEAST_REQUEST"),
    cluster("random", *THREE, extra="lb_policy: RANDOM"),
    cluster("half", "a", "refused.r"),
    cluster("strict", extra=localhost("strict", "STRICT_DNS", "$(up.a)")),
    cluster("logical", extra=localhost("logical", "LOGICAL_DNS", "$(up.a)")),
    cluster("unresolved", extra=localhost("unresolved", "STRICT_DNS", "$(up.a)").replace("localhost", "no-such-host.invalid")),
    cluster("original", extra="{type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, load_assignment: null, original_dst_lb_config: {use_http_header: true}}"),
    cluster("onerequest", "a", extra="circuit_breakers: {thresholds: [{max_requests: 1}]}"),
    cluster("oneconnection", "a", extra="circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1}]}"),
    cluster("maxperconnection", "a", extra="max_requests_per_connection: 2"),
    cluster("highpriority", "a", extra="circuit_breakers: {thresholds: [{priority: DEFAULT, max_requests: 0}, {priority: HIGH, max_requests: 5}]}"),
    cluster("disabled", "a") | {
        "load_assignment": {"cluster_name": "disabled", "endpoints": [{"lb_endpoints": [
            {"health_status": "UNHEALTHY", "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.a)"}}}},
            {"health_status": "HEALTHY", "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.b)"}}}},
        ]}], "policy": {}}, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}},
    cluster("allsick", "a") | {
        "load_assignment": {"cluster_name": "allsick", "endpoints": [{"lb_endpoints": [
            {"health_status": "UNHEALTHY", "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.a)"}}}},
        ]}]}, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}},
    cluster("panic", "a") | {
        "load_assignment": {"cluster_name": "panic", "endpoints": [{"lb_endpoints": [
            {"health_status": "UNHEALTHY", "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.a)"}}}},
        ]}]}},
    cluster("priorities", "a") | {
        "load_assignment": {"cluster_name": "priorities", "endpoints": [
            {"priority": 0, "lb_endpoints": [{"health_status": "UNHEALTHY", "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.a)"}}}}]},
            {"priority": 1, "lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": "$(up.b)"}}}}]},
        ]}},
]  # fmt: skip
for made in CLUSTERS:
    if made.get("load_assignment", 0) is None:
        del made["load_assignment"]
ROUTES = (
    "".join(f"- {{match: {{prefix: /{c['name']}/}}, route: {{cluster: {c['name']}}}}}\n" for c in CLUSTERS)
    + """
- {match: {path: /split}, route: {weighted_clusters: {clusters: [{name: weighted, weight: 1}, {name: one, weight: 3}]}}}
- {match: {path: /split-total}, route: {weighted_clusters: {clusters: [{name: highonly, weight: 25}, {name: one, weight: 75}]}}}
- {match: {path: /fraction, runtime_fraction: {default_value: {numerator: 30}}}, direct_response: {status: 201}}
- {match: {path: /fraction}, direct_response: {status: 202}}
- {match: {path: /high}, route: {cluster: highpriority, priority: HIGH}}
""".replace("highonly", "least")
)


def spread(target: str, count: int, low: dict[str, int], high: dict[str, int]):
    """`count` requests; whether each endpoint's share is within bounds (shares themselves are random)."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, "main") as client:
            answers = []
            for _ in range(count):
                client.send(req("GET", target))
                answers.append(client.response())
        shares = Counter(a.body.decode().removeprefix("hello from ") if a.status == 200 else str(a.status) for a in answers)
        side.upstream.received.clear()
        side.upstream.begin()
        side.new_lines("main.log", count)
        for name in sorted(low.keys() | shares.keys()):
            fits = low.get(name, 0) <= shares[name] <= high.get(name, 0)
            seen.notes[name] = (
                "within bounds" if fits else f"{shares[name]} of {count}, not in {low.get(name, 0)}..{high.get(name, 0)}"
            )

    return run


def shares(name: str, target: str, count: int, low: dict[str, int], high: dict[str, int]) -> Case:
    return Case(name, run=spread(target, count, low, high), log=0, want={f"note.{endpoint}": "within bounds" for endpoint in low})


def order(pair: Pair, side: Side, seen: Observation) -> None:
    """Round robin starts anywhere and then keeps its order."""
    with Client(side, "main") as client:
        for _ in range(9):
            client.send(req("GET", "/robin/"))
            client.response()
    line = "".join(one.endpoint for one in side.upstream.finish())
    side.upstream.begin()
    side.new_lines("main.log", 9)
    seen.notes["rotation"] = str(line in "abcabcabcabc" or line in "acbacbacbacb")


def at_once(target: str, count: int):
    """Slow requests started one after the other; the sorted statuses."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        side.upstream.begin((Reply(held=True),))
        clients = [Client(side, "main") for _ in range(count)]
        for client in clients:
            client.send(req("GET", target))
            taken(client.sock)  # the proxy must have each before the next comes
        side.upstream.release()
        answers = [client.response() for client in clients]
        for client in clients:
            client.close()
        seen.notes["statuses"] = str([a.status for a in answers])
        seen.notes["bodies"] = str([a.body.decode() for a in answers])
        seen.notes["overloaded"] = str([("x-envoy-overloaded", "true") in a.headers for a in answers])
        side.upstream.finish()
        side.upstream.begin()
        lines = side.new_lines("main.log", count)
        seen.notes["flags"] = str(sorted(line.split("\t")[4] for line in lines))

    return run


def original_destination(pair: Pair, side: Side, seen: Observation) -> None:
    """The header names the endpoint."""
    pair.talk(side, seen, req("GET", "/original/", f"x-envoy-original-dst-host: 127.0.0.1:{side.ports['up.c']}"))


def per_connection(pair: Pair, side: Side, seen: Observation) -> None:
    with Client(side, "main") as client:
        for _ in range(5):
            client.send(req("GET", "/maxperconnection/"))
            client.response()
    received = side.upstream.finish()
    ordinals = [one.connection for one in received]
    seen.notes["requests per connection"] = str(sorted(Counter(ordinals).values()))
    seen.notes["connection header"] = str([dict(one.headers).get("connection") for one in received])
    side.upstream.begin()
    side.new_lines("main.log", 5)


SUITE = Suite(
    bootstrap([http("main", ROUTES)], CLUSTERS),
    (
        Case("round_robin_order", run=order, log=0, want={"note.rotation": "True"}),
        shares("round_robin_weights", "/weighted/", 80, {"a": 56, "b": 16}, {"a": 64, "b": 24}),
        shares("least_request", "/least/", 150, dict.fromkeys("abc", 20), dict.fromkeys("abc", 90)),
        shares("least_request_weights", "/leastweighted/", 200, {"a": 150, "b": 1}, {"a": 199, "b": 50}),
        shares("random", "/random/", 150, dict.fromkeys("abc", 20), dict.fromkeys("abc", 90)),
        shares("weighted_clusters", "/split", 300, {"a": 240, "b": 1}, {"a": 299, "b": 60}),
        shares("runtime_fraction", "/fraction", 300, {"201": 45, "202": 160}, {"201": 140, "202": 255}),
        shares("refusing_endpoint_is_still_picked", "/half/", 20, {"a": 5, "503": 5}, {"a": 15, "503": 15}),
        Case("strict_dns", req("GET", "/strict/"), 200, "a"),
        Case("logical_dns", req("GET", "/logical/"), 200, "a"),
        Case("dns_finds_nothing", req("GET", "/unresolved/"), 503, "", want={"log.flags": "UH"}),
        Case("original_dst_by_header", run=original_destination, status=200, to="c"),
        Case("original_dst_bad_header", req("GET", "/original/", "x-envoy-original-dst-host: nonsense"), 503, ""),
        Case("original_dst_without_header", req("GET", "/original/"), 503, ""),
        Case("unhealthy_endpoint_is_avoided", req("GET", "/disabled/"), 200, "b"),
        Case("no_healthy_endpoint", req("GET", "/allsick/"), 503, "", want={"log.flags": "UH"}),
        Case("panic_uses_unhealthy", req("GET", "/panic/"), 200, "a"),
        Case("next_priority", req("GET", "/priorities/"), 200, "b"),
        Case("breaker_of_other_priority", req("GET", "/high"), 200, "a"),
        Case("breaker_default_priority", req("GET", "/highpriority/"), 503, "", want={"log.flags": "UO"}),
        Case("breaker_max_requests", run=at_once("/onerequest/", 2), log=0, want={"note.statuses": "[200, 503]"}),
        Case("breaker_connections_and_pending", run=at_once("/oneconnection/", 3), log=0, want={"note.statuses": "[200, 200, 503]"}),
        Case("max_requests_per_upstream_connection", run=per_connection, log=0),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_balancing(pair: Pair, case: Case) -> None:
    pair.check(case)
