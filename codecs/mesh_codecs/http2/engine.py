"""What the connections ask of an HTTP/2 engine. A base class and not a `Protocol`: compiled code calls it directly."""

from __future__ import annotations

from mesh_codecs.events import Event, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers


class Http2Engine:
    """Abstract: a `Codec` and what a connection asks beyond that."""

    quiet: bool
    """the last `receive_data` met nothing but whole heads and bodies: no need to look at output and timer"""
    pending: bool
    """complete frames were left for the next `receive_data`, which may be given no bytes"""
    refused: int
    """streams of the peer beyond our limit, since somebody last looked and set it to zero"""

    @property
    def closed(self) -> bool:
        """True when the connection must be closed as soon as the output is flushed."""
        raise NotImplementedError

    def receive_data(self, data: bytes) -> list[Event]:
        """Events found in the bytes so far."""
        raise NotImplementedError

    def receive_eof(self) -> list[Event]:
        """The peer will send no more."""
        raise NotImplementedError

    def send(self, event: Event) -> None:
        """Queue an event for the peer."""
        raise NotImplementedError

    def data_to_send(self) -> list[bytes]:
        """Bytes to write, in order; the codec forgets them."""
        raise NotImplementedError

    def open_stream(self) -> int | None:
        """Upstream side: the id for a new request, or None when the connection takes no more now."""
        raise NotImplementedError

    def acknowledge(self, stream_id: int, size: int) -> None:
        """`size` bytes of body were delivered."""
        raise NotImplementedError

    def send_window(self, stream_id: int) -> int:
        """How many body bytes may be sent now."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """Begin a graceful end: GOAWAY."""
        raise NotImplementedError

    def next_timer(self) -> float | None:
        """Monotonic time at which `handle_timer` wants to be called."""
        raise NotImplementedError

    def handle_timer(self, now: float) -> list[Event]:
        """Let the codec act on time."""
        raise NotImplementedError

    @property
    def head_started(self) -> bool:
        """The preface or a header block has begun and is incomplete."""
        raise NotImplementedError

    @property
    def has_output(self) -> bool:
        """There is, or may be, something to write."""
        raise NotImplementedError

    @property
    def held(self) -> tuple[int, int]:
        """Frames in the output; how many of them there are only because the peer made us."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """GOAWAY was said, perhaps because of the peer's many faults."""
        raise NotImplementedError

    def send_request(self, event: RequestHeaders) -> None:
        """`send` for those who know what they send; so are the next three."""
        raise NotImplementedError

    def send_response(self, event: ResponseHeaders) -> None:
        """The head of a response."""
        raise NotImplementedError

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """A piece of a body."""
        raise NotImplementedError

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """Trailers; they end the stream."""
        raise NotImplementedError

    def usage(self, stream_id: int) -> tuple[int, int, int, int]:
        """Bytes on the wire of a stream that is open, or ended since the last read began: received, header blocks among them,
        sent, header blocks among them; zeros where the engine does not know."""
        raise NotImplementedError

    @property
    def settings_received(self) -> bool:
        """The peer's SETTINGS came: `max_streams` and whether extended CONNECT is offered are its word."""
        raise NotImplementedError

    @property
    def max_streams(self) -> int:
        """Upstream side: how many streams the peer and our own settings allow at once."""
        raise NotImplementedError

    def probe(self, now: float) -> None:
        """Ask the peer whether it is still there, by a PING that must be answered within `keepalive_timeout`."""
        raise NotImplementedError
