"""A whole bootstrap becomes the dataclasses that the data path expects."""

from pathlib import Path

import pytest

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import LoadOptions, load_bootstrap
from mesh_proxy.config.model import ClusterActionConfig, HttpManagerConfig, TcpProxyConfig

BOOTSTRAP = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {weighted_clusters: {clusters: [{name: v1, weight: 90}, {name: v2, weight: 10}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - address: {socket_address: {address: 127.0.0.1, port_value: 10001}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: v1
  clusters:
  - name: v1
    load_assignment:
      cluster_name: v1
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8001}}}}]}]
  - name: v2
    type: STRICT_DNS
    load_assignment:
      cluster_name: v2
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 8002}}}}]}]
"""


def test_listeners_routes_and_clusters(tmp_path: Path) -> None:
    file = tmp_path / "bootstrap.yaml"
    file.write_text(BOOTSTRAP)
    config = load_bootstrap(str(file), None, options=LoadOptions(service_node="n1"))
    assert config.node.id == "n1"
    assert config.admin is not None
    assert str(config.admin.address) == "127.0.0.1:9901"
    assert [listener.name for listener in config.listeners] == ["web", "127.0.0.1:10001"]
    manager = config.listeners[0].filter_chains[0].filters[0]
    assert isinstance(manager, HttpManagerConfig)
    assert manager.route_table is not None
    action = manager.route_table.virtual_hosts[0].routes[0].action
    assert isinstance(action, ClusterActionConfig)
    assert [(cluster.name, cluster.weight) for cluster in action.clusters] == [("v1", 90), ("v2", 10)]
    tcp = config.listeners[1].filter_chains[0].filters[0]
    assert isinstance(tcp, TcpProxyConfig)
    assert tcp.clusters[0].name == "v1"
    assert [cluster.kind for cluster in config.clusters] == ["STATIC", "STRICT_DNS"]
    assert '"port_value":10001' in config.proto_json


def test_unknown_cluster_is_refused_with_its_path() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, BOOTSTRAP.replace("name: v2, weight", "name: v3, weight"))
    assert str(caught.value) == (
        "listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route"
        ".weighted_clusters.clusters[1].name: unknown cluster 'v3'"
    )
