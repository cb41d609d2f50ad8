"""Receiving header blocks: their frames, their decoding, and what they mean for the stream.

A block that was seen before, while the peer's dynamic table stood still, is not decoded again: its checked head is looked up
by its bytes (`_memo_in`).
"""

from typing import Final

from mesh_codecs.events import (
    Event,
    InformationalHeaders,
    RequestHeaders,
    ResponseHeaders,
    Trailers,
)
from mesh_codecs.headers import Pairs
from mesh_codecs.http2 import frames
from mesh_codecs.http2.control_receiver import ControlReceiver
from mesh_codecs.http2.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_ERROR,
    LARGEST_STREAM_ID,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    ConnectionFault,
    StreamFault,
)
from mesh_codecs.http2.heads import Head, Malformed, request_head, response_head, trailers_head
from mesh_codecs.http2.hpack_decoder import ENTRY_OVERHEAD, HeaderBomb, HeaderListTooLarge, HpackError
from mesh_codecs.http2.settings import Http2Settings
from mesh_codecs.http2.state import BODILESS, HALF_CLOSED_REMOTE, HEAD_RECEIVED, IDLE, OPEN, RECV_END_STREAM, TUNNEL, Stream

_MEMO_SIZE: Final = 32
"""decoded heads kept per connection"""
_MEMO_LONGEST: Final = 512
"""bytes; the heads of longer blocks are not kept"""

# What a header block turned out to be.
_REQUEST: Final = 0
_RESPONSE: Final = 1
_TRAILERS: Final = 2


