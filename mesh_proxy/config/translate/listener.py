"""Listeners, filter chains and listener filters."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from mesh_proxy.config import features
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.listener import (
    FilterChainConfig,
    FilterChainMatchConfig,
    ListenerConfig,
    ListenerFilterConfig,
    PortPredicateConfig,
)
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.translate.access_log import access_log
from mesh_proxy.config.translate.common import address, cidr, required, socket_options
from mesh_proxy.config.translate.context import Context, run
from mesh_proxy.config.translate.network import NetworkFilter, is_terminal, network_filter
from mesh_proxy.config.translate.transport import downstream_transport, used_secrets

_LISTENER_FILTERS = "envoy.extensions.filters.listener"


def translate_listener(message: Message, path: str, context: Context | None = None) -> ListenerConfig:
    """`envoy.config.listener.v3.Listener`."""
    return run(message, path, _listener, context)


def _listener(reader: Reader, context: Context) -> ListenerConfig:
    if reader.message.WhichOneof("listener_specifier") or reader.has("api_listener") or reader.has("udp_listener_config"):
        raise reader.error("only TCP and unix socket listeners are supported")
    bound = address(required(reader, "address"), names_allowed=False)
    name = reader.text("name") or str(bound)
    before = len(context.references)
    default = reader.sub("default_filter_chain")
    chains = reader.each("filter_chains", lambda r: _filter_chain(r, context))
    if not reader.message.filter_chains and default is None:
        raise reader.error("needs filter_chains or default_filter_chain")
    default_chain = _filter_chain(default, context) if default is not None else None
    _check_matches(reader, chains)
    filters = reader.each("listener_filters", _listener_filter)
    use_original_dst = reader.flag("use_original_dst")
    for i, one in enumerate(filters):
        if use_original_dst and one.type_url.endswith(".OriginalSrc"):
            why = "original_src is not supported with use_original_dst: a connection may be handed to a listener without it"
            reader.problems.extend(reader.error(why, f"listener_filters[{i}]"))
    old = reader.sub("deprecated_v1")
    bind = old.flag("bind_to_port", True) if old is not None else True
    timeout = reader.seconds("listener_filters_timeout", 15.0)
    return ListenerConfig(
        name=name,
        address=bound,
        additional_addresses=reader.each("additional_addresses", _additional_address),
        bind_to_port=reader.flag("bind_to_port", bind),
        stat_prefix=reader.text("stat_prefix"),
        filter_chains=chains,
        default_filter_chain=default_chain,
        listener_filters=filters,
        listener_filters_timeout_s=timeout or None,
        continue_on_listener_filters_timeout=reader.flag("continue_on_listener_filters_timeout"),
        use_original_dst=use_original_dst,
        transparent=reader.flag("transparent"),
        per_connection_buffer_limit_bytes=reader.number("per_connection_buffer_limit_bytes", 1_048_576),
        tcp_backlog_size=reader.optional_number("tcp_backlog_size"),
        max_connections=_connection_limit(context, name),
        ignore_global_conn_limit=reader.flag("ignore_global_conn_limit"),
        enable_reuse_port=reader.flag("enable_reuse_port", True),
        freebind=reader.flag("freebind"),
        socket_options=socket_options(reader),
        traffic_direction=reader.enum("traffic_direction"),
        drain_type=reader.enum("drain_type"),
        access_logs=reader.each("access_log", access_log),
        references=tuple(context.references[before:]),
        tls_secrets=used_secrets(context, (one.transport_socket for one in (*chains, default_chain) if one is not None)),
    )


def _connection_limit(context: Context, name: str) -> int | None:
    value = context.runtime.get(f"envoy.resource_limits.listener.{name}.connection_limit")
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _additional_address(reader: Reader) -> Any:
    return address(required(reader, "address"), names_allowed=False)


def _check_matches(reader: Reader, chains: tuple[FilterChainConfig, ...]) -> None:
    if len(chains) != len(reader.message.filter_chains):
        return  # a chain is refused already, and the rest is not numbered as in the file
    seen: dict[FilterChainMatchConfig, int] = {}
    for i, chain in enumerate(chains):
        match = chain.match or FilterChainMatchConfig()
        first = seen.setdefault(match, i)
        if first != i:
            why = f"matches the same connections as filter_chains[{first}]"
            reader.problems.extend(reader.error(why, f"filter_chains[{i}].filter_chain_match"))


def _filter_chain(reader: Reader, context: Context) -> FilterChainConfig:
    match = reader.sub("filter_chain_match")
    socket = reader.sub("transport_socket")
    if reader.flag("use_proxy_proto"):
        raise reader.error("the PROXY protocol is not supported", "use_proxy_proto")
    return FilterChainConfig(
        name=reader.text("name"),
        match=_match(match) if match is not None else None,
        filters=_filters(reader, context),
        transport_socket=downstream_transport(socket, context) if socket is not None else None,
        transport_socket_connect_timeout_s=reader.timeout("transport_socket_connect_timeout"),
    )


def _filters(reader: Reader, context: Context) -> tuple[NetworkFilter, ...]:
    entries = reader.subs("filters")
    filters: list[NetworkFilter] = []
    for i, entry in enumerate(entries):
        last = i == len(entries) - 1
        try:
            config = network_filter(entry, context)
        except ConfigError as error:
            reader.problems.extend(error)
            entry.abandon()
            continue
        if config is None:
            if last:
                reader.problems.extend(entry.error("the last filter must be one that ends the chain, such as tcp_proxy"))
            continue
        filters.append(config)
        if is_terminal(config) and not last:
            reader.problems.extend(entry.error("this filter ends the chain, so it must be the last one"))
        if last and not is_terminal(config):
            reader.problems.extend(entry.error("the last filter must be one that ends the chain, such as tcp_proxy"))
    return tuple(filters)


def _match(reader: Reader) -> FilterChainMatchConfig:
    names = tuple(name.lower() for name in reader.strings("server_names"))
    for i, name in enumerate(names):
        if "*" in name and (not name.startswith("*.") or "*" in name[1:]):
            raise reader.error(f"{name}: a wildcard can only be the whole first label", f"server_names[{i}]")
    return FilterChainMatchConfig(
        destination_port=reader.optional_number("destination_port"),
        prefix_ranges=reader.each("prefix_ranges", cidr),
        server_names=names,
        transport_protocol=reader.text("transport_protocol"),
        application_protocols=reader.strings("application_protocols"),
        direct_source_prefix_ranges=reader.each("direct_source_prefix_ranges", cidr),
        source_type=reader.enum("source_type"),
        source_prefix_ranges=reader.each("source_prefix_ranges", cidr),
        source_ports=reader.numbers("source_ports"),
    )


def _listener_filter(reader: Reader) -> ListenerFilterConfig:
    name = reader.text("name")
    extension = reader.extension()
    if extension is None:
        if reader.oneof("config_type") == "config_discovery":
            raise reader.error("filters by discovery are not supported", "config_discovery")
        raise reader.error(f"{name} needs typed_config")
    short = _FILTER_TYPES.get(extension.type)
    if short is None:
        raise extension.unsupported("listener filter")
    if short not in features.LISTENER_FILTERS:
        raise reader.error(f"the listener filter {short} is not supported")
    if short == "original_dst" and reader.has("filter_disabled"):
        raise reader.error("which address a connection was made to is always looked at", "filter_disabled")
    disabled = reader.sub("filter_disabled")
    return ListenerFilterConfig(
        name=name,
        type_url=extension.type,
        config=_filter_options(short, extension),
        disabled=_port_predicate(disabled) if disabled is not None else None,
    )


def _port_predicate(reader: Reader) -> PortPredicateConfig:
    match reader.oneof("rule"):
        case "any_match":
            reader.flag("any_match")
            return PortPredicateConfig(kind="any")
        case "not_match":
            return PortPredicateConfig(kind="not", rules=(_port_predicate(required(reader, "not_match")),))
        case "and_match":
            return PortPredicateConfig(kind="and", rules=required(reader, "and_match").each("rules", _port_predicate))
        case "or_match":
            return PortPredicateConfig(kind="or", rules=required(reader, "or_match").each("rules", _port_predicate))
        case "destination_port_range":
            ports = required(reader, "destination_port_range")
            return PortPredicateConfig(kind="range", start=ports.number("start"), end=ports.number("end"))
        case _:
            raise reader.error("needs a rule")


_FILTER_TYPES = {
    f"{_LISTENER_FILTERS}.original_dst.v3.OriginalDst": "original_dst",
    f"{_LISTENER_FILTERS}.original_src.v3.OriginalSrc": "original_src",
    f"{_LISTENER_FILTERS}.tls_inspector.v3.TlsInspector": "tls_inspector",
    f"{_LISTENER_FILTERS}.http_inspector.v3.HttpInspector": "http_inspector",
    f"{_LISTENER_FILTERS}.proxy_protocol.v3.ProxyProtocol": "proxy_protocol",
}


def _filter_options(short: str, extension: Extension) -> dict[str, int] | None:
    reader = extension.reader
    if short == "original_src":
        return {"mark": reader.number("mark", 0), "bind_port": reader.flag("bind_port")}
    if short != "tls_inspector":
        return None
    return {
        "initial_read_buffer_size": reader.number("initial_read_buffer_size", 16384),
        "max_client_hello_size": reader.number("max_client_hello_size", 16384),
    }
