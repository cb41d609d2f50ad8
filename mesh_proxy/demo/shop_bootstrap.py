"""The configuration of the services' sidecar; also docs/examples/demo-shop.yaml."""

from __future__ import annotations

from string import Template
from typing import Final

from mesh_proxy.demo.bootstrap import Ports
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
    - filter_chain_match: {server_names: [shop-v2]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop-v2
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters: *only-web
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: shop-v2}}]}]}
    - filter_chain_match: {server_names: [flaky]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: flaky
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters: *only-web
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: flaky}}]}]}
    - filter_chain_match: {server_names: [grpc-v1]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: grpc-v1
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters: *only-web
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: grpc-v1}}]}]}
    - filter_chain_match: {server_names: [grpc-v2]}
      transport_socket: *mutual
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: grpc-v2
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true}
          http_filters: *only-web
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: grpc-v2}}]}]}
    - filter_chain_match: {server_names: [dubbo-v1]}
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
  - name: shop-v1
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: shop-v1
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $v1_port}}}}]}]
  - name: shop-v2
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: shop-v2
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $v2_port}}}}]}]
  - name: flaky
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: flaky
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $flaky_port}}}}]}]
  - name: grpc-v1
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: &http2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: grpc-v1
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $grpc_v1_port}}}}]}]
  - name: grpc-v2
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options: *http2
    load_assignment:
      cluster_name: grpc-v2
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $grpc_v2_port}}}}]}]
  - name: dubbo-v1
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: dubbo-v1
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $dubbo_v1_port}}}}]}]
  - name: dubbo-v2
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: dubbo-v2
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $dubbo_v2_port}}}}]}]
""")


def shop_bootstrap_yaml(ports: Ports, *, certs: str = "certs", command: str = "mesh-proxy -c demo-shop.yaml --base-id 1") -> str:
    """The bootstrap as text; `certs` is the folder of the certificates."""
    return _TEMPLATE.substitute(
        command=command,
        certs=certs,
        trust_domain=TRUST_DOMAIN,
        web_identity=identity(WEB),
        admin_port=ports.shop_admin,
        shop_port=ports.shop,
        v1_port=ports.v1,
        v2_port=ports.v2,
        flaky_port=ports.flaky,
        dubbo_v1_port=ports.dubbo_v1,
        dubbo_v2_port=ports.dubbo_v2,
        grpc_v1_port=ports.grpc_v1,
        grpc_v2_port=ports.grpc_v2,
    )
