"""Where a body ends: reading and writing, the same on both sides of a connection (RFC 9112, sections 6 and 7).

Pieces of a body are passed on as they came. Only the line between two chunks is ever put together again.
"""

from __future__ import annotations

import re
from typing import Final, final

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.events import Data, Event, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http1.fields import CHUNKS, LENGTH, NO_BODY, RAW, apply_underscore_action
from mesh_codecs.http1.grammar import CODEC_ERROR, TRAILER_SECTION, HeadBuffer, check_count, parse_fields
from mesh_codecs.http1.serialise import render_fields
from mesh_codecs.http1.settings import MAX_CHUNK_EXTENSION_BYTES, MAX_CHUNK_SIZE_DIGITS, Http1Settings, UnderscoreAction

# Between chunks: the CR LF that ends the data of the last one, then size and extensions of the next. `m[1]` is the size.
_DIGITS: Final = rb"[0-9a-fA-F]{1,%d}" % MAX_CHUNK_SIZE_DIGITS
_EXTENSION: Final = rb"[ \t]{0,16};[\t\x20-\x7e\x80-\xff]{0,%d}" % MAX_CHUNK_EXTENSION_BYTES
_SIZE: Final = rb"(" + _DIGITS + rb")(?:" + _EXTENSION + rb")?\r\n"
_FIRST_CHUNK: Final = re.compile(_SIZE)
_NEXT_CHUNK: Final = re.compile(rb"\r\n" + _SIZE)
# The beginnings of those. Whatever is no beginning is refused at once, before a line end comes.
_SIZE_START: Final = rb"(?:" + _DIGITS + rb"(?:[ \t]{0,16}|" + _EXTENSION + rb"\r?|\r))?"
_FIRST_START: Final = re.compile(_SIZE_START)
_NEXT_START: Final = re.compile(rb"\r?|\r\n" + _SIZE_START)

# A trailer must not say again what framed or routed the message, or who sent it (RFC 9110, 6.5.1).
_FORBIDDEN_TRAILERS: Final = frozenset(
    (
        b"transfer-encoding",
        b"content-length",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"max-forwards",
        b"cache-control",
        b"range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-client-cert",
        b"forwarded",
        b"http2-settings",
    )
)


