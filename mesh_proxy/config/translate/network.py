"""Network filters other than the HTTP connection manager and the Dubbo manager: TCP proxy, limits, authorization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mesh_proxy.config.model.dubbo import DubboProxyConfig
from mesh_proxy.config.model.http import HttpManagerConfig
from mesh_proxy.config.model.listener import ConnectionLimitConfig, ConnectionRateConfig, NetworkRbacConfig, TcpProxyConfig
from mesh_proxy.config.model.route import WeightedClusterConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.access_log import access_log
from mesh_proxy.config.translate.common import metadata, required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.dubbo import DUBBO, dubbo_proxy
from mesh_proxy.config.translate.http import MANAGER, http_manager
from mesh_proxy.config.translate.istio import left_out
from mesh_proxy.config.translate.rate_limit import token_bucket
from mesh_proxy.config.translate.rbac import refuse_matcher, rules

NetworkFilter = (
    TcpProxyConfig | HttpManagerConfig | ConnectionLimitConfig | ConnectionRateConfig | NetworkRbacConfig | DubboProxyConfig
)
_NETWORK = "envoy.extensions.filters.network"


def network_filter(reader: Reader, context: Context) -> NetworkFilter | None:
    """`envoy.config.listener.v3.Filter`; None for one that is left out with a remark."""
    name = reader.text("name")
    extension = reader.extension()
    if extension is None:
        if reader.oneof("config_type") == "config_discovery":
            raise reader.error("filters by discovery are not supported", "config_discovery")
        raise reader.error(f"{name} needs typed_config")
    translate = _FILTERS.get(extension.type)
    if translate is None:
        why = left_out(extension)
        if why:
            reader.problems.warn(extension.path, f"ignored: {name}: {why}")
            return None
        raise extension.unsupported("network filter")
    return translate(extension.reader, context)


def is_terminal(config: NetworkFilter) -> bool:
    """Whether the filter ends its chain."""
    return not isinstance(config, (ConnectionLimitConfig, ConnectionRateConfig, NetworkRbacConfig))


def _over(wide: dict[str, Any], narrow: dict[str, Any]) -> dict[str, Any]:
    """Metadata of a wider scope under that of a narrower one, value by value."""
    return {**wide, **{name: {**wide.get(name, {}), **values} for name, values in narrow.items()}}


def _tcp_proxy(reader: Reader, context: Context) -> TcpProxyConfig:
    kind = reader.oneof("cluster_specifier")
    if kind == "cluster":
        clusters: tuple[WeightedClusterConfig, ...] = (
            WeightedClusterConfig(name=reader.text(kind), metadata_match=metadata(reader, "metadata_match")),
        )
    else:
        shared = metadata(reader, "metadata_match")
        clusters = required(reader, kind).each(
            "clusters",
            lambda r: WeightedClusterConfig(
                name=r.text("name"), weight=r.number("weight"), metadata_match=_over(shared, metadata(r, "metadata_match"))
            ),
        )
    options = reader.sub("access_log_options")
    interval = reader.seconds("access_log_flush_interval")
    return TcpProxyConfig(
        stat_prefix=reader.text("stat_prefix"),
        clusters=clusters,
        idle_timeout_s=reader.timeout("idle_timeout", 3600.0),
        max_connect_attempts=reader.number("max_connect_attempts", 1),
        max_downstream_connection_duration_s=reader.seconds("max_downstream_connection_duration"),
        access_logs=reader.each("access_log", access_log),
        access_log_flush_interval_s=(options.seconds("access_log_flush_interval", interval) if options is not None else interval),
    )


def _connection_limit(reader: Reader, context: Context) -> ConnectionLimitConfig:
    limit = reader.optional_number("max_connections")
    if limit is None:
        raise reader.error("is required", "max_connections")
    enabled = reader.sub("runtime_enabled")
    if enabled is not None:
        key = enabled.text("runtime_key")
        default = required(enabled, "default_value").flag("value")
        if not bool(context.runtime.get(key, default)):
            raise enabled.error("a filter that is switched off is not supported: leave it out")
    return ConnectionLimitConfig(
        stat_prefix=reader.text("stat_prefix"), max_connections=limit, delay_s=reader.seconds("delay", 0.0) or 0.0
    )


def _rbac(reader: Reader, context: Context) -> NetworkRbacConfig:
    refuse_matcher(reader)
    if reader.enum("enforcement_type") != "ONE_TIME_ON_FIRST_BYTE":
        raise reader.error("only a decision at the beginning of a connection is supported", "enforcement_type")
    return NetworkRbacConfig(
        stat_prefix=reader.text("stat_prefix"),
        rules=rules(reader.sub("rules"), requests=False),
        shadow_rules=rules(reader.sub("shadow_rules"), requests=False),
        shadow_prefix=reader.text("shadow_rules_stat_prefix"),
        delay_s=reader.seconds("delay_deny", 0.0) or 0.0,
    )


def _connection_rate(reader: Reader, context: Context) -> ConnectionRateConfig:
    enabled = reader.sub("runtime_enabled")
    bucket = token_bucket(required(reader, "token_bucket"))
    return ConnectionRateConfig(
        stat_prefix=reader.text("stat_prefix"),
        max_tokens=bucket.max_tokens,
        tokens_per_fill=bucket.tokens_per_fill,
        fill_interval_s=bucket.fill_interval_s,
        share_key=reader.text("share_key"),
        enabled=enabled is None or required(enabled, "default_value").flag("value"),
        runtime_key=enabled.text("runtime_key") if enabled is not None else "",
    )


_FILTERS: dict[str, Callable[[Reader, Context], NetworkFilter]] = {
    MANAGER: http_manager,
    DUBBO: dubbo_proxy,
    f"{_NETWORK}.tcp_proxy.v3.TcpProxy": _tcp_proxy,
    f"{_NETWORK}.connection_limit.v3.ConnectionLimit": _connection_limit,
    f"{_NETWORK}.rbac.v3.RBAC": _rbac,
    f"{_NETWORK}.local_ratelimit.v3.LocalRateLimit": _connection_rate,
}
