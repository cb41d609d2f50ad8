"""The sending half: events into frames.

Encoded header blocks are memoised under what they say, as long as our dynamic table stands still; a repeated head then costs
one look-up.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import LocalProtocolError, ResetReason
from mesh_codecs.events import (
    Data,
    Event,
    GoAway,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.headers import Headers, Pairs
from mesh_codecs.http2 import frames
from mesh_codecs.http2.core import Core
from mesh_codecs.http2.frames import (
    DATA_END_STARTS,
    DATA_STARTS,
    FRAME_HEADER_SIZE,
    HEADERS_END_STARTS,
    HEADERS_STARTS,
    STARTS,
    pack_frame_header,
)
from mesh_codecs.http2.heads import CONNECTION_SPECIFIC, field_fault, value_is_clean
from mesh_codecs.http2.hpack_encoder import encode_integer
from mesh_codecs.http2.state import (
    BODILESS,
    HALF_CLOSED_LOCAL,
    HEAD_SENT,
    IDLE,
    OPEN,
    SEND_END_STREAM,
    SENDING,
    TUNNEL,
    Stream,
)

_MEMO_SIZE: Final = 32
"""encoded blocks kept per connection"""
_MEMO_LONGEST: Final = 512
"""bytes; longer blocks are not kept"""
COPY_LIMIT: Final = 4096
"""bodies up to this size are copied behind their frame header; larger ones stay their own buffer"""

RESET_CODES: Final[dict[ResetReason, int]] = {
    ResetReason.LOCAL_RESET: frames.CANCEL,
    ResetReason.REMOTE_RESET: frames.CANCEL,
    ResetReason.REMOTE_REFUSED: frames.REFUSED_STREAM,
    ResetReason.LOCAL_REFUSED: frames.REFUSED_STREAM,
    ResetReason.CONNECT_ERROR: frames.CONNECT_ERROR,
    ResetReason.PROTOCOL_ERROR: frames.PROTOCOL_ERROR,
    ResetReason.CONNECTION_TERMINATION: frames.INTERNAL_ERROR,
    ResetReason.LOCAL_CONNECTION_FAILURE: frames.CONNECT_ERROR,
    ResetReason.REMOTE_CONNECTION_FAILURE: frames.CONNECT_ERROR,
    ResetReason.CONNECTION_TIMEOUT: frames.CONNECT_ERROR,
    ResetReason.OVERFLOW: frames.ENHANCE_YOUR_CALM,
}
"""what RST_STREAM says when the event names no code of its own"""


_UNIQUE_NAMES: Final = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"x-b3-parentspanid",
        b"x-b3-spanid",
        b"x-b3-traceid",
        b"x-client-trace-id",
        b"x-request-id",
    }
)
"""request fields whose value is another one every time; a mesh puts some of them on every request"""
_UNIQUE: Final[dict[bytes, bytes]] = {name: b"\x00" + bytes((len(name),)) + name for name in sorted(_UNIQUE_NAMES)}
"""name -> the start of its literal field without indexing (RFC 7541, 6.2.2)"""

_LENGTHS: Final = [bytes((size,)) for size in range(0x7F)]
"""string lengths of one byte (RFC 7541, 5.2)"""


class Sender(Core):
    """Turns events into frames."""

    def send(self, event: Event) -> None:
        """Queue an event for the peer.

        Connection-specific header fields are left out, `te` too unless it says `trailers`; 101 goes out as the 200 of an
        extended CONNECT. What is sent on a stream that the peer reset, or on a connection that failed, in the same read whose
        events the caller is still working on is dropped: it could not know.

        Raises:
            LocalProtocolError: the event does not fit the state, which is then unchanged.
        """
        if isinstance(event, Data):
            self.send_data(event.stream_id, event.data, event.end_stream)
        elif isinstance(event, ResponseHeaders):
            self.send_response(event)
        elif isinstance(event, RequestHeaders):
            self.send_request(event)
        elif isinstance(event, Trailers):
            self.send_trailers(event.stream_id, event.headers)
        elif self._too_late(event.stream_id):
            return
        elif isinstance(event, StreamReset):
            self._send_reset(event)
        elif isinstance(event, InformationalHeaders):
            self._send_informational(event)
        elif isinstance(event, GoAway):
            self._send_goaway(event)
        else:
            raise LocalProtocolError("http2.event_cannot_be_sent", detail=type(event).__name__)

    def _too_late(self, stream_id: int) -> bool:
        """The connection failed, or the peer reset the stream, and the caller could not know."""
        return self._failed or stream_id in self._gone

    # Heads.

    def send_request(self, event: RequestHeaders) -> None:
        """`send` for those who know what they send."""
        stream_id = event.stream_id
        stream = self._streams.get(stream_id)
        if self._failed or stream is None or stream.state or self.downstream:  # not IDLE
            if self._too_late(stream_id):
                return
            raise LocalProtocolError("http2.stream_not_opened", detail=f"stream {stream_id}")
        if stream_id < self._last_sent_id:
            raise LocalProtocolError("http2.stream_ids_out_of_order", detail=f"stream {stream_id}")
        if self._peer_goaway:
            raise LocalProtocolError("http2.peer_is_going_away")
        flags = HEAD_SENT
        if event.protocol:
            if not self._peer_allows_connect:
                raise LocalProtocolError("http2.extended_connect_not_offered", 502)
            flags = HEAD_SENT | TUNNEL
        block = self._block_of_request(event)
        if event.method == b"HEAD":
            flags |= BODILESS
        self._last_sent_id = stream_id
        stream.flags = flags
        self._guard.streams += 1
        self._queue_block(stream, block, OPEN, event.end_stream)

    def send_response(self, event: ResponseHeaders) -> None:
        """`send` for those who know what they send."""
        stream = self._streams.get(event.stream_id)
        if self._failed or stream is None or stream.flags & HEAD_SENT or not self.downstream:
            if self._too_late(event.stream_id):
                return
            raise LocalProtocolError("http2.response_not_expected", detail=f"stream {event.stream_id}")
        status = event.status
        if status == 101:
            if not stream.flags & TUNNEL:
                raise LocalProtocolError("http2.upgrade_not_asked_for", detail=f"stream {event.stream_id}")
            status = 200
        headers = event.headers
        block: bytes | None = None
        if headers.more is None:  # as in _fields_block, one call less on the way of every response
            block = self._memo_out.get((status, *headers.first.items()))
        if block is None:
            block = self._fields_block(status, headers)
        stream.flags |= HEAD_SENT
        self._queue_block(stream, block, stream.state, event.end_stream)

    def _send_informational(self, event: InformationalHeaders) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None or stream.flags & HEAD_SENT or not self.downstream:
            raise LocalProtocolError("http2.response_not_expected", detail=f"stream {event.stream_id}")
        self._queue_block(stream, self._fields_block(event.status, event.headers), stream.state, False)

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """`send` for those who know what they send."""
        stream = self._streams.get(stream_id)
        if self._failed or stream is None or not stream.state & SENDING or not stream.flags & HEAD_SENT:
            if self._too_late(stream_id):
                return
            raise LocalProtocolError("http2.trailers_not_expected", detail=f"stream {stream_id}")
        if not headers.first:  # all fields were taken out on the way: an empty DATA frame ends the stream as well
            self._out.append(pack_frame_header(frames.DATA, frames.END_STREAM, stream_id))
            self._advance(stream, SEND_END_STREAM)
            return
        self._queue_block(stream, self._fields_block(0, headers), stream.state, True)

    def _queue_block(self, stream: Stream, block: bytes, state: int, end_stream: bool) -> None:
        """Queue a header block; the stream is in that state then, or has our end if this is it."""
        size = len(block)
        wire_size = size + FRAME_HEADER_SIZE
        stream.sent += wire_size
        stream.head_sent += wire_size
        if size > self._peer_max_frame_size:
            self._out.append(frames.header_frames(stream.id, end_stream, block, self._peer_max_frame_size))
        else:  # the flags are END_HEADERS, and END_STREAM at the end
            out = self._out
            if size < STARTS:
                out.append(HEADERS_END_STARTS[size] if end_stream else HEADERS_STARTS[size])
                out.append(stream.wire_id)
                out.append(block)
                self._out_parts += 2
            else:
                out.append(pack_frame_header(size << 8 | 1, 0x5 if end_stream else 0x4, stream.id) + block)
        if not end_stream:
            stream.state = state
        elif state == OPEN:
            stream.state = HALF_CLOSED_LOCAL
        else:
            self._closed(stream)

    # Header blocks.

    def _block_of_request(self, event: RequestHeaders) -> bytes:
        headers = event.headers
        first = headers.first
        key = event.likeness
        tail = b""
        if key is not None:
            request_id = first.get(b"x-request-id")
            if request_id is not None:
                tail = _unique_field(b"x-request-id", request_id)
            block = self._memo_out.get(key)
            if block is not None:
                return block + tail
            if request_id is not None:
                first = first.copy()
                del first[b"x-request-id"]
        elif headers.more is None:
            if not _UNIQUE_NAMES.isdisjoint(first):
                # What differs in every request goes last, as literals, so that the rest may still be known.
                first = first.copy()
                tail = _take_unique_fields(first)
            key = (event.method, event.scheme, event.authority, event.path, event.protocol, *first.items())
            block = self._memo_out.get(key)
            if block is not None:
                return block + tail
        pairs: Pairs
        scheme = event.scheme or b"http"
        if event.protocol:
            pairs = [
                (b":method", b"CONNECT"),
                (b":protocol", event.protocol),
                (b":scheme", scheme),
                (b":path", event.path),
            ]
        elif event.method == b"CONNECT":
            pairs = [(b":method", event.method)]
        else:
            pairs = [(b":method", event.method), (b":scheme", scheme), (b":path", event.path)]
        if event.authority:
            pairs.append((b":authority", event.authority))
        return self._encode(key, pairs, first, headers.more) + tail

    def _fields_block(self, status: int, headers: Headers) -> bytes:
        """The block of a response, or of trailers (status 0)."""
        key: object = None
        if headers.more is None:
            key = (status, *headers.first.items())
            block = self._memo_out.get(key)
            if block is not None:
                return block
        return self._encode(key, [(b":status", b"%d" % status)] if status else [], headers.first, headers.more)

    def _encode(self, key: object, pairs: Pairs, first: dict[bytes, bytes], more: Pairs | None) -> bytes:
        fields = list(first.items())
        if more is not None:
            fields.extend(more)
        if b"te" in first or not CONNECTION_SPECIFIC.isdisjoint(first):
            fields = [
                (name, value)
                for name, value in fields
                if name not in CONNECTION_SPECIFIC and (name != b"te" or value == b"trailers")
            ]
        wrong = field_fault(fields) or _check_pseudo(pairs)
        if wrong is not None:
            raise LocalProtocolError(wrong)
        encoder = self._encoder
        block = encoder.encode(pairs + fields)
        if encoder.changed:
            self._memo_out.clear()
        elif encoder.settled and key is not None and len(block) <= _MEMO_LONGEST:
            if len(self._memo_out) >= _MEMO_SIZE:
                self._memo_out.clear()
            self._memo_out[key] = block
        return block

    # Bodies and ends.

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """`send` for those who know what they send."""
        stream = self._streams.get(stream_id)
        if self._failed or stream is None or not stream.state & SENDING or not stream.flags & HEAD_SENT:
            if self._too_late(stream_id):
                return
            raise LocalProtocolError("http2.data_not_expected", detail=f"stream {stream_id}")
        size = len(data)
        if size > stream.send_window or size > self._send_window or not size:
            if size:
                raise LocalProtocolError("http2.beyond_send_window", detail=f"stream {stream_id}: {size} bytes")
            if not end_stream:
                return
        stream.send_window -= size
        self._send_window -= size
        stream.sent += size + FRAME_HEADER_SIZE
        self._guard.data_frames_sent += 1
        if size <= COPY_LIMIT:
            self._queue_small(stream, data, size, end_stream)
        else:
            self._queue_large(stream, data, size, end_stream)
        if end_stream:
            if stream.state == OPEN:
                stream.state = HALF_CLOSED_LOCAL
            else:
                self._closed(stream)

    def _queue_small(self, stream: Stream, data: bytes, size: int, end_stream: bool) -> None:
        """A frame that is joined with others."""
        out = self._out
        if size < STARTS:
            out.append(DATA_END_STARTS[size] if end_stream else DATA_STARTS[size])
            out.append(stream.wire_id)
            out.append(data)
            self._out_parts += 2
        else:
            out.append(pack_frame_header(size << 8, 1 if end_stream else 0, stream.id) + data)

    def _queue_large(self, stream: Stream, data: bytes, size: int, end_stream: bool) -> None:
        """Frames that are not worth joining with their headers; the last one is counted already."""
        out = self._out
        self._out_large = True
        limit = self._peer_max_frame_size
        start = 0
        while size - start > limit:
            out.append(pack_frame_header(limit << 8, 0, stream.id))
            out.append(data[start : start + limit])
            stream.sent += FRAME_HEADER_SIZE
            self._guard.data_frames_sent += 1
            start += limit
        out.append(pack_frame_header((size - start) << 8, 1 if end_stream else 0, stream.id))
        out.append(data[start:] if start else data)

    def _send_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return  # the peer was quicker: nothing is left to reset
        if stream.state == IDLE:  # opened but never used: the peer knows nothing of it
            del self._streams[stream.id]
            return
        code = event.error_code
        if not code and not (stream.state == HALF_CLOSED_LOCAL and self.downstream):
            # After a whole response NO_ERROR asks the peer to stop sending its request (RFC 9113, 8.1).
            code = RESET_CODES[event.reason]
        self._queue_reset(stream.id, code, max(stream.recv_window, 0))
        self._abandon(stream)

    def _send_goaway(self, event: GoAway) -> None:
        """A last word of the caller's own choice; new streams of the peer are ignored from now on."""
        self._draining = 2
        self._ignore_above = min(self._ignore_above, max(self._last_peer_id, 0))
        self._out.append(frames.goaway_frame(self._ignore_above, event.error_code, event.debug))

    def open_stream(self) -> int | None:
        """Upstream side: the id of a new stream, or None when the peer takes no more now."""
        stream_id = self._next_id
        streams = self._streams
        if (
            self._failed
            or self._peer_goaway
            or self._draining
            or len(streams) >= self._peer_max_streams
            or len(streams) >= self._most_streams
            or stream_id > frames.LARGEST_STREAM_ID
            or self.downstream
        ):
            return None
        self._next_id = stream_id + 2
        streams[stream_id] = Stream(stream_id, IDLE, self._peer_initial_window, self._local_initial_window, -1, 0)
        return stream_id


def _take_unique_fields(first: dict[bytes, bytes]) -> bytes:
    """Take the fields of `_UNIQUE` out, as literals."""
    out = b""
    names = _UNIQUE_NAMES.intersection(first)
    for name in sorted(names) if len(names) > 1 else names:
        out += _unique_field(name, first.pop(name))
    return out


def _unique_field(name: bytes, value: bytes) -> bytes:
    """A field of `_UNIQUE` as a literal."""
    size = len(value)
    # Letters, digits and hyphens, which most of these are of, are told apart in a third of the time.
    if not value.replace(b"-", b"").isalnum() and not value_is_clean(value):
        raise LocalProtocolError("http2.invalid_header_value")
    return _UNIQUE[name] + (_LENGTHS[size] if size < 0x7F else encode_integer(0x00, 0x7F, size)) + value


def _check_pseudo(pairs: Pairs) -> str | None:
    for name, value in pairs:
        if not value or b"\n" in value or b"\r" in value or b"\x00" in value or (name != b":status" and b" " in value):
            return "http2.invalid_pseudo_header"
    return None
