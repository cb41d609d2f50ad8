"""The configuration of the services' sidecar; also docs/examples/demo-shop.yaml."""

from __future__ import annotations

from string import Template
from typing import Final

from mesh_proxy.demo.bootstrap import HTTP2, HTTP2_AGAIN, Ports
from mesh_proxy.demo.identities import TRUST_DOMAIN, WEB, identity

_TEMPLATE: Final = Template("""\
# The sidecar of the services of demo.yaml: one port, mutual TLS and nothing else (STRICT), and only "web" may call.
#   $command
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: $admin_port}}

node: {id: demo-shop, cluster: demo}

static_resources:
  listeners:
  - name: inbound
    address: {socket_address: {address: 127.0.0.1, port_value: $shop_port}}
    listener_filters:                               # reads the server name; what is not TLS matches no chain below
    - name: envoy.filters.listener.tls_inspector
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
    filter_chains:
    - filter_chain_match: {server_names: [shop-v1]}
      transport_socket: &mutual
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificates:
            - certificate_chain: {filename: $certs/shop.pem}
              private_key: {filename: $certs/shop.key}
            validation_context:                     # anybody of the mesh gets a connection …
              trusted_ca: {filename: $certs/root.pem}
              match_typed_subject_alt_names:
              - {san_type: URI, matcher: {prefix: "spiffe://$trust_domain/"}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop-v1
          forward_client_cert_details: SANITIZE_SET # tells the service who called, in x-forwarded-client-cert
          set_current_client_cert_details: {uri: true}
          http_filters: &only-web
          - name: rbac
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules:
                policies:
                  web-may-call:                     # … but only web may call: others get 403, as gRPC PERMISSION_DENIED
                    permissions: [{any: true}]
                    principals: &web [{authenticated: {principal_name: {exact: "$web_identity"}}}]
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: shop-v1}}]}]}
$more_chains    - filter_chain_match: {server_names: [dubbo-v1]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.dubbo_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy
          stat_prefix: dubbo-v1
          route_config: [{name: all, interface: "*", routes: [{match: {}, route: {cluster: dubbo-v1}}]}]
          dubbo_filters: &only-web-dubbo            # the same filter: a call is POST /service/method to it
          - name: rbac
            config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
              rules: {policies: {web-may-call: {permissions: [{any: true}], principals: *web}}}
          - name: envoy.filters.dubbo.router
    - filter_chain_match: {server_names: [dubbo-v2]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.dubbo_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy
          stat_prefix: dubbo-v2
          route_config: [{name: all, interface: "*", routes: [{match: {}, route: {cluster: dubbo-v2}}]}]
          dubbo_filters: *only-web-dubbo

  clusters:                                         # the services, beside their sidecar and therefore in plain text
$clusters""")

_CHAIN: Final = Template("""\
    - filter_chain_match: {server_names: [$name]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: $name
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters: *only-web
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: $name}}]}]}
""")
_CLUSTER: Final = Template("""\
  - name: $name
    type: STATIC
    connect_timeout: 1s
$settings    load_assignment:
      cluster_name: $name
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $port}}}}]}]
""")


def shop_bootstrap_yaml(ports: Ports, *, certs: str = "certs", command: str = "mesh-proxy -c demo-shop.yaml --base-id 1") -> str:
    """The bootstrap as text; `certs` is the folder of the certificates."""
    clusters = {
        "shop-v1": (ports.v1, ""),
        "shop-v2": (ports.v2, ""),
        "flaky": (ports.flaky, ""),
        "grpc-v1": (ports.grpc_v1, HTTP2),
        "grpc-v2": (ports.grpc_v2, HTTP2_AGAIN),
        "dubbo-v1": (ports.dubbo_v1, ""),
        "dubbo-v2": (ports.dubbo_v2, ""),
    }
    return _TEMPLATE.substitute(
        command=command,
        certs=certs,
        trust_domain=TRUST_DOMAIN,
        web_identity=identity(WEB),
        admin_port=ports.shop_admin,
        shop_port=ports.shop,
        more_chains="".join([_CHAIN.substitute(name=name) for name in ("shop-v2", "flaky", "grpc-v1", "grpc-v2")]),
        clusters="".join(
            [_CLUSTER.substitute(name=name, port=port, settings=settings) for name, (port, settings) in clusters.items()]
        ),
    )
