"""The translation of the Dubbo manager."""

from __future__ import annotations

import pytest

from mesh_proxy.config import features
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import DubboProxyConfig

TYPE = "type.googleapis.com/"
STRUCT = f'"@type": {TYPE}xds.type.v3.TypedStruct, type_url: {TYPE}mesh_proxy.dubbo.v1.'


def bootstrap(fields: str, cluster: str = "") -> str:
    return f"""
static_resources:
  listeners:
  - name: dubbo
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: dubbo
        typed_config:
          "@type": {TYPE}envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy
          stat_prefix: d
          {fields}
  clusters:
  - {{name: a{cluster}}}
"""


def load(fields: str) -> DubboProxyConfig:
    (listener,) = load_bootstrap(None, bootstrap(fields)).listeners
    (config,) = listener.filter_chains[0].filters
    assert isinstance(config, DubboProxyConfig)
    return config


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "OTHER", {*features.OTHER, "dubbo_proxy"})


def test_routes() -> None:
    config = load(
        "multiple_route_config: {name: r, route_config: [{name: x, interface: 'demo.*', group: g, version: 1.0.0, routes: ["
        "{match: {method: {name: {prefix: say}, params_match: {0: {exact_match: a}, 1: {range_match: {start: 1, end: 9}}}},"
        " headers: [{name: Dubbo.Tag, string_match: {exact: gray}}]},"
        " route: {weighted_clusters: {clusters: [{name: a, weight: 3}, {cluster_header: X-Cluster, weight: 1}]},"
        f" metadata_match: {{filter_metadata: {{envoy.lb: {{v: 1}}}}, typed_filter_metadata: {{mesh_proxy.dubbo: {{{STRUCT}"
        "RouteOptions, value: {timeout: 3s, retry_policy: {retry_on: [connect-failure], retriable_statuses: [100]}}}}}}}]}]}"
    )
    (table,) = config.routes
    assert (table.name, table.interface, table.group, table.version) == ("x", "demo.*", "g", "1.0.0")
    (route,) = table.routes
    assert route.name == "x[0]"
    assert [(p.index, p.exact, p.range_start, p.range_end) for p in route.parameters] == [(0, "a", 0, 0), (1, None, 1, 9)]
    assert route.headers[0].name == "dubbo.tag"
    assert [(c.name, c.cluster_header, c.weight) for c in route.clusters] == [("a", "", 3), ("", "x-cluster", 1)]
    assert route.metadata_match == {"envoy.lb": {"v": 1}}
    assert (route.options.timeout_s, route.options.retries, route.options.retry_on_statuses) == (3.0, 1, (100,))
    assert route.options.retry_on_connect_failure
