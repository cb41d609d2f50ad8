"""The bootstrap: node, admin, runtime, and the static listeners and clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh_proxy.config.digest import has_secrets
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.json_proto import Parser, kind_of
from mesh_proxy.config.model.bootstrap import AdminConfig, BootstrapConfig, NodeConfig
from mesh_proxy.config.model.cluster import LocalityConfig
from mesh_proxy.config.model.common import AccessLogConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.config.model.source import ConfigSource
from mesh_proxy.config.model.twin import AnyClusterConfig
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader, struct_to_dict
from mesh_proxy.config.translate.access_log import access_log
from mesh_proxy.config.translate.cluster import translate_cluster
from mesh_proxy.config.translate.common import address, dns_resolver, required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.endpoint import locality
from mesh_proxy.config.translate.listener import translate_listener
from mesh_proxy.config.translate.source import config_source

_RE2 = "envoy.extensions.regex_engines.v3.GoogleRE2"
_CONNECTIONS = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
_GLOBAL_CONNECTIONS = "overload.global_downstream_max_connections"


def bootstrap(reader: Reader, context: Context, *, service_cluster: str, service_node: str) -> BootstrapConfig:
    """`envoy.config.bootstrap.v3.Bootstrap`. The flags `--service-cluster` and `--service-node` win over the file."""
    _engines(reader)
    runtime = context.runtime = _runtime(reader)
    node = reader.sub("node")
    admin = reader.sub("admin")
    listeners: tuple[ListenerConfig, ...] = ()
    clusters: tuple[AnyClusterConfig, ...] = ()
    static = reader.sub("static_resources")
    if static is not None:
        for secret in static.subs("secrets"):
            name = secret.text("name")
            if name in context.static_secrets:
                raise secret.error(f"another secret is named {name!r} too", "name")
            context.static_secrets[name] = secret
        clusters = _clusters(static, context)
        listeners = _listeners(static, context)
        for name, secret in context.static_secrets.items():
            if f"static/{name}" not in context.secrets:
                context.problems.warn(secret.path, f"nobody uses the secret {name!r}")
                secret.abandon()
        names = {message.name for message in static.raw("clusters")}
        for path, name in context.cluster_references:
            if name not in names:
                context.problems.add(path, f"unknown cluster {name!r}")
    dynamic = reader.sub("dynamic_resources")
    return BootstrapConfig(
        lds=_source(dynamic, "lds_config"),
        cds=_source(dynamic, "cds_config"),
        node=_node(node, service_cluster, service_node),
        admin=_admin(admin) if admin is not None else None,
        listeners=listeners,
        clusters=clusters,
        runtime=runtime,
        stats_flush_interval_s=reader.seconds("stats_flush_interval", 5.0) or 5.0,
        header_prefix=reader.text("header_prefix", "x-envoy"),
        max_downstream_connections=_overload(reader) or _global_limit(runtime),
    )


def _source(dynamic: Reader | None, name: str) -> ConfigSource | None:
    source = dynamic.sub(name) if dynamic is not None else None
    return config_source(source) if source is not None else None


def _engines(reader: Reader) -> None:
    engine = reader.sub("default_regex_engine")
    if engine is not None:
        engine.text("name")
        extension = engine.extension()
        if extension is not None and extension.type != _RE2:
            raise extension.unsupported("regular expression engine")
    dns_resolver(reader)


def _clusters(static: Reader, context: Context) -> tuple[AnyClusterConfig, ...]:
    result: list[AnyClusterConfig] = []
    seen: set[str] = set()
    for i, message in enumerate(static.raw("clusters")):
        path = f"clusters[{i}]"
        try:
            cluster = context.twins.twin(i) or _cluster(i, message, path, context)
        except ConfigError as error:
            context.problems.extend(error)
            continue
        if cluster.name in seen:
            context.problems.add(f"{path}.name", f"another cluster is named {cluster.name!r} too")
        seen.add(cluster.name)
        result.append(cluster)
    return tuple(result)


def _cluster(place: int, message: Any, path: str, context: Context) -> AnyClusterConfig:
    value = context.twins.value(place)
    if value is not None:  # the cluster that it is like is no model for others
        problems = Problems()
        Parser(problems, allow_unknown_fields=True).fill(message, value, path)
        problems.check()
    before = context.remarks
    cluster = translate_cluster(message, path, context)
    if context.twins.is_model(place) and context.remarks == before and not has_secrets(message):
        context.twins.learn(place, cluster)
    return cluster


def _listeners(static: Reader, context: Context) -> tuple[ListenerConfig, ...]:
    result: list[ListenerConfig] = []
    names: set[str] = set()
    for i, message in enumerate(static.raw("listeners")):
        path = f"listeners[{i}]"
        try:
            listener = translate_listener(message, path, context)
        except ConfigError as error:
            context.problems.extend(error)
            continue
        if listener.name in names:
            context.problems.add(f"{path}.name", f"another listener is named {listener.name!r} too")
        names.add(listener.name)
        for other in result:
            if _same_address(listener, other):
                context.problems.add(f"{path}.address", f"listener {other.name!r} has the address {listener.address} already")
        result.append(listener)
    return tuple(result)


def _same_address(listener: ListenerConfig, other: ListenerConfig) -> bool:
    """Whether two listeners claim one address. Port 0 is another port for each, unless nothing is bound."""
    mine = {listener.address, *listener.additional_addresses}
    theirs = {other.address, *other.additional_addresses}
    return any(address.path or address.port or not listener.bind_to_port for address in mine & theirs)


def _node(reader: Reader | None, service_cluster: str, service_node: str) -> NodeConfig:
    if reader is None:
        return NodeConfig(id=service_node, cluster=service_cluster)
    place = reader.sub("locality")
    name, cluster = reader.text("id"), reader.text("cluster")
    return NodeConfig(
        id=service_node or name,
        cluster=service_cluster or cluster,
        locality=locality(place) if place is not None else LocalityConfig(),
        metadata=reader.struct("metadata"),
    )


def _admin(reader: Reader) -> AdminConfig | None:
    logs = reader.each("access_log", access_log)
    old_path = reader.text("access_log_path")
    if old_path:
        logs = (*logs, AccessLogConfig(path=old_path))
    ignore = reader.flag("ignore_global_conn_limit")
    if not reader.has("address"):
        return None
    return AdminConfig(
        address=address(required(reader, "address"), names_allowed=False), access_logs=logs, ignore_global_conn_limit=ignore
    )


def _runtime(reader: Reader) -> dict[str, Any]:
    """The static layers, flattened; a later layer wins."""
    result: dict[str, Any] = {}
    layered = reader.sub("layered_runtime")
    if layered is None:
        return result
    names: set[str] = set()
    admin_layers = 0
    for layer in layered.subs("layers"):
        name = layer.text("name")
        if name in names:
            raise layer.error(f"another layer is named {name!r} too", "name")
        names.add(name)
        kind = layer.oneof("layer_specifier")
        if kind == "static_layer":
            _flatten("", struct_to_dict(layer.raw(kind)), result, layer.at(kind))
        elif kind == "admin_layer":
            layer.raw(kind)
            admin_layers += 1
            if admin_layers > 1:
                raise layer.error("there can be only one admin layer", kind)
        else:
            raise layer.error("this kind of layer is not supported", kind)
    return result


def _flatten(prefix: str, values: Mapping[str, Any], result: dict[str, Any], path: str) -> None:
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and "numerator" not in value:
            _flatten(name, value, result, path)
        elif value is None or isinstance(value, list):
            raise ConfigError(f"{path}.{name}", f"must be a number, text, true or false, not {kind_of(value)}")
        else:
            result[name] = value


def _overload(reader: Reader) -> int | None:
    """`overload_manager`, of which only the limit of downstream connections is supported."""
    manager = reader.sub("overload_manager")
    limit: int | None = None
    if manager is None:
        return None
    manager.seconds("refresh_interval")  # the limit is always exact
    for monitor in manager.subs("resource_monitors"):
        name = monitor.text("name")
        if limit is not None:
            raise monitor.error(f"{name} is a second monitor of the same kind")
        extension = monitor.extension()
        if extension is None:
            raise monitor.error("needs typed_config")
        if extension.type != _CONNECTIONS:
            raise extension.unsupported("resource monitor")
        limit = extension.reader.number("max_active_downstream_connections")
    return limit


def _global_limit(runtime: Mapping[str, Any]) -> int | None:
    value = runtime.get(_GLOBAL_CONNECTIONS)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
