"""Where RING_HASH and MAGLEV send a request: to the same endpoint as Envoy, for every kind of hash policy."""

import pytest
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy


def keyed(name: str, policy: str, *weights: int) -> dict[str, object]:
    """Endpoints a, b, c with their names as hash keys: their ports differ between the two sides."""
    endpoints = [
        {
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": f"$(up.{letter})"}}},
            "load_balancing_weight": weight,
            "metadata": {"filter_metadata": {"envoy.lb": {"hash_key": f"key-{letter}"}}},
        }
        for letter, weight in zip("abc", weights, strict=True)
    ]
    return cluster(name, "a", extra=policy) | {
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    }


CLUSTERS = [
    keyed("ring", "lb_policy: RING_HASH", 1, 1, 1),
    keyed("weighted", "lb_policy: RING_HASH", 1, 2, 5),
    keyed("small", "{lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 5, maximum_ring_size: 20}}", 3, 2, 7),
    keyed("maglev", "lb_policy: MAGLEV", 1, 1, 1),
    keyed("heavy", "{lb_policy: MAGLEV, maglev_lb_config: {table_size: 101}}", 1, 2, 5),
]
POLICIES = {
    "header": "[{header: {header_name: x-user}}]",
    "path": "[{header: {header_name: ':path'}}]",
    "cookie": "[{cookie: {name: user}}]",
    "query": "[{query_parameter: {name: user}}]",
    "ip": "[{connection_properties: {source_ip: true}}]",
    "both": "[{query_parameter: {name: user}}, {header: {header_name: x-user}}, {header: {header_name: x-none}}]",
    "first": "[{header: {header_name: x-user}, terminal: true}, {query_parameter: {name: user}}]",
}
ROUTES = "".join(
    f"- {{match: {{prefix: /{one['name']}/header}}, route: {{cluster: {one['name']}, hash_policy: {POLICIES['header']}}}}}\n"
    for one in CLUSTERS
) + "".join(
    f"- {{match: {{prefix: /ring/{name}}}, route: {{cluster: ring, hash_policy: {policy}}}}}\n"
    for name, policy in POLICIES.items()
)
USERS = [f"user-{i}" for i in range(40)] + ["x" * 31, "y" * 32, "z" * 100, "-"]


def where(target: str, same: bool = False):
    """The endpoints for many users, as one word."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        with Client(side, "main") as client:
            for user in USERS:
                lines = [] if target.endswith("bare") else [f"x-user: {user}", f"cookie: a=b; user={user}"]
                client.send(req("GET", f"{target}?user={user[::-1]}", *lines))
                client.response()
        word = "".join(one.endpoint for one in side.upstream.finish())
        side.upstream.begin()
        side.new_lines("main.log", len(USERS))
        seen.notes["endpoints"] = word
        seen.notes["all"] = "".join(sorted(set(word))) if not same else str(len(set(word)))

    return run


def case(name: str, target: str) -> Case:
    return Case(name, run=where(target), log=0, want={"note.all": "abc"})


SUITE = Suite(
    bootstrap([http("main", ROUTES)], CLUSTERS),
    (
        *(case(f"{one['name']}_by_header", f"/{one['name']}/header") for one in CLUSTERS),
        *(case(f"ring_by_{name}", f"/ring/{name}") for name in POLICIES if name not in ("ip", "header")),
        Case("ring_by_source_ip", run=where("/ring/ip", same=True), log=0, want={"note.all": "1"}),
    ),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_hashing(pair: Pair, case: Case) -> None:
    pair.check(case)
