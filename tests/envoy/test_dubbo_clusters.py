"""Where Dubbo calls go when a route names more than one place: weights, subsets by metadata; and routes from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dubbo_support.wire import call
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster
from parity.config import NETWORK, listener
from parity.dubbo import calls, dubbo, read_answer

pytestmark = pytest.mark.envoy

FILE = Path(__file__).resolve().parents[1] / "data" / "dubbo" / "drds.yaml"
ROUTES = """
- {interface: demo.Half, routes: [{match: {ANY}, route: {weighted_clusters: {clusters: [{name: a, weight: 50}, {name: b, weight: 50}]}}}]}
- {interface: demo.One, routes: [{match: {ANY}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}, {name: b, weight: 7}]}}}]}
- interface: demo.Subset
  routes:
  - {match: {ANY, headers: [{name: v, string_match: {exact: "1"}}]}, route: {cluster: s, metadata_match: {filter_metadata: {envoy.lb: {v: "1"}}}}}
  - {match: {ANY, headers: [{name: v, string_match: {exact: "2"}}]}, route: {cluster: s, metadata_match: {filter_metadata: {envoy.lb: {v: "2"}}}}}
  - {match: {ANY, headers: [{name: v, string_match: {exact: "3"}}]}, route: {cluster: s, metadata_match: {filter_metadata: {envoy.lb: {v: "3"}}}}}
  - match: {ANY, headers: [{name: w, present_match: true}]}
    route:
      weighted_clusters: {clusters: [{name: s, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {v: "2"}}}}]}
      metadata_match: {filter_metadata: {envoy.lb: {v: "1"}}}
"""
SUBSETS = """
lb_subset_config: {fallback_policy: NO_FALLBACK, subset_selectors: [{keys: [v]}]}
load_assignment:
  cluster_name: s
  endpoints:
  - lb_endpoints:
    - {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(dubbo.one)}}}, metadata: {filter_metadata: {envoy.lb: {v: "1"}}}}
    - {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $(dubbo.two)}}}, metadata: {filter_metadata: {envoy.lb: {v: "2"}}}}
"""
TEXT = {"note.answer.body": "the text of an answer that the proxy makes itself is for people"}
CALLS = 100
"""so many that one of two equal shares stays empty once in 10^29 runs"""


def both(pair: Pair, side: Side, seen: Observation) -> None:
    side.providers.clear()
    with Client(side, "main") as client:
        for _ in range(CALLS):
            client.send(call("demo.Half"))
            read_answer(client)
    seen.notes["endpoints"] = " ".join(sorted({one.endpoint for one in side.providers.wait(CALLS)}))


def from_file(name: str) -> object:
    base = {
        "@type": NETWORK + "dubbo_proxy.v3.DubboProxy",
        "stat_prefix": name,
        "drds": {
            "route_config_name": "routes",
            "config_source": {"path_config_source": {"path": str(FILE)}, "resource_api_version": "V3"},
        },
    }
    return listener(name, {"name": "envoy.filters.network.dubbo_proxy", "typed_config": base})


CASES = (
    Case("dubbo_weights_both", run=both, want={"note.endpoints": "a b"}, log=0),
    calls("weights_zero", call("demo.One"), to="b"),
    calls("subset_one", call("demo.Subset", attachments={"v": "1"}), to="one"),
    calls("subset_two", call("demo.Subset", attachments={"v": "2"}), to="two"),
    calls("subset_nobody", call("demo.Subset", attachments={"v": "3"}), accept=TEXT),
    calls("subset_of_weighted_cluster", call("demo.Subset", attachments={"w": "x"}), to="two"),
    calls("file", call(), to="a", listener="file"),
    calls("file_other_method", call(method="other"), listener="file", accept=TEXT),
)
SUITE = Suite(
    bootstrap(
        [dubbo("main", ROUTES), from_file("file")],
        [cluster("a", "dubbo.a"), cluster("b", "dubbo.b"), cluster("s", extra=SUBSETS)],
    ),
    CASES,
)


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_case(case: Case, pair: Pair) -> None:
    pair.check(case)


def test_config_dump_shows_the_routes(pair: Pair) -> None:
    for kind in ("static_route_configs", "dynamic_route_configs"):
        envoy, ours = pair.both(lambda side, kind=kind: route_configs(side, kind))
        assert envoy == ours
        assert len(envoy) == 1


def route_configs(side: Side, kind: str) -> list[object]:
    found = json.loads(side.admin(f"/config_dump?resource={kind}").body)["configs"]
    for one in found:
        del one["last_updated"]
    return list(found)