@final
class BodyReader:
    """Cuts one body after the other out of the bytes of a connection."""

    __slots__ = ("_left", "_mode", "_partial", "_pattern", "_settings", "_start", "_trailers", "_underscores")

    def __init__(self, settings: Http1Settings, underscores: UnderscoreAction) -> None:
        self._settings = settings
        self._underscores = underscores
        self._mode = NO_BODY
        self._left = 0
        """LENGTH: bytes to come; CHUNKS: bytes to come of this chunk"""
        self._pattern = _FIRST_CHUNK
        self._start = _FIRST_START
        self._partial = b""
        self._trailers: HeadBuffer | None = None

    @property
    def mode(self) -> int:
        """NO_BODY when nothing is being read."""
        return self._mode

    def begin(self, mode: int, length: int) -> None:
        """Expect a body; `length` counts for LENGTH only and is positive then."""
        self._mode = mode
        self._left = length
        if mode == CHUNKS:
            self._pattern = _FIRST_CHUNK
            self._start = _FIRST_START

    def stop(self) -> None:
        """Expect nothing any more."""
        self._mode = NO_BODY

    def feed(self, stream_id: int, data: bytes, pos: int, events: list[Event]) -> int:
        """Take what belongs to the body from `data[pos:]` and return how many bytes at the end of `data` do not.

        At the end of the body the last event says `end_stream` and the mode is NO_BODY.

        Raises:
            RemoteProtocolError: the coding is broken.
        """
        mode = self._mode
        if mode == CHUNKS:
            return self._feed_chunks(stream_id, data, pos, events)
        size = len(data) - pos
        if mode == RAW:
            if size:
                events.append(Data(stream_id, data[pos:] if pos else data, False, size))
            return 0
        left = self._left
        if size < left:
            if size:
                self._left = left - size
                events.append(Data(stream_id, data[pos:] if pos else data, False, size))
            return 0
        self._mode = NO_BODY
        events.append(Data(stream_id, data[pos : pos + left] if pos or size != left else data, True, left))
        return size - left

    def _feed_chunks(self, stream_id: int, data: bytes, pos: int, events: list[Event]) -> int:
        if self._trailers is not None:
            return self._feed_trailers(stream_id, data[pos:], events)
        if self._partial:
            data = self._partial + data[pos:]
            self._partial = b""
            pos = 0
        total = len(data)
        left = self._left
        while True:
            if left:
                size = total - pos
                if size <= left:
                    if size:
                        events.append(Data(stream_id, data[pos:] if pos else data, False, size))
                    self._left = left - size
                    return 0
                events.append(Data(stream_id, data[pos : pos + left], False, left))
                pos += left
                left = 0
            match = self._pattern.match(data, pos)
            if match is None:
                self._left = 0
                if self._start.fullmatch(data, pos) is None:
                    raise RemoteProtocolError(CODEC_ERROR, 400, "malformed chunk")
                self._partial = data[pos:]
                return 0
            pos = match.end()
            left = int(match[1], 16)
            if not left:
                self._left = 0
                self._trailers = HeadBuffer(TRAILER_SECTION, self._settings.max_head_bytes, self._settings.max_header_count)
                # The section is empty if CR LF follows: with the CR LF of the last chunk's line that is an empty line, too.
                return self._feed_trailers(stream_id, data[pos - 2 :], events)
            self._pattern = _NEXT_CHUNK
            self._start = _NEXT_START

    def _feed_trailers(self, stream_id: int, data: bytes, events: list[Event]) -> int:
        assert self._trailers is not None
        section = self._trailers.add(data)
        if section is None:
            return 0
        end = section.find(b"\r\n\r\n")
        headers = self._parse_trailers(section[2:end]) if end else None
        self._trailers = None
        self._mode = NO_BODY
        last = events[-1] if events else None
        if headers is not None:
            events.append(Trailers(stream_id, headers))
        elif isinstance(last, Data):
            last.end_stream = True
        else:
            events.append(Data(stream_id, b"", True))
        return len(section) - end - 4

    def _parse_trailers(self, block: bytes) -> Headers | None:
        """Also checked when they are dropped: what follows them depends on where they end."""
        lines = block.split(b"\r\n")
        check_count(lines, self._settings.max_header_count)
        pairs = apply_underscore_action(parse_fields(lines), self._underscores)
        if not self._settings.enable_trailers:
            return None
        return Headers([pair for pair in pairs if pair[0] not in _FORBIDDEN_TRAILERS])


@final
class BodyWriter:
    """Writes one body after the other, and refuses a body that contradicts its head."""

    __slots__ = ("_enable_trailers", "_left", "_mode")

    def __init__(self, enable_trailers: bool) -> None:
        self._enable_trailers = enable_trailers
        self._mode = NO_BODY
        self._left = 0

    @property
    def mode(self) -> int:
        """How the body that is being written ends."""
        return self._mode

    def begin(self, mode: int, length: int) -> None:
        """The head is out; `length` counts for LENGTH only."""
        self._mode = mode
        self._left = length

    def data(self, out: list[bytes], data: bytes, end_stream: bool) -> None:
        """Write a piece.

        Raises:
            LocalProtocolError: more or less than the head promised.
        """
        size = len(data)
        mode = self._mode
        if mode == CHUNKS:
            if end_stream:
                out.append(b"%x\r\n%b\r\n0\r\n\r\n" % (size, data) if size else b"0\r\n\r\n")
            elif size > _JOIN_BYTES:
                out += (b"%x\r\n" % size, data, b"\r\n")
            elif size:
                out.append(b"%x\r\n%b\r\n" % (size, data))
            return
        if mode == LENGTH:
            left = self._left - size
            if left < 0 or (end_stream and left):
                raise LocalProtocolError("http1.body_length", 500, "the body is not as long as content-length says")
            self._left = left
        elif mode == NO_BODY and size:
            raise LocalProtocolError("http1.body_disallowed", 500, "this message has no body")
        if size:
            out.append(data)

    def trailers(self, out: list[bytes], headers: Headers) -> None:
        """End the body with trailers, or without them where they cannot be said.

        Raises:
            LocalProtocolError: the body is shorter than the head promised, or a field cannot be written.
        """
        if self._mode != CHUNKS or not self._enable_trailers or not headers.first:
            self.data(out, b"", True)
            return
        out.append(b"0\r\n" + render_fields(headers) + b"\r\n\r\n")


# Up to here a chunk is copied into one piece with its frame: cheaper than three entries of an I/O vector.
_JOIN_BYTES: Final = 4096