class HeaderReceiver(ControlReceiver):
    """HEADERS and CONTINUATION."""

    def __init__(self, downstream: bool, settings: Http2Settings) -> None:
        super().__init__(downstream, settings)
        self._special = True
        """the next frame must be a certain one: SETTINGS at the start, CONTINUATION within a header block"""
        self._memo_in: list[dict[bytes, Head]] = [{}, {}, {}]
        """heads by block, for requests, responses and trailers; void when the peer's dynamic table changes"""
        self._request_heads, self._response_heads, self._trailer_heads = self._memo_in
        self._memo_alone: list[dict[bytes, tuple[Head, Pairs, int]]] = [{}, {}, {}]
        """heads by block, of blocks that add to the table without looking at it (nginx writes them all so), with the entries that
        they add and the size of those"""
        self._memo_generation = 0
        self._memo_changed = False
        """the block just decoded changed the table"""

        # A header block that is spread over frames.
        self._block_stream = 0
        """0: none in progress"""
        self._block_ends_stream = False
        self._block_parts: list[bytes] = []
        self._block_size = 0

    def _plain_headers(self, end_stream: bool, stream_id: int, block: bytes, events: list[Event]) -> None:
        """HEADERS that is its whole block and nothing else; a block known by its bytes is not decoded again. The id may have its
        reserved bit, which makes it that of no stream."""
        if self.downstream and stream_id > self._last_peer_id:
            head = self._request_heads.get(block)
            if head is not None and stream_id & 1:
                self._open(stream_id, end_stream, head, len(block), events, head)
                return
        else:
            stream = self._streams.get(stream_id)
            if stream is None or not stream.state or stream.state >= HALF_CLOSED_REMOTE:
                pass
            elif not stream.flags & HEAD_RECEIVED:
                head = self._response_heads.get(block)
                if head is not None:
                    self._respond(stream, end_stream, head, events)
                    return
            elif end_stream:
                head = self._trailer_heads.get(block)
                if head is not None:
                    self._end_by_trailers(stream, head, len(block), events)
                    return
        self._headers_frame(0x5 if end_stream else 0x4, stream_id & LARGEST_STREAM_ID, block, events)

    def _headers_frame(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not stream_id:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.headers_on_stream_0")
        dependency = -1
        if flags & 0x28:  # PADDED, PRIORITY
            if flags & frames.PADDED:
                payload = unpad(payload)
            if flags & frames.PRIORITY_FLAG:
                if len(payload) < 5:
                    raise ConnectionFault(FRAME_SIZE_ERROR, "http2.headers_too_short")
                dependency = int.from_bytes(payload[:4], "big") & LARGEST_STREAM_ID
                payload = payload[5:]
        if not payload and not flags & frames.END_STREAM:
            self._guard.empty_frame()
        else:
            self._guard.empty_run = 0
        if flags & frames.END_HEADERS:
            self._block(stream_id, flags & frames.END_STREAM != 0, payload, events)
        else:
            self._check_block_size(len(payload))
            self._block_stream = stream_id
            self._special = True
            self._block_ends_stream = flags & frames.END_STREAM != 0
            self._block_parts = [payload]
            self._block_size = len(payload)
        if dependency == stream_id:
            raise StreamFault(stream_id, PROTOCOL_ERROR, "http2.depends_on_itself")

    def _continuation_frame(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        if not self._block_stream:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.continuation_not_expected")
        if payload:
            self._guard.empty_run = 0
        elif not flags & frames.END_HEADERS:
            self._guard.empty_frame()
        self._block_size += len(payload)
        self._check_block_size(self._block_size)
        if len(self._block_parts) > self.settings.max_continuation_frames:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.too_many_continuation_frames")
        self._block_parts.append(payload)
        if flags & frames.END_HEADERS:
            block = b"".join(self._block_parts)
            self._block_stream = 0
            self._special = False
            self._block_parts = []
            self._block(stream_id, self._block_ends_stream, block, events)

    def _check_block_size(self, size: int) -> None:
        if size > self.settings.max_header_block_size:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.header_block_too_large")

    def _block(self, stream_id: int, end_stream: bool, block: bytes, events: list[Event]) -> None:
        """A complete header block."""
        stream = self._streams.get(stream_id)
        if stream is None:
            if self.downstream and stream_id > self._last_peer_id:
                self._request(stream_id, end_stream, block, events)
            else:
                self._late_block(stream_id, block)
        elif stream.state == HALF_CLOSED_REMOTE:
            self._skip_block(block)
            raise StreamFault(stream_id, STREAM_CLOSED, "http2.headers_after_end_of_stream")
        elif stream.flags & HEAD_RECEIVED:
            self._trailers(stream, end_stream, block, events)
        elif stream.state == IDLE:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.headers_on_idle_stream")
        else:
            self._response(stream, end_stream, block, events)

    def _late_block(self, stream_id: int, block: bytes) -> None:
        """A header block on a stream that is over, or that never was."""
        if not stream_id & 1 or (not self.downstream and stream_id > self._last_sent_id):
            raise ConnectionFault(PROTOCOL_ERROR, "http2.headers_on_idle_stream")
        if stream_id not in self._we_reset and self._forgotten_up_to < stream_id <= self._ignore_above:
            raise ConnectionFault(STREAM_CLOSED, "http2.headers_on_closed_stream")
        self._guard.control_frame()
        self._skip_block(block)

    def _skip_block(self, block: bytes) -> None:
        """Decode a block that nobody wants, to keep the table in step."""
        self._decode(block)
        self._decoder.suspect = True

    def _decode(self, block: bytes) -> Pairs | None:
        """The pairs of a block, None when they are over the limits. Keeps the table in step."""
        try:
            return self._decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"http2.hpack: {error}") from None
        except HeaderBomb:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "http2.header_list_flood") from None
        except HeaderListTooLarge:
            return None
        finally:
            if self._decoder.generation != self._memo_generation:
                self._table_changed()

    def _head(self, kind: int, stream_id: int, block: bytes) -> Head:
        """Decode and check a block, by look-up where possible."""
        memo = self._memo_in[kind]
        head = memo.get(block)
        if head is not None:
            return head
        decoder = self._decoder
        alone = self._memo_alone[kind]
        known = alone.get(block)
        if known is not None and decoder.table_size <= decoder.limit:
            decoder.repeat(known[1], known[2])
            self._table_changed()
            return known[0]
        self._memo_changed = False
        pairs = self._decode(block)
        if pairs is None:
            decoder.suspect = True
            self._note_opened(kind, stream_id)
            raise StreamFault(stream_id, ENHANCE_YOUR_CALM, "http2.header_list_too_large")
        fresh = pairs if decoder.suspect else decoder.fresh
        try:
            if kind == _REQUEST:
                head = request_head(pairs, fresh, self.settings.allow_connect)
            elif kind == _RESPONSE:
                head = response_head(pairs, fresh)
            else:
                head = trailers_head(pairs, fresh)
        except Malformed as fault:
            decoder.suspect = True
            self._note_opened(kind, stream_id)
            if not self.settings.stream_error_on_invalid_http_message:
                raise ConnectionFault(PROTOCOL_ERROR, fault.code) from None
            raise StreamFault(stream_id, PROTOCOL_ERROR, fault.code) from None
        if len(block) <= _MEMO_LONGEST:
            if not self._memo_changed:
                if len(memo) >= _MEMO_SIZE:
                    memo.clear()
                memo[block] = head
            elif decoder.alone:
                if len(alone) >= _MEMO_SIZE:
                    alone.clear()
                added = decoder.added
                alone[block] = head, added, sum([len(name) + len(value) + ENTRY_OVERHEAD for name, value in added])
        return head

    def _table_changed(self) -> None:
        self._memo_generation = self._decoder.generation
        self._memo_changed = True
        for memo in self._memo_in:
            if memo:
                memo.clear()

    def _note_opened(self, kind: int, stream_id: int) -> None:
        """A request with a faulty head has opened and used up its stream all the same."""
        if kind == _REQUEST:
            self._last_peer_id = stream_id
            self._guard.streams += 1

    def _request(self, stream_id: int, end_stream: bool, block: bytes, events: list[Event]) -> None:
        if not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR, "http2.even_stream_id")
        self._open(stream_id, end_stream, self._head(_REQUEST, stream_id, block), len(block), events)

    def _open(
        self, stream_id: int, end_stream: bool, head: Head, size: int, events: list[Event], known: Head | None = None
    ) -> None:
        """A new stream of the peer, whose id was checked, with its head, which was a block of `size` bytes; `known` if it came
        before."""
        self._last_peer_id = stream_id
        guard = self._guard
        guard.streams += 1
        guard.empty_run = 0
        if stream_id > self._ignore_above:
            return
        if len(self._streams) >= self._most_streams:
            self.refused += 1
            self._queue_reset(stream_id, frames.REFUSED_STREAM, self._local_initial_window)
            self._guard.answer_queued()
            if self._settings_acknowledged:  # until then the peer cannot know better
                self._guard.premature_end()
            self._glitch()
            return
        flags = TUNNEL | HEAD_RECEIVED if head.protocol else HEAD_RECEIVED
        size += FRAME_HEADER_SIZE
        if end_stream:
            if head.content_length > 0:
                raise StreamFault(stream_id, PROTOCOL_ERROR, "http2.content_length_mismatch")
            stream = Stream(stream_id, HALF_CLOSED_REMOTE, self._peer_initial_window, 0, 0, flags, size)
        else:
            window = self._local_initial_window
            stream = Stream(stream_id, OPEN, self._peer_initial_window, window, head.content_length, flags, size)
        self._streams[stream_id] = stream
        if known is not None and not events:
            opener = self.opener
            if opener is not None and opener.open_known(stream, known, end_stream):
                return
        events.append(
            RequestHeaders(
                stream_id,
                head.method,
                head.scheme,
                head.authority,
                head.path,
                head.headers(),
                end_stream,
                head.protocol,
                b"HTTP/2",
                known,
            )
        )

    def _response(self, stream: Stream, end_stream: bool, block: bytes, events: list[Event]) -> None:
        self._respond(stream, end_stream, self._head(_RESPONSE, stream.id, block), events)

    def _respond(self, stream: Stream, end_stream: bool, head: Head, events: list[Event]) -> None:
        """A response head on a stream that waits for one."""
        self._guard.empty_run = 0
        status = head.status
        if status < 200:
            if end_stream:
                raise StreamFault(stream.id, PROTOCOL_ERROR, "http2.informational_ends_stream")
            self._guard.control_frame()
            self._ordinary = False
            events.append(InformationalHeaders(stream.id, status, head.headers()))
            return
        stream.flags |= HEAD_RECEIVED
        if status == 200 and stream.flags & TUNNEL:
            status = 101
        if end_stream:
            if head.content_length > 0 and not stream.flags & BODILESS and status != 304:
                raise StreamFault(stream.id, PROTOCOL_ERROR, "http2.content_length_mismatch")
            self._advance(stream, RECV_END_STREAM)
        elif stream.flags & BODILESS or status == 204 or status == 304:
            stream.expected = 0  # an empty DATA frame may still end it
        elif not stream.flags & TUNNEL:
            stream.expected = head.content_length
        taker = stream.taker
        if taker is not None and not end_stream and not events and taker.take_head(head):
            return
        events.append(ResponseHeaders(stream.id, status, head.headers(), end_stream, b"HTTP/2"))

    def _trailers(self, stream: Stream, end_stream: bool, block: bytes, events: list[Event]) -> None:
        head = self._head(_TRAILERS, stream.id, block)
        if not end_stream:
            raise StreamFault(stream.id, PROTOCOL_ERROR, "http2.trailers_do_not_end_stream")
        self._end_by_trailers(stream, head, len(block), events)

    def _end_by_trailers(self, stream: Stream, head: Head, size: int, events: list[Event]) -> None:
        """Trailers, a block of `size` bytes, on a stream whose head came."""
        self._guard.empty_run = 0
        if stream.expected > 0:
            raise StreamFault(stream.id, PROTOCOL_ERROR, "http2.content_length_mismatch")
        size += FRAME_HEADER_SIZE
        stream.received += size
        stream.head_received += size
        taker = stream.taker
        taken = taker is not None and not events and not self.downstream and taker.take_trailers(head)
        if stream.state == OPEN:
            stream.state = HALF_CLOSED_REMOTE
        else:
            self._closed(stream)
        if not taken:
            events.append(Trailers(stream.id, head.headers()))


def unpad(payload: bytes) -> bytes:
    """The payload of a PADDED frame without its padding (RFC 9113, 6.1)."""
    size = len(payload)
    if not size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "http2.padding_missing")
    if payload[0] >= size:
        raise ConnectionFault(PROTOCOL_ERROR, "http2.padding_too_long")
    return payload[1 : size - payload[0]]
