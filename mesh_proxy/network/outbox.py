"""What waits for flow-control credit: the rest of one HTTP/2 response whose caller takes no more now (RFC 9113, 5.2)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mesh_codecs.events import Data, Trailers
from mesh_proxy.network.transport import WATERMARK_HIGH

if TYPE_CHECKING:
    from mesh_codecs.http2 import Http2Engine
    from mesh_proxy.stream.http_stream import HttpStream


class Outbox:
    """Pieces of a response in order. Above the high mark the upstream is no longer read, until the low mark is reached."""

    __slots__ = ("_blocking", "_high", "_offset", "_pieces", "size", "stream")

    def __init__(self, stream: HttpStream, buffer_limit: int) -> None:
        self.stream = stream
        self.size = 0
        """bytes of body that wait"""
        self._pieces: deque[Data | Trailers] = deque()
        self._offset = 0
        """how much of the first piece is sent already"""
        self._high = min(buffer_limit, WATERMARK_HIGH) if buffer_limit > 0 else WATERMARK_HIGH
        self._blocking = False

    def add(self, event: Data | Trailers) -> int:
        """Let a piece wait; the number of bytes that it adds."""
        self._pieces.append(event)
        if isinstance(event, Trailers):
            return 0
        size = len(event.data)
        self.size += size
        if self.size > self._high and not self._blocking:
            self._blocking = True
            self.stream.on_downstream_writable(False)
        return size

    def pump(self, codec: Http2Engine, most: int) -> int:
        """Send what the window takes, at most so many bytes; the number of bytes that went. Nothing waits any more when
        `empty`."""
        stream_id = self.stream.stream_id
        pieces = self._pieces
        window = min(codec.send_window(stream_id), most)
        sent = 0
        while pieces:
            piece = pieces[0]
            if isinstance(piece, Trailers):
                codec.send_trailers(stream_id, piece.headers)
            else:
                data = piece.data
                left = len(data) - self._offset
                room = window - sent
                if left > room:
                    if room > 0:
                        codec.send_data(stream_id, data[self._offset : self._offset + room], False)
                        self._offset += room
                        sent += room
                    break
                codec.send_data(stream_id, data[self._offset :] if self._offset else data, piece.end_stream)
                self._offset = 0
                sent += left
            pieces.popleft()
        self.size -= sent
        return sent

    def relieve(self) -> None:
        """Let the upstream be read again when little is left."""
        if self._blocking and self.size <= self._high // 4:
            self._blocking = False
            self.stream.on_downstream_writable(True)

    @property
    def empty(self) -> bool:
        """All went out."""
        return not self._pieces
