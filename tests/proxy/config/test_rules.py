"""The rules in the protos themselves, one message for each kind of rule."""

import importlib
from typing import Any

import pytest
from google.protobuf import json_format

from mesh_proxy.config.problems import Problems
from mesh_proxy.config.rules import check_rules, forget


def faults(module: str, name: str, fields: dict[str, Any]) -> list[tuple[str, str]]:
    message: Any = importlib.import_module(f"envoy.{module}_pb2")
    for part in name.split("."):
        message = getattr(message, part)
    problems = Problems()
    check_rules(json_format.ParseDict(fields, message()), "m", problems)
    return problems.found


CORE = "config.core.v3.base"
ROUTE = "config.route.v3.route_components"
CLUSTER = "config.cluster.v3.cluster"
BOOTSTRAP = "config.bootstrap.v3.bootstrap"
QUOTA = "service.rate_limit_quota.v3.rlqs"
HISTOGRAM = "config.metrics.v3.stats"


@pytest.mark.parametrize(
    ("module", "name", "good", "bad", "path", "why"),
    [
        (CORE, "HeaderValue", {"key": "a"}, {"key": ""}, "m.key", "must not be empty"),
        (CORE, "HeaderValue", {"key": "a" * 16384}, {"key": "a" * 16385}, "m.key", "must have at most 16384 characters"),
        (CORE, "HeaderValue", {"key": "a"}, {"key": "a\rb"}, "m.key", "must not hold a line break or a zero byte"),
        (CORE, "HeaderValueOption", {"header": {"key": "a"}}, {}, "m.header", "is required"),
        (
            "config.core.v3.address",
            "SocketAddress",
            {"address": "a", "port_value": 65535},
            {"address": "a", "port_value": 65536},
            "m.port_value",
            "must be at most 65535, not 65536",
        ),
        (
            "config.core.v3.address",
            "SocketAddress",
            {"address": "a", "port_value": 0},
            {"address": "a"},
            "m",
            "needs one of port_value, named_port",
        ),
        (
            CLUSTER,
            "Cluster",
            {"name": "a"},
            {"name": "a", "connect_timeout": "0s"},
            "m.connect_timeout",
            "must be more than 0s, not 0s",
        ),
        (
            BOOTSTRAP,
            "Bootstrap",
            {"stats_flush_interval": "299s"},
            {"stats_flush_interval": "0.0001s"},
            "m.stats_flush_interval",
            "must be less than 300s and at least 0.001s, not 0.0001s",
        ),
        (
            BOOTSTRAP,
            "Bootstrap",
            {"stats_flush_on_admin": True},
            {"stats_flush_on_admin": False},
            "m.stats_flush_on_admin",
            "must be true if it is given",
        ),
        (
            CLUSTER,
            "Cluster.LeastRequestLbConfig",
            {"choice_count": 2},
            {"choice_count": 1},
            "m.choice_count",
            "must be at least 2, not 1",
        ),
        (
            ROUTE,
            "DirectResponseAction",
            {"status": 200},
            {"status": 600},
            "m.status",
            "must be less than 600 and at least 200, not 600",
        ),
        (ROUTE, "VirtualHost", {"name": "a", "domains": ["b"]}, {"name": "a"}, "m.domains", "must not be empty"),
        (
            ROUTE,
            "VirtualHost",
            {"name": "a", "domains": ["b"]},
            {"name": "a", "domains": ["b", "c\n"]},
            "m.domains[1]",
            "must not hold a line break or a zero byte",
        ),
        (
            ROUTE,
            "RouteMatch",
            {"path_separated_prefix": "/a"},
            {"path_separated_prefix": "/a/"},
            "m.path_separated_prefix",
            "must match ^[^?#]+[^?#/]$, and '/a/' does not",
        ),
        (
            ROUTE,
            "InternalRedirectPolicy",
            {"response_headers_to_copy": ["a"]},
            {"response_headers_to_copy": ["a", "a"]},
            "m.response_headers_to_copy",
            "must not hold the same value twice",
        ),
        (
            "config.listener.v3.listener_components",
            "FilterChainMatch",
            {"source_ports": [1]},
            {"source_ports": [1, 0]},
            "m.source_ports[1]",
            "must be at most 65535 and at least 1, not 0",
        ),
        (
            HISTOGRAM,
            "HistogramBucketSettings",
            {"match": {"exact": "a"}, "buckets": [0.5]},
            {"match": {"exact": "a"}, "buckets": [0]},
            "m.buckets[0]",
            "must be more than 0, not 0.0",
        ),
        (
            "config.core.v3.protocol",
            "SchemeHeaderTransformation",
            {"scheme_to_overwrite": "http"},
            {"scheme_to_overwrite": "ftp"},
            "m.scheme_to_overwrite",
            "must be one of http, https, not 'ftp'",
        ),
        (
            CORE,
            "Metadata",
            {"filter_metadata": {"a": {}}},
            {"filter_metadata": {"": {}}},
            "m.filter_metadata[]",
            "key must not be empty",
        ),
        (QUOTA, "BucketId", {"bucket": {"a": "b"}}, {}, "m.bucket", "must not be empty"),
        (QUOTA, "BucketId", {"bucket": {"a": "b"}}, {"bucket": {"a": ""}}, "m.bucket[a]", "must not be empty"),
        (
            "extensions.filters.network.http_connection_manager.v3.http_connection_manager",
            "HttpConnectionManager",
            {"stat_prefix": "a", "route_config": {}},
            {"stat_prefix": "a", "route_config": {}, "max_request_headers_kb": 0},
            "m.max_request_headers_kb",
            "must be at most 8192 and more than 0, not 0",
        ),
        (
            CLUSTER,
            "Cluster",
            {"name": "a", "load_assignment": {"cluster_name": "a"}},
            {"name": "a", "load_assignment": {"cluster_name": "a", "endpoints": [{}, {"priority": 129}]}},
            "m.load_assignment.endpoints[1].priority",
            "must be at most 128, not 129",
        ),
    ],
)
def test_rule(module: str, name: str, good: dict[str, Any], bad: dict[str, Any], path: str, why: str) -> None:
    assert faults(module, name, good) == []
    assert faults(module, name, bad) == [(path, why)]


@pytest.mark.parametrize(
    ("module", "name", "field", "value", "why"),
    [
        (CLUSTER, "Cluster", "lb_policy", 99, "99 is not a value of envoy.config.cluster.v3.Cluster.LbPolicy"),
        ("config.accesslog.v3.accesslog", "GrpcStatusFilter", "statuses", [99], "99 is not a value of"),
        (CORE, "HeaderValue", "raw_value", b"a" * 16385, "must have at most 16384 bytes"),
    ],
)
def test_what_only_a_binary_message_can_hold(module: str, name: str, field: str, value: Any, why: str) -> None:
    message = getattr(importlib.import_module(f"envoy.{module}_pb2"), name)(**{field: value})
    problems = Problems()
    check_rules(message, "", problems)
    assert any(path.startswith(field) and text.startswith(why) for path, text in problems.found), problems.found


def test_a_message_may_be_exempt() -> None:
    assert faults(CORE, "KeyValueAppend", {"entry": {}}) == []


def test_rules_are_compiled_again_after_they_were_forgotten() -> None:
    forget()
    assert faults(CORE, "HeaderValue", {"key": ""}) == [("m.key", "must not be empty")]
