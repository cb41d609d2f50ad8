"""One request in the words of no protocol: what kind it is, which service and method it is for, where it comes from.

A Dubbo call is shown to filters as `POST /<service>/<method>` whose headers are its attachments; gRPC and Triple have that
path anyway. Values go in and out through `request.headers`, whatever they are on the wire.
"""

from __future__ import annotations

from mesh_codecs.events import RequestHeaders
from mesh_filters.filter import Stream
from mesh_filters.source import identities_of

DUBBO = "dubbo"
TRIPLE = "triple"
GRPC = "grpc"
HTTP = "http"


class RequestView:
    """Looks at the request of a stream; nothing is worked out before it is asked for."""

    __slots__ = ("request", "stream")

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.request: RequestHeaders = stream.request

    @property
    def kind(self) -> str:
        """`dubbo`, `triple`, `grpc` or `http`."""
        request = self.request
        if request.http_version == b"Dubbo":
            return DUBBO
        first = request.headers.first
        content_type = first.get(b"content-type", b"")
        if content_type == b"application/triple+wrapper" or any(name.startswith(b"tri-") for name in first):
            return TRIPLE
        return GRPC if content_type.startswith(b"application/grpc") else HTTP

    @property
    def service(self) -> bytes:
        """Interface of a call, authority of a plain HTTP request."""
        if self.kind == HTTP:
            return self.request.authority
        return self.request.path.strip(b"/").partition(b"/")[0]

    @property
    def method(self) -> bytes:
        """Method of a call (`sayHello`), of a plain HTTP request its own (`GET`)."""
        if self.kind == HTTP:
            return self.request.method
        return self.request.path.partition(b"?")[0].rpartition(b"/")[2]

    def _either(self, dubbo: bytes, triple: bytes) -> bytes:
        first = self.request.headers.first
        return first.get(dubbo) or b"" if self.kind == DUBBO else first.get(triple) or b""

    @property
    def group(self) -> bytes:
        """Group of the service; empty when it has none."""
        return self._either(b"group", b"tri-service-group")

    @property
    def version(self) -> bytes:
        """Version of the service; empty when it has none. A Dubbo call says it before its attachments, which may lack it."""
        called: bytes = getattr(self.request.headers, "service_version", b"")
        return called or self._either(b"version", b"tri-service-version")

    @property
    def source_ip(self) -> bytes:
        """Of the caller's connection."""
        return self.stream.connection.remote_ip

    @property
    def source_identities(self) -> tuple[str, ...]:
        """URI names of the caller's certificate (SPIFFE)."""
        return identities_of(self.stream)
