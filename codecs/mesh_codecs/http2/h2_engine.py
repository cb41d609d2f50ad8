"""The `h2` library behind our codec interface: a second opinion to switch to when our own codec is in doubt.

Slower by an order of magnitude, and poorer: a malformed message ends the connection, the limit on header fields is h2's
(bytes only), and the state cannot be handed over. Frames are cut here and fed one by one, because h2 forgets the events before
a fault; GOAWAY is kept from it in both directions, because h2 stops at once where the protocol lets streams finish.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import LocalProtocolError
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
from mesh_codecs.http2.frames import LARGEST_STREAM_ID
from mesh_codecs.http2.h2_receiver import DRAIN, KEEPALIVE, H2Receiver
from mesh_codecs.http2.heads import CONNECTION_SPECIFIC
from mesh_codecs.http2.sender import RESET_CODES
from mesh_codecs.http2.settings import Http2Settings

_DEFAULT_SETTINGS: Final = Http2Settings()


class H2Codec(H2Receiver):
    """See `mesh_codecs.codec.Codec`.

    Raises:
        ImportError: the library is not installed (`pip install mesh-proxy[h2]`).
    """

    def __init__(self, *, downstream: bool, settings: Http2Settings = _DEFAULT_SETTINGS) -> None:
        super().__init__(downstream, settings)

    @property
    def closed(self) -> bool:
        """True when the connection must be closed as soon as the output is flushed."""
        if self._failed or (self._ended and not self.downstream):
            return True
        return not self._streams and (self._ended or self._draining == 2 or (self._peer_goaway and not self.downstream))

    @property
    def has_output(self) -> bool:
        """There may be something to write: h2 does not say."""
        return True

    @property
    def held(self) -> tuple[int, int]:
        """Frames in the output, and control frames among them."""
        self._collect()
        return self._out_frames, self._guard.outbound_control

    @property
    def draining(self) -> bool:
        """We have said GOAWAY."""
        return self._draining != 0

    @property
    def open_streams(self) -> int:
        """Streams that are not over yet."""
        return len(self._streams)

    @property
    def settings_received(self) -> bool:
        """The peer's SETTINGS came."""
        return self._settings_received

    @property
    def max_streams(self) -> int:
        """Upstream side: how many streams the peer and our own settings allow at once."""
        return min(int(self._connection.remote_settings.max_concurrent_streams), self.settings.max_concurrent_streams)

    # Sending.

    def send(self, event: Event) -> None:
        """Queue an event for the peer; see `Http2Codec.send`."""
        if self._failed or event.stream_id in self._gone:
            return
        try:
            self._send(event)
        except self._error as error:
            raise LocalProtocolError("http2.h2", detail=str(error)) from None

    def send_request(self, event: RequestHeaders) -> None:
        """`send`."""
        self.send(event)

    def send_response(self, event: ResponseHeaders) -> None:
        """`send`."""
        self.send(event)

    def send_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        """`send`."""
        self.send(Data(stream_id, data, end_stream))

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """`send`."""
        self.send(Trailers(stream_id, headers))

    def _send(self, event: Event) -> None:
        connection = self._connection
        stream_id = event.stream_id
        unanswered = self.downstream and stream_id not in self._answered
        if isinstance(event, Data):
            if stream_id not in self._streams or unanswered:
                raise LocalProtocolError("http2.data_not_expected", detail=f"stream {stream_id}")
            if len(event.data) > self.send_window(stream_id):
                raise LocalProtocolError("http2.beyond_send_window", detail=f"stream {stream_id}")
            limit = connection.max_outbound_frame_size
            pieces = [event.data[start : start + limit] for start in range(0, len(event.data), limit)] or [b""]
            for piece in pieces[:-1]:
                connection.send_data(stream_id, piece)
            if pieces[-1] or event.end_stream:
                connection.send_data(stream_id, pieces[-1], end_stream=event.end_stream)
            self._guard.data_frames_sent += len(pieces)
        elif isinstance(event, RequestHeaders):
            self._send_request(event)
        elif isinstance(event, ResponseHeaders | InformationalHeaders):
            if stream_id not in self._streams or not unanswered:
                raise LocalProtocolError("http2.response_not_expected", detail=f"stream {stream_id}")
            status = 200 if event.status == 101 and self._streams[stream_id] else event.status
            end = isinstance(event, ResponseHeaders) and event.end_stream
            connection.send_headers(stream_id, [(b":status", b"%d" % status), *_fields(event.headers)], end_stream=end)
            if isinstance(event, ResponseHeaders):
                self._answered.add(stream_id)
        elif isinstance(event, Trailers):
            if unanswered:
                raise LocalProtocolError("http2.trailers_not_expected", detail=f"stream {stream_id}")
            fields = _fields(event.headers)
            if fields:
                connection.send_headers(stream_id, fields, end_stream=True)
            else:
                connection.end_stream(stream_id)
        elif isinstance(event, StreamReset):
            if stream_id in self._streams:
                connection.reset_stream(stream_id, event.error_code or RESET_CODES[event.reason])
                self._forget(stream_id)
            return
        elif isinstance(event, GoAway):
            self._final_goaway(event.error_code, event.debug)
            return
        else:
            raise LocalProtocolError("http2.event_cannot_be_sent", detail=type(event).__name__)
        self._forget_if_over(stream_id)

    def _send_request(self, event: RequestHeaders) -> None:
        if self.downstream or event.stream_id not in self._streams or self._peer_goaway:
            raise LocalProtocolError("http2.stream_not_opened", detail=f"stream {event.stream_id}")
        head: Pairs = [(b":method", b"CONNECT" if event.protocol else event.method)]
        if event.protocol:
            head.append((b":protocol", event.protocol))
        if event.method != b"CONNECT":
            head.append((b":scheme", event.scheme or b"http"))
            head.append((b":path", event.path))
        if event.authority:
            head.append((b":authority", event.authority))
        self._connection.send_headers(event.stream_id, [*head, *_fields(event.headers)], end_stream=event.end_stream)
        self._streams[event.stream_id] = bool(event.protocol)
        self._guard.streams += 1

    def data_to_send(self) -> list[bytes]:
        """Everything to write, in order; the codec forgets it."""
        self._collect()
        out = self._out
        self._out = []
        self._out_frames = 0
        self._guard.outbound_control = 0
        return out

    def open_stream(self) -> int | None:
        """Upstream side: the id of a new stream, or None when the peer takes no more now."""
        if self.downstream or self._failed or self._peer_goaway or self._draining or len(self._streams) >= self.max_streams:
            return None
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = False
        return stream_id

    # The end, and time.

    def shutdown(self) -> None:
        """Begin a graceful end; see `Http2Codec.shutdown`."""
        if self._failed or self._draining == 2:
            return
        if self._draining == 0 and self.downstream and self._preface_read:
            self._draining = 1
            self._collect()
            self._out.append(frames.goaway_frame(LARGEST_STREAM_ID, frames.NO_ERROR))
            self._connection.ping(DRAIN)
        else:
            self._final_goaway(frames.NO_ERROR, b"")

    def next_timer(self) -> float | None:
        """When `handle_timer` should be called; 0.0 is a wish to learn the time at once."""
        if self._failed or self._ended:
            return None
        wishes = [self._guard.next_timer()]
        if self._ping_deadline or self.settings.keepalive_interval is not None:
            wishes.append(self._ping_deadline or self._ping_due)
        if self._draining == 1:
            wishes.append(self._drain_at)
        return min((wish for wish in wishes if wish is not None), default=None)

    def handle_timer(self, now: float) -> list[Event]:
        """See `Http2Codec.handle_timer`."""
        events: list[Event] = []
        if self._failed or self._ended:
            return events
        self._guard.tick(now)
        if self._draining == 1:
            if not self._drain_at:
                self._drain_at = now + self.settings.shutdown_grace
            elif now >= self._drain_at:
                self._final_goaway(frames.NO_ERROR, b"")
        interval = self.settings.keepalive_interval
        if self._ping_deadline:
            if now >= self._ping_deadline:
                self._fail(frames.NO_ERROR, "http2.keepalive_timeout", events)
        elif interval is not None:
            if not self._ping_due:
                self._ping_due = now + interval
            elif now >= self._ping_due:
                self._ping_due = now + interval
                self.probe(now)
        return events

    def probe(self, now: float) -> None:
        """See `Http2Codec.probe`."""
        if not (self._ping_deadline or self._failed or self._ended):
            self._ping_deadline = now + self.settings.keepalive_timeout
            self._connection.ping(KEEPALIVE)

    def __repr__(self) -> str:
        return f"<H2Codec {'downstream' if self.downstream else 'upstream'} streams={len(self._streams)}>"


def _fields(headers: Headers) -> Pairs:
    return [
        (name, value) for name, value in headers if name not in CONNECTION_SPECIFIC and (name != b"te" or value == b"trailers")
    ]
