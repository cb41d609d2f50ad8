"""The messages of our own for Dubbo, `mesh_proxy.dubbo.v1.*`, as protobuf descriptors.

Made here instead of by protoc, so that durations, nested Envoy messages and unknown fields are read, checked and reported just
as in Envoy's own messages. A configuration writes them as TypedStructs, which Envoy and Istio pass on without knowing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from google.protobuf import descriptor_pool, duration_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

PACKAGE: Final = "mesh_proxy.dubbo.v1"
ROUTE_OPTIONS: Final = f"{PACKAGE}.RouteOptions"
MANAGER_OPTIONS: Final = f"{PACKAGE}.ManagerOptions"
CLUSTER_OPTIONS: Final = f"{PACKAGE}.ClusterOptions"

_F = FieldDescriptorProto
_SCALARS: Final = {"bool": _F.TYPE_BOOL, "string": _F.TYPE_STRING, "uint32": _F.TYPE_UINT32}
_DURATION: Final = ".google.protobuf.Duration"
_UINT32: Final = ".google.protobuf.UInt32Value"

_MESSAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "RouteOptions": {
        "timeout": _DURATION,
        "use_request_timeout": "bool",
        "retry_policy": f".{PACKAGE}.RetryPolicy",
        "request_mirror_policies": f"*.{PACKAGE}.MirrorPolicy",
        "fallback_cluster": "string",
    },
    "RetryPolicy": {
        "num_retries": _UINT32,
        "retry_on": "*string",
        "retriable_statuses": "*uint32",
        "per_try_timeout": _DURATION,
    },
    "MirrorPolicy": {"cluster": "string", "runtime_fraction": ".envoy.config.core.v3.RuntimeFractionalPercent"},
    "ManagerOptions": {
        "route_defaults": f".{PACKAGE}.RouteOptions",
        "opaque_cluster": "string",
        "access_log": "*.envoy.config.accesslog.v3.AccessLog",
        "idle_timeout": _DURATION,
        "heartbeat_interval": _DURATION,
        "max_body_bytes": _UINT32,
        "max_search_values": _UINT32,
        "forward_client_cert_details": "string",
        "set_current_client_cert_details": f".{PACKAGE}.ClientCertDetails",
    },
    "ClientCertDetails": {"subject": "bool", "cert": "bool", "chain": "bool", "dns": "bool", "uri": "bool"},
    "ClusterOptions": {
        "connections_per_endpoint": _UINT32,
        "heartbeat_interval": _DURATION,
        "heartbeat_timeout": _DURATION,
        "idle_timeout": _DURATION,
        "pinning": "string",
        "max_body_bytes": _UINT32,
    },
}
"""message → field → type; a star in front means repeated"""


def _message(name: str, fields: Mapping[str, str]) -> DescriptorProto:
    message = DescriptorProto(name=name)
    for number, (field, kind) in enumerate(fields.items(), 1):
        repeated = kind.startswith("*")
        kind = kind.removeprefix("*")
        label = _F.LABEL_REPEATED if repeated else _F.LABEL_OPTIONAL
        if kind in _SCALARS:
            message.field.add(name=field, number=number, label=label, type=_SCALARS[kind])
        else:
            message.field.add(name=field, number=number, label=label, type=_F.TYPE_MESSAGE, type_name=kind)
    return message


DESCRIPTOR: Final = FileDescriptorProto(
    name="mesh_proxy/dubbo/v1/options.proto",
    package=PACKAGE,
    syntax="proto3",
    dependency=[module.DESCRIPTOR.name for module in (duration_pb2, wrappers_pb2, base_pb2, accesslog_pb2)],
    message_type=[_message(name, fields) for name, fields in _MESSAGES.items()],
)
descriptor_pool.Default().Add(DESCRIPTOR)
