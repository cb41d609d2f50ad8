"""The choice of the HTTP/2 engine (`codec_engine`)."""

from __future__ import annotations

from typing import Final, Protocol

from mesh_codecs.codec import Codec
from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2.connection import Http2Codec
from mesh_codecs.http2.settings import Http2Settings

ENGINES: Final = ("mesh", "h2")
"""our own, and the `h2` library"""


class Http2Engine(Codec, Protocol):
    """What a connection asks of an engine beyond `Codec`."""

    quiet: bool
    """the last `receive_data` met nothing but whole heads and bodies: no need to look at output and timer"""
    pending: bool
    """complete frames were left for the next `receive_data`, which may be given no bytes"""
    refused: int
    """streams of the peer beyond our limit, since somebody last looked and set it to zero"""

    @property
    def head_started(self) -> bool:
        """The preface or a header block has begun and is incomplete."""

    @property
    def has_output(self) -> bool:
        """There is, or may be, something to write."""

    @property
    def held(self) -> tuple[int, int]:
        """Frames in the output; how many of them there are only because the peer made us."""

    @property
    def draining(self) -> bool:
        """GOAWAY was said, perhaps because of the peer's many faults."""

    def send_request(self, event: RequestHeaders) -> None:
        """`send` for those who know what they send; so are the next three."""

    def send_response(self, event: ResponseHeaders) -> None:
        """The head of a response."""

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A piece of a body."""

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Trailers; they end the stream."""

    def usage(self, stream_id: int) -> tuple[int, int, int, int]:
        """Bytes on the wire of a stream that is open, or ended since the last read began: received, header blocks among them,
        sent, header blocks among them; zeros where the engine does not know."""

    @property
    def settings_received(self) -> bool:
        """The peer's SETTINGS came: `max_streams` and whether extended CONNECT is offered are its word."""

    @property
    def max_streams(self) -> int:
        """Upstream side: how many streams the peer and our own settings allow at once."""

    def probe(self, now: float) -> None:
        """Ask the peer whether it is still there, by a PING that must be answered within `keepalive_timeout`."""


def new_codec(engine: str, *, downstream: bool, settings: Http2Settings) -> Http2Engine:
    """A codec of the named engine.

    Raises:
        ImportError: the engine's library is not installed.
    """
    if engine == "h2":
        from mesh_codecs.http2.h2_engine import H2Codec

        return H2Codec(downstream=downstream, settings=settings)
    assert engine == "mesh", engine
    return Http2Codec(downstream=downstream, settings=settings)
