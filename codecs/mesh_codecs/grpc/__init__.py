"""gRPC over HTTP: a reading of headers, bodies and trailers, not a transport of its own (grpc: doc/PROTOCOL-HTTP2.md)."""

from mesh_codecs.grpc.messages import MessageCounter, frame
from mesh_codecs.grpc.status import (
    STATUS_NAMES,
    encode_message,
    http_of_status,
    is_grpc_content_type,
    status_of_http,
    status_of_value,
)
from mesh_codecs.grpc.timeout import parse_timeout_ms, render_timeout

__all__ = [
    "STATUS_NAMES",
    "MessageCounter",
    "encode_message",
    "frame",
    "http_of_status",
    "is_grpc_content_type",
    "parse_timeout_ms",
    "render_timeout",
    "status_of_http",
    "status_of_value",
]
