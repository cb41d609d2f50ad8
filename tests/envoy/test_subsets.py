"""Subsets of a cluster by endpoint metadata: selectors, fallbacks of cluster and selector, lists, weights."""

import pytest
from parity import Case, Pair, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy


def endpoint(name: str, health: str = "UNKNOWN", **labels: object) -> dict[str, object]:
    return {
        "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": f"$(up.{name})"}}},
        "health_status": health,
        "metadata": {"filter_metadata": {"envoy.lb": labels}},
    }


ENDPOINTS = [
    endpoint("a", version="v1", stage="prod", n=1),
    endpoint("b", version="v2", stage="prod", n=2.5),
    endpoint("c", version="v2", stage="test", flag=True),
    endpoint("d", version="v3", tags=["x", "y"]),
    endpoint("e", "UNHEALTHY", version="sick"),
]


def subsets(name: str, selectors: str, more: str = "") -> dict[str, object]:
    made = cluster(name, extra=f"lb_subset_config: {{subset_selectors: [{selectors}]{', ' if more else ''}{more}}}")
    made["load_assignment"] = {"cluster_name": name, "endpoints": [{"lb_endpoints": ENDPOINTS}]}
    made["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    return made


VERSION = "{keys: [version]}"
BOTH = "{keys: [version]}, {keys: [stage, version]}"
V1 = "default_subset: {version: v1}"
CLUSTERS = [
    subsets("plain", BOTH),
    subsets("any", VERSION, "fallback_policy: ANY_ENDPOINT"),
    subsets("default", BOTH, f"fallback_policy: DEFAULT_SUBSET, {V1}"),
    subsets("emptydefault", VERSION, "fallback_policy: DEFAULT_SUBSET, default_subset: {version: none}"),
    subsets("panic", VERSION, "fallback_policy: DEFAULT_SUBSET, default_subset: {version: none}, panic_mode_any: true"),
    subsets("selectorany", "{keys: [version], fallback_policy: ANY_ENDPOINT}"),
    subsets("selectornone", "{keys: [version], fallback_policy: NO_FALLBACK}", "fallback_policy: ANY_ENDPOINT"),
    subsets("selectordefault", "{keys: [version], fallback_policy: DEFAULT_SUBSET}", f"fallback_policy: NO_FALLBACK, {V1}"),
    subsets("keys", "{keys: [version]}, {keys: [stage, version], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [version]}"),
    subsets("lists", "{keys: [tags]}", "list_as_any: true"),
    subsets("wholelists", "{keys: [tags]}"),
    subsets("typed", "{keys: [n]}, {keys: [flag]}"),
    subsets("single", "{keys: [version], single_host_per_subset: true}"),
    subsets("fallbacklist", BOTH, "metadata_fallback_policy: FALLBACK_LIST"),
    subsets("nothing", ""),
]


def route(path: str, name: str, match: str) -> str:
    metadata = f", metadata_match: {{filter_metadata: {{envoy.lb: {{{match}}}}}}}" if match else ""
    return f"{{match: {{path: /{path}}}, route: {{cluster: {name}{metadata}}}}}"


WEIGHTED = """{match: {prefix: /weighted}, route: {
  metadata_match: {filter_metadata: {envoy.lb: {stage: prod, version: v1}}},
  weighted_clusters: {clusters: [{name: plain, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {version: v2}}}}]}}}"""
# name, cluster, metadata_match, endpoint ("" = 503; "*" = any)
ROWS = (
    ("v1", "plain", "version: v1", "a"),
    ("v3", "plain", "version: v3", "d"),
    ("both", "plain", "stage: test, version: v2", "c"),
    ("unknown", "plain", "version: v9", ""),
    ("nokeys", "plain", "", ""),
    ("otherkeys", "plain", "stage: prod", ""),
    ("sick", "plain", "version: sick", ""),
    ("anyhit", "any", "version: v1", "a"),
    ("anymiss", "any", "version: v9", "*"),
    ("anynone", "any", "", "*"),
    ("anysick", "any", "version: sick", ""),
    ("defaulthit", "default", "stage: prod, version: v2", "b"),
    ("defaultmiss", "default", "version: v9", "a"),
    ("defaultnone", "default", "", "a"),
    ("emptydefault", "emptydefault", "version: v9", ""),
    ("panic", "panic", "version: v9", "*"),
    ("selectorany", "selectorany", "version: v9", "*"),
    ("selectoranynone", "selectorany", "", ""),
    ("selectornone", "selectornone", "version: v9", ""),
    ("selectornonewithout", "selectornone", "", "*"),
    ("selectordefault", "selectordefault", "version: v9", "a"),
    ("keyshit", "keys", "stage: prod, version: v2", "b"),
    ("keysmiss", "keys", "stage: none, version: v3", "d"),
    ("keysmisstwice", "keys", "stage: none, version: v9", ""),
    ("listany", "lists", "tags: y", "d"),
    ("listanymiss", "lists", "tags: z", ""),
    ("listwhole", "wholelists", "tags: [x, y]", "d"),
    ("listpart", "wholelists", "tags: x", ""),
    ("number", "typed", "n: 1", "a"),
    ("fraction", "typed", "n: 2.5", "b"),
    ("numbertext", "typed", 'n: "1"', ""),
    ("bool", "typed", "flag: true", "c"),
    ("boolnumber", "typed", "flag: 1", ""),
    ("single", "single", "version: v3", "d"),
    ("fallbacksecond", "fallbacklist", "fallback_list: [{version: v9}, {version: v3}]", "d"),
    ("fallbackkeeps", "fallbacklist", "stage: test, fallback_list: [{version: v9}, {version: v2}]", "c"),
    ("fallbacknone", "fallbacklist", "fallback_list: [{version: v8}, {version: v9}]", ""),
    ("fallbackwithout", "fallbacklist", "version: v1", "a"),
    ("noselectors", "nothing", "version: v1", "*"),
)
SUITE = Suite(
    bootstrap([http("main", f"[{WEIGHTED}, {', '.join(route(*row[:3]) for row in ROWS)}]")], CLUSTERS),
    (
        Case("weighted_overrides_by_key", req("GET", "/weighted"), 200, "b"),
        *(
            Case(
                f"{name}_{other}",
                req("GET", f"/{name}"),
                503 if not to else 200,
                None if to == "*" else to,
                accept={"upstream*": "any endpoint", "response.body": "any endpoint", "log.upstream": "any endpoint"}
                if to == "*"
                else {},
            )
            for name, other, _, to in ROWS
        ),
    ),
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_subset(pair: Pair, case: Case) -> None:
    pair.check(case)


def test_counters(pair: Pair) -> None:
    envoy, ours = (side.stats() for side in pair.sides)
    names = [
        f"cluster.{one['name']}.lb_subsets_{what}"
        for one in CLUSTERS
        for what in ("selected", "fallback", "fallback_panic")  # active and created count once per thread in Envoy
    ]
    assert {name: ours.get(name, 0) for name in names} == {name: envoy.get(name, 0) for name in names}
