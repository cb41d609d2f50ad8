"""From a request to its route: compiled route tables, header matchers, rewrites and header mutations."""

from mesh_proxy.routing.matchers import (
    compile_fraction,
    compile_header_matcher,
    compile_headers_matcher,
    compile_response_matcher,
    compile_string_matcher,
)
from mesh_proxy.routing.route import ClusterChoice, Route
from mesh_proxy.routing.table import RouteTable, VirtualHost

__all__ = [
    "ClusterChoice",
    "Route",
    "RouteTable",
    "VirtualHost",
    "compile_fraction",
    "compile_header_matcher",
    "compile_headers_matcher",
    "compile_response_matcher",
    "compile_string_matcher",
]
