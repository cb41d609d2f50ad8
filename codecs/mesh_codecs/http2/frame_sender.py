"""Sending for those who forward frame by frame: they hold the codec's streams in their hands, and know heads by objects.

Each method has the effect of its counterpart in `Sender`. False: nothing has happened, and the counterpart is to be used, which
also says what is wrong.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.headers import Pairs
from mesh_codecs.http2.frames import (
    DATA_END_STARTS,
    DATA_STARTS,
    FRAME_HEADER_SIZE,
    HEADERS_END_STARTS,
    HEADERS_STARTS,
    STARTS,
    pack_frame_header,
)
from mesh_codecs.http2.sender import COPY_LIMIT, Sender
from mesh_codecs.http2.state import HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, HEAD_SENT, OPEN, SENDING, Stream

ID_SIZE: Final = 36
"""bytes of an `x-request-id` as sidecars make it"""
_ID_START: Final = b"\x00\x0cx-request-id" + bytes((ID_SIZE,))
"""of its literal field without indexing, as in `Sender`"""
_ID_START_SIZE: Final = len(_ID_START)


class FrameSender(Sender):
    """Adds to `Sender` what needs no look at the event."""

    def stream(self, stream_id: int) -> Stream:
        """One that is open."""
        return self._streams[stream_id]

    def send_known_request(self, stream: Stream, likeness: object, request_id: bytes, end_stream: bool) -> bool:
        """The head of a request, on a stream just opened, that differs from one sent before in its id at most (empty: none). The
        id was checked, or is ours. Not for HEAD."""
        block = self._memo_out.get(likeness)
        if block is None:
            return False
        size = len(block)
        id_size = len(request_id)
        if id_size == ID_SIZE:
            size += ID_SIZE + _ID_START_SIZE
        if (id_size and id_size != ID_SIZE) or size >= STARTS:
            return False
        self._last_sent_id = stream.id
        self._guard.streams += 1
        stream.flags = HEAD_SENT
        stream.state = HALF_CLOSED_LOCAL if end_stream else OPEN
        stream.sent = stream.head_sent = size + FRAME_HEADER_SIZE
        out = self._out
        out.append(HEADERS_END_STARTS[size] if end_stream else HEADERS_STARTS[size])
        out.append(stream.wire_id)
        out.append(block)
        self._out_parts += 2
        if id_size:
            out.append(_ID_START)
            out.append(request_id)
            self._out_parts += 2
        return True

    def takes_head(self, stream: Stream) -> bool:
        """The head of a response may be sent, to a request that has ended."""
        return stream.state == HALF_CLOSED_REMOTE and not stream.flags & HEAD_SENT and not self._failed

    def takes_trailers(self, stream: Stream) -> bool:
        """Trailers may be sent."""
        return stream.state & SENDING != 0 and stream.flags & HEAD_SENT != 0 and not self._failed

    def known_block(self, key: object) -> bytes | None:
        """The block that was made for the same key, if it still holds."""
        return self._memo_out.get(key)

    def make_block(self, key: object, status: int, first: dict[bytes, bytes], more: Pairs | None) -> bytes:
        """The block of a response, or of trailers (status 0), and `key` for the next time. It must be sent.

        Raises:
            LocalProtocolError: the fields break a rule; nothing has happened.
        """
        return self._encode(key, [(b":status", b"%d" % status)] if status else [], first, more)

    def send_head_block(self, stream: Stream, block: bytes) -> None:
        """The head of a response of which more follows, on a stream that takes it."""
        stream.flags |= HEAD_SENT
        self._queue_block(stream, block, stream.state, False)

    def send_last_block(self, stream: Stream, block: bytes) -> None:
        """Trailers, on a stream that takes them."""
        self._queue_block(stream, block, stream.state, True)

    def send_piece(self, stream: Stream, data: bytes, end_stream: bool) -> bool:
        """A piece of a body, if the windows allow it now."""
        size = len(data)
        if (
            not size
            or size > stream.send_window
            or size > self._send_window
            or not stream.state & SENDING
            or not stream.flags & HEAD_SENT
            or self._failed
        ):
            return False
        stream.send_window -= size
        self._send_window -= size
        stream.sent += size + FRAME_HEADER_SIZE
        self._guard.data_frames_sent += 1
        if size < STARTS:  # as in `_queue_small`
            out = self._out
            out.append(DATA_END_STARTS[size] if end_stream else DATA_STARTS[size])
            out.append(stream.wire_id)
            out.append(data)
            self._out_parts += 2
        elif size <= COPY_LIMIT:
            self._out.append(pack_frame_header(size << 8, 1 if end_stream else 0, stream.id) + data)
        else:
            self._queue_large(stream, data, size, end_stream)
        if end_stream:
            if stream.state == OPEN:
                stream.state = HALF_CLOSED_LOCAL
            else:
                self._closed(stream)
        return True
