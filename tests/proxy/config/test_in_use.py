"""Nothing is accepted that the data path does not act upon: every field of the dataclasses is read somewhere, or gated."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from bootstraps import web
from google.protobuf import descriptor_pool

from mesh_proxy.config import features, model
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.extensions import MODULES
from mesh_proxy.config.ignored import IGNORED
from mesh_proxy.config.loader import load_bootstrap

PACKAGE = Path(model.__file__).parents[2]
GATED = {
    "ClusterConfig.close_connections_on_host_health_failure",
    "ClusterConfig.per_host_max_connections",
    "DirectResponseConfig.body_format",
    "HashPolicyConfig.cookie_ttl_s",
    "Http1Config.override_stream_error_on_invalid_http_message",
    "HttpManagerConfig.access_log_flush_interval_s",
    "HttpManagerConfig.access_log_on_new_request",
    "HttpManagerConfig.stream_error_on_invalid_http_message",
    "ListenerConfig.ignore_global_conn_limit",
    "LocalReplyConfig.body_format",
    "LocalReplyConfig.mappers",
    "LocalReplyMapperConfig.body_format",
    "LocalReplyMapperConfig.headers_to_add",
    "RetryPolicyConfig.rate_limited_max_interval_s",
    "RetryPolicyConfig.rate_limited_reset_headers",
    "RouterFilterConfig.respect_expected_rq_timeout",
    "RouterFilterConfig.strict_check_headers",
    "RouterFilterConfig.upstream_logs",
    "TcpProxyConfig.access_log_flush_interval_s",
    "VirtualHostConfig.per_request_buffer_limit_bytes",
}
"""refused by `features` as long as nothing reads them"""

WITHOUT_EFFECT = {
    "AdminConfig.ignore_global_conn_limit",
    "ClusterConfig.transport_socket",
    "FilterChainConfig.transport_socket",
    "FilterChainConfig.transport_socket_connect_timeout_s",
    "HashPolicyConfig.cookie_path",
    "HttpFilterConfig.is_optional",
    "HttpManagerConfig.request_id_for_trace_sampling",
    "HttpManagerConfig.request_id_pack_trace_reason",
    "RouteConfig.decorator_operation",
    "RouteTableConfig.max_direct_response_body_size_bytes",
    "RouteTableConfig.validate_clusters",
    "RouterFilterConfig.dynamic_stats",
}
"""without TLS, tracing, listener filters and HTTP/2 upstreams there is nothing that they could change; is_optional works in the
loader"""


def unused() -> set[str]:
    source = "\n".join(p.read_text() for p in PACKAGE.rglob("*.py") if "config" not in p.relative_to(PACKAGE).parts)
    read = set(re.findall(r"\.([a-z_0-9]+)\b", source))
    classes = [getattr(model, name) for name in model.__all__]
    return {
        f"{cls.__name__}.{field.name}"
        for cls in classes
        if dataclasses.is_dataclass(cls)
        for field in dataclasses.fields(cls)
        if field.name not in read
    }


def test_every_field_is_read_or_gated() -> None:
    http2 = {"ClusterConfig.http2", "HttpManagerConfig.http2"} | {
        f"Http2Config.{field.name}" for field in dataclasses.fields(model.Http2Config)
    }
    if "HTTP2" in features.DOWNSTREAM_CODECS | features.UPSTREAM_PROTOCOLS:
        http2 = set()  # no longer gated
    assert unused() - http2 - GATED - WITHOUT_EFFECT == set(), "accepted, but nothing reads it: see features.NOT_YET"


@pytest.mark.parametrize("table", [features.NOT_YET, IGNORED], ids=["NOT_YET", "IGNORED"])
def test_the_tables_name_real_fields(table: dict[str, object]) -> None:
    for module in {*MODULES.values(), "envoy.config.bootstrap.v3.bootstrap_pb2"}:
        importlib.import_module(module)
    pool = descriptor_pool.Default()
    for name in table:
        message, _, field = name.rpartition(".")
        assert field in pool.FindMessageTypeByName(message).fields_by_name, name


def test_a_field_without_effect_is_refused_unless_it_is_off() -> None:
    field = "envoy.config.listener.v3.Listener.ignore_global_conn_limit"
    load_bootstrap(None, web(listener="ignore_global_conn_limit: false"))
    if field not in features.NOT_YET:  # the data path knows it now
        load_bootstrap(None, web(listener="ignore_global_conn_limit: true"))
        return
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(listener="ignore_global_conn_limit: true"))
    assert caught.value.problems == (("listeners[0].ignore_global_conn_limit", "this field is not supported yet"),)


def test_gates_are_opened_when_the_data_path_reads_the_field() -> None:
    assert GATED - unused() == set(), "these are read now: take them from features.NOT_YET or OTHER, and from here"
