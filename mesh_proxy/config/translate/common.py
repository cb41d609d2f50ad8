"""Small messages that many resources hold: addresses, data sources, fractions, header changes, metadata."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.common import (
    AddressConfig,
    DataSourceConfig,
    FractionConfig,
    HeaderMutationConfig,
    HeaderValueOptionConfig,
    SocketOptionConfig,
)
from mesh_proxy.config.reader import Reader, struct_to_dict
from mesh_proxy.config.translate.formats import check_format

_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def address(reader: Reader, *, names_allowed: bool) -> AddressConfig:
    """`envoy.config.core.v3.Address`. `names_allowed`: a DNS name may stand where an IP address is usual."""
    kind = reader.oneof("address")
    if kind == "socket_address":
        inner = reader.sub("socket_address")
        assert inner is not None
        return socket_address(inner, names_allowed=names_allowed)
    if kind == "pipe":
        pipe = reader.sub("pipe")
        assert pipe is not None
        return AddressConfig(path=pipe.text("path"), mode=pipe.number("mode"))
    raise reader.error("internal listeners are not supported", kind)


def socket_address(reader: Reader, *, names_allowed: bool) -> AddressConfig:
    """`envoy.config.core.v3.SocketAddress`."""
    if reader.enum("protocol") != "TCP":
        raise reader.error("only TCP is supported", "protocol")
    host = reader.text("address")
    literal = ip_literal(host)
    if literal is None and not names_allowed:
        raise reader.error(f"must be an IP address, not {host!r}", "address")
    if reader.oneof("port_specifier") == "named_port":
        raise reader.error("named ports are not supported", "named_port")
    return AddressConfig(host=literal or host, port=reader.number("port_value"), ipv4_compat=reader.flag("ipv4_compat"))


def socket_options(reader: Reader, name: str = "socket_options") -> tuple[SocketOptionConfig, ...]:
    """`envoy.config.core.v3.SocketOption`s; those for datagrams only are left out."""
    return tuple(option for option in reader.each(name, _socket_option) if option is not None)


def _socket_option(reader: Reader) -> SocketOptionConfig | None:
    reader.text("description")
    kind = reader.sub("type")
    only_datagrams = False
    if kind is not None:
        stream, datagram = kind.sub("stream"), kind.sub("datagram")
        only_datagrams = stream is None and datagram is not None
    value: int | bytes = bytes(reader.raw("buf_value"))
    if reader.oneof("value") == "int_value":
        value = reader.number("int_value")
    option = SocketOptionConfig(level=reader.number("level"), name=reader.number("name"), value=value, state=reader.enum("state"))
    return None if only_datagrams else option


def ip_literal(host: str) -> str | None:
    """The canonical text of an IP address, None if `host` is none."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def cidr(reader: Reader) -> str:
    """`CidrRange` as `address/length`, with the host bits cleared as Envoy does."""
    prefix = reader.text("address_prefix")
    length = reader.number("prefix_len")
    try:
        ip = ipaddress.ip_address(prefix)
    except ValueError:
        raise reader.error(f"must be an IP address, not {prefix!r}", "address_prefix") from None
    return str(ipaddress.ip_network((ip, min(length, ip.max_prefixlen)), strict=False))


def data_source(reader: Reader) -> DataSourceConfig:
    """`DataSource`, read now."""
    kind = reader.oneof("specifier")
    if kind == "filename":
        filename = reader.text("filename")
        try:
            return DataSourceConfig(data=Path(filename).read_bytes(), filename=filename)
        except OSError as error:
            raise reader.error(f"cannot read {filename}: {error.strerror}", kind) from None
    if kind == "inline_bytes":
        return DataSourceConfig(data=bytes(reader.raw(kind)))
    if kind == "inline_string":
        return DataSourceConfig(data=reader.text(kind).encode())
    if kind == "environment_variable":
        name = reader.text(kind)
        value = os.environ.get(name)
        if value is None:
            raise reader.error(f"environment variable {name} is not set", kind)
        return DataSourceConfig(data=value.encode(errors="surrogateescape"))
    raise reader.error("needs one of filename, inline_bytes, inline_string, environment_variable")


def text_of(reader: Reader) -> str:
    """A `DataSource` that holds text."""
    try:
        return data_source(reader).data.decode()
    except UnicodeDecodeError:
        raise reader.error("must be UTF-8 text") from None


def fraction(reader: Reader | None, runtime_key: str = "") -> FractionConfig | None:
    """`FractionalPercent`."""
    if reader is None:
        return None
    return FractionConfig(
        numerator=reader.number("numerator"), denominator=_DENOMINATORS[reader.enum("denominator")], runtime_key=runtime_key
    )


def runtime_fraction(reader: Reader | None) -> FractionConfig | None:
    """`RuntimeFractionalPercent`."""
    if reader is None:
        return None
    return fraction(reader.sub("default_value"), reader.text("runtime_key"))


def metadata(reader: Reader, name: str = "metadata") -> dict[str, Any]:
    """The `filter_metadata` of a Metadata field."""
    inner = reader.sub(name)
    if inner is None:
        return {}
    values = inner.raw("filter_metadata")
    return {key: struct_to_dict(values[key]) for key in sorted(values)}


def header_changes(reader: Reader, direction: str) -> HeaderMutationConfig:
    """`<direction>_headers_to_add` and `_to_remove`; direction is `request` or `response`."""
    removed = tuple(name.lower() for name in reader.strings(f"{direction}_headers_to_remove"))
    for i, name in enumerate(removed):
        if name.startswith(":") or name == "host":
            raise reader.error(f"{name} cannot be removed", f"{direction}_headers_to_remove[{i}]")
    return HeaderMutationConfig(add=reader.each(f"{direction}_headers_to_add", header_value_option), remove=removed)


def header_value_option(reader: Reader) -> HeaderValueOptionConfig:
    """`HeaderValueOption`."""
    header = reader.sub("header")
    assert header is not None  # required by the proto's own rule
    name = header.lower("key")
    if name.startswith(":") or name == "host":
        raise header.error(f"{name} cannot be added or set", "key")
    value = header.text("value")
    raw = header.raw("raw_value")
    if raw:
        if value:
            raise header.error("cannot be given together with value", "raw_value")
        value = raw.decode("latin-1")
    check_format(value, header.at("value"))
    action = reader.enum("append_action")
    if reader.has("append"):
        if action != "APPEND_IF_EXISTS_OR_ADD":
            raise reader.error("cannot be given together with append", "append_action")
        if not reader.flag("append"):
            action = "OVERWRITE_IF_EXISTS_OR_ADD"
    return HeaderValueOptionConfig(name=name, value=value, action=action, keep_empty=reader.flag("keep_empty_value"))


_RESOLVERS = (
    "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
)


def dns_resolver(reader: Reader) -> None:
    """`typed_dns_resolver_config`: whichever is named, the resolver is ours, so none of its options can be set."""
    config = reader.sub("typed_dns_resolver_config")
    if config is None:
        return
    config.text("name")
    extension = config.extension()
    if extension is not None and extension.type not in _RESOLVERS:
        raise extension.unsupported("DNS resolver")


def required(reader: Reader, name: str) -> Reader:
    """The reader of a message field that must be set."""
    inner = reader.sub(name)
    if inner is None:
        raise ConfigError(reader.at(name), "is required")
    return inner
