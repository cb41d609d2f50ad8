"""The configuration of the caller's sidecar, written for a reader who has never seen one; also docs/examples/demo.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import Final

from mesh_proxy.demo.identities import SHOP, identity

SHARE_OF_V2: Final = 10
"""per cent of the requests without a version header"""

_TEMPLATE: Final = Template("""\
# The sidecar of "web", who calls: an HTTP listener, for gRPC as well, and a Dubbo listener. Both lead over mutual TLS to the
# sidecar of two versions of a shop (demo-shop.yaml), which tells them apart by the server name.
# This is an Envoy v3 bootstrap: Envoy reads it as well.
#   $command
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: $admin_port}}

node: {id: demo-sidecar, cluster: demo}

static_resources:
  listeners:
  - name: demo
    address: {socket_address: {address: 127.0.0.1, port_value: $listen_port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: demo
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: $access_log
          route_config:
            name: demo
            virtual_hosts:
            - name: shop
              domains: ["*"]
              include_request_attempt_count: true   # x-envoy-attempt-count tells a service which attempt it sees
              routes:                               # the first match wins
              - match: {prefix: /demo.Closed/, grpc: {}}
                direct_response: {status: 403, body: {inline_string: "closed"}}   # gRPC callers see PERMISSION_DENIED
              - match:
                  prefix: /demo.Shop/
                  grpc: {}
                  headers: [{name: x-version, string_match: {exact: v2}}]
                route: {cluster: grpc-v2}
              - match: {prefix: /demo.Shop/, grpc: {}}
                route:
                  cluster: grpc-v1
                  retry_policy: {retry_on: unavailable}
                  max_stream_duration: {grpc_timeout_header_max: 0s}   # callers' deadlines count, whatever they are
              - match: {path: /about}
                direct_response:                    # the sidecar answers itself
                  status: 200
                  body: {inline_string: "answered by the sidecar\\n"}
              - match: {prefix: /old/}
                redirect: {prefix_rewrite: /new/}   # 301, the rest of the path is kept
              - match: {prefix: /flaky}
                route:
                  cluster: flaky                    # every third request meets a 503 there, which nobody gets to see:
                  retry_policy:
                    retry_on: "5xx"
                    num_retries: 2
                    retry_back_off: {base_interval: 0.005s}
              - match:
                  prefix: /
                  headers: [{name: x-version, string_match: {exact: v2}}]
                route: {cluster: shop-v2}           # whoever asks for v2 gets v2
              - match: {prefix: /}
                route:
                  timeout: 5s
                  weighted_clusters:                # everybody else: a canary
                    clusters:
                    - {name: shop-v1, weight: $weight_v1}
                    - {name: shop-v2, weight: $weight_v2}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router

  - name: demo-dubbo
    address: {socket_address: {address: 127.0.0.1, port_value: $dubbo_port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.dubbo_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy
          stat_prefix: demo
          multiple_route_config:
            name: demo
            route_config:
            - name: shop
              interface: demo.Shop
              routes:                               # the first match wins
              - match:
                  method: {name: {safe_regex: {regex: ".*"}}}
                  headers: [{name: dubbo.tag, string_match: {exact: v2}}]   # an attachment of the call
                route: {cluster: dubbo-v2}
              - match: {method: {name: {safe_regex: {regex: ".*"}}}}
                route: {cluster: dubbo-v1}
          dubbo_filters:
          - name: envoy.filters.dubbo.router

  clusters:
  - name: shop-v1
    type: STATIC
    connect_timeout: 1s
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: shop-v1
        common_tls_context: &web
          tls_certificates:                         # who we are
          - certificate_chain: {filename: $certs/web.pem}
            private_key: {filename: $certs/web.key}
          validation_context:                       # who they must be
            trusted_ca: {filename: $certs/root.pem}
            match_typed_subject_alt_names:
            - {san_type: URI, matcher: {exact: "$shop_identity"}}
    load_assignment:
      cluster_name: shop-v1
      endpoints:
      - lb_endpoints:
        - &shop {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $shop_port}}}}   # of all, see sni
$more_clusters""")


_CLUSTER: Final = Template("""\
  - name: $name
    type: STATIC
    connect_timeout: 1s
$settings    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: $name
        common_tls_context: *web
    load_assignment: {cluster_name: $name, endpoints: [{lb_endpoints: [*shop]}]}
""")
_RETRIES: Final = """\
    circuit_breakers: {thresholds: [{max_retries: 256}]}   # at once; the default of 3 is too few for a storm of callers
"""
_CHECKS: Final = """\
    health_checks:                                  # grpc.health.v1 for a service that has it; here a connection is enough
    - {timeout: 1s, interval: 5s, unhealthy_threshold: 2, healthy_threshold: 1, tcp_health_check: {}}
"""
HTTP2: Final = """\
    typed_extension_protocol_options: &http2
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"""
HTTP2_AGAIN: Final = "    typed_extension_protocol_options: *http2\n"
_MORE: Final = {
    "shop-v2": "", "flaky": _RETRIES, "grpc-v1": HTTP2 + _CHECKS, "grpc-v2": HTTP2_AGAIN, "dubbo-v1": "", "dubbo-v2": "",
}  # fmt: skip
"""the other clusters, and their settings"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where everything listens on loopback. The defaults are those of docs/examples/demo.yaml and demo-shop.yaml."""

    listen: int = 10000
    """the caller's sidecar"""
    admin: int = 15000
    dubbo: int = 10880
    """the Dubbo listener of the caller's sidecar"""
    shop: int = 15006
    """the services' sidecar"""
    shop_admin: int = 15001
    v1: int = 8081
    v2: int = 8082
    flaky: int = 8083
    dubbo_v1: int = 20881
    dubbo_v2: int = 20882
    grpc_v1: int = 50051
    grpc_v2: int = 50052


def bootstrap_yaml(
    ports: Ports, *, certs: str = "certs", access_log: str = "/dev/stdout", command: str = "mesh-proxy -c demo.yaml"
) -> str:
    """The bootstrap as text; `certs` is the folder of the certificates."""
    return _TEMPLATE.substitute(
        command=command,
        access_log=access_log,
        certs=certs,
        shop_identity=identity(SHOP),
        listen_port=ports.listen,
        admin_port=ports.admin,
        dubbo_port=ports.dubbo,
        shop_port=ports.shop,
        weight_v1=100 - SHARE_OF_V2,
        weight_v2=SHARE_OF_V2,
        more_clusters="".join([_CLUSTER.substitute(name=name, settings=settings) for name, settings in _MORE.items()]),
    )
