"""Istio's own messages that sidecars are sent, as far as we read them: they are in none of the packages that carry Envoy's.

Fields and numbers are those of Istio's `alpn` HTTP filter and `metadata_exchange` network filter (istio/proxy, the files
`alpn/config.proto` and `metadata_exchange/config/metadata_exchange.proto`).
"""

from __future__ import annotations

from typing import Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto

ALPN: Final = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
METADATA_EXCHANGE: Final = "envoy.tcp.metadataexchange.config.MetadataExchange"

_F = FieldDescriptorProto


def _field(
    name: str, number: int, kind: FieldDescriptorProto.Type.ValueType, *, repeated: bool = False, of: str | None = None
) -> FieldDescriptorProto:
    label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
    return FieldDescriptorProto(name=name, number=number, label=label, type=kind, type_name=of)


_PROTOCOLS = EnumDescriptorProto(name="Protocol")
for _number, _name in enumerate(("HTTP10", "HTTP11", "HTTP2")):
    _PROTOCOLS.value.add(name=_name, number=_number)
_OVERRIDE = DescriptorProto(
    name="AlpnOverride",
    field=[
        _field("upstream_protocol", 1, _F.TYPE_ENUM, of=f".{ALPN}.Protocol"),
        _field("alpn_override", 2, _F.TYPE_STRING, repeated=True),
    ],
)
_FILTER = DescriptorProto(
    name="FilterConfig",
    field=[_field("alpn_override", 1, _F.TYPE_MESSAGE, repeated=True, of=f".{ALPN}.AlpnOverride")],
    nested_type=[_OVERRIDE],
    enum_type=[_PROTOCOLS],
)
_EXCHANGE = DescriptorProto(
    name="MetadataExchange",
    field=[
        _field("protocol", 1, _F.TYPE_STRING),
        _field("enable_discovery", 2, _F.TYPE_BOOL),
        _field("additional_labels", 3, _F.TYPE_STRING, repeated=True),
    ],
)
for _path, _message, _content in (
    ("mesh_proxy/istio/alpn.proto", ALPN, _FILTER),
    ("mesh_proxy/istio/metadata_exchange.proto", METADATA_EXCHANGE, _EXCHANGE),
):
    descriptor_pool.Default().Add(
        FileDescriptorProto(name=_path, package=_message.rpartition(".")[0], syntax="proto3", message_type=[_content])
    )
