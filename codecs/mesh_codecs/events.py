"""One event vocabulary for every protocol and both directions.

Proxying a message is re-stamping `stream_id` and sending the event on the other codec, so that every downstream protocol meets
every upstream one. All text is `bytes` as it was on the wire; header names are lower-case.

Those that are made for every message write out their `__init__`: what `dataclass` makes stays interpreted in the compiled build.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mesh_codecs.errors import RemoteProtocolError, ResetReason
from mesh_codecs.headers import Headers


class KnownHead:
    """Stands for the bytes of a request head that came before, on the same connection or on another."""

    __slots__ = ("note",)

    def __init__(self) -> None:
        self.note: dict[object, Any] | None = None
        """what receivers worked out of it, for the next time: each under a key of its own"""


@dataclass(slots=True, init=False)
class RequestHeaders:
    """The head of a request. `host` and the pseudo headers are fields, never entries of `headers`."""

    stream_id: int
    """connection-local id; HTTP/1 counts 1, 2, 3 … per connection"""
    method: bytes
    scheme: bytes
    """`http`, `https`, or empty when the wire does not say (HTTP/1 origin form)"""
    authority: bytes
    """Host or :authority; empty when absent"""
    path: bytes
    """path with query; `*` for OPTIONS *, empty for CONNECT"""
    headers: Headers
    end_stream: bool
    """no body and no trailers follow"""
    protocol: bytes
    """HTTP/1 `Upgrade` or HTTP/2 extended CONNECT `:protocol` value, lower-case; empty for an ordinary request"""
    http_version: bytes
    """`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`, as access logs print it"""
    known: KnownHead | None = field(compare=False, repr=False)
    """the head came before, byte for byte; None also where the codec does not look"""
    likeness: Any = field(compare=False, repr=False)
    """for the codec that sends the head: heads with the same object here differ in the value of `x-request-id` at most; over
    HTTP/1 also in those of traces (`mesh_codecs.http1.grammar.OWN`)"""

    def __init__(
        self,
        stream_id: int,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        headers: Headers,
        end_stream: bool,
        protocol: bytes = b"",
        http_version: bytes = b"HTTP/1.1",
        known: KnownHead | None = None,
        likeness: Any = None,
    ) -> None:
        self.stream_id = stream_id
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.headers = headers
        self.end_stream = end_stream
        self.protocol = protocol
        self.http_version = http_version
        self.known = known
        self.likeness = likeness


@dataclass(slots=True, init=False)
class ResponseHeaders:
    """The final head of a response (status >= 200, or 101 for an accepted upgrade)."""

    stream_id: int
    status: int
    headers: Headers
    end_stream: bool
    http_version: bytes

    def __init__(
        self, stream_id: int, status: int, headers: Headers, end_stream: bool, http_version: bytes = b"HTTP/1.1"
    ) -> None:
        self.stream_id = stream_id
        self.status = status
        self.headers = headers
        self.end_stream = end_stream
        self.http_version = http_version


@dataclass(slots=True)
class InformationalHeaders:
    """A 1xx response other than 101; the final head is still to come."""

    stream_id: int
    status: int
    headers: Headers


@dataclass(slots=True, init=False)
class Data:
    """A piece of a body (or of a tunnel after an upgrade). Pieces may be of any size; empty only with `end_stream`."""

    stream_id: int
    data: bytes
    end_stream: bool
    flow_size: int
    """what to `acknowledge` once delivered, in bytes: differs from len(data) where padding counts (HTTP/2)"""

    def __init__(self, stream_id: int, data: bytes, end_stream: bool, flow_size: int = 0) -> None:
        self.stream_id = stream_id
        self.data = data
        self.end_stream = end_stream
        self.flow_size = flow_size


@dataclass(slots=True, init=False)
class Trailers:
    """The trailing header block; it ends the stream."""

    stream_id: int
    headers: Headers

    def __init__(self, stream_id: int, headers: Headers) -> None:
        self.stream_id = stream_id
        self.headers = headers


@dataclass(slots=True)
class StreamReset:
    """One stream is over before its end; the connection lives on."""

    stream_id: int
    reason: ResetReason
    error: RemoteProtocolError | None = None
    """set when the peer broke a rule within this stream"""
    error_code: int = 0
    """the protocol's own code, e.g. of RST_STREAM; 0 where it has none"""


@dataclass(slots=True)
class WindowOpened:
    """The peer granted credit: `send_window(stream_id)` is positive again. Stream id 0 means every stream."""

    stream_id: int


@dataclass(slots=True)
class GoAway:
    """The peer will accept no new streams; those with an id up to `last_stream_id` still finish."""

    stream_id: int
    last_stream_id: int
    error_code: int
    debug: bytes = b""


@dataclass(slots=True)
class ConnectionFailed:
    """The peer broke the protocol so that the connection cannot go on. The farewell is already in `data_to_send()`."""

    stream_id: int
    """the stream in progress, or 0"""
    error: RemoteProtocolError


@dataclass(slots=True)
class ConnectionEnded:
    """The peer closed its sending side, in a state where that breaks nothing."""

    stream_id: int = 0


Event = (
    RequestHeaders
    | ResponseHeaders
    | InformationalHeaders
    | Data
    | Trailers
    | StreamReset
    | WindowOpened
    | GoAway
    | ConnectionFailed
    | ConnectionEnded
)
