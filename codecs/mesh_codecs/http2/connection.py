"""The HTTP/2 codec (RFC 9113): one side of one connection, sans-IO.

Theory of operation. `Core` holds streams, windows and output; `Sender` turns events into frames; `ControlReceiver`,
`HeaderReceiver` and `Receiver` turn frames into events; this class adds what concerns the connection as a whole: its end, its
timers and its hand-over to another process. They are one object, because the data path touches all of them for every frame.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError, ResetReason
from mesh_codecs.events import ConnectionEnded, ConnectionFailed, Event, StreamReset
from mesh_codecs.http2 import frames
from mesh_codecs.http2.frames import ConnectionFault
from mesh_codecs.http2.receiver import Receiver
from mesh_codecs.http2.settings import Http2Settings
from mesh_codecs.http2.state import HALF_CLOSED_REMOTE

_KEEPALIVE: Final = b"mesh-alv"
_DRAIN: Final = b"mesh-drn"
_DEFAULT_SETTINGS: Final = Http2Settings()


class Http2Codec(Receiver):
    """See `mesh_codecs.codec.Codec`. The preface and our SETTINGS are in the output from the start."""

    def __init__(self, *, downstream: bool, settings: Http2Settings = _DEFAULT_SETTINGS) -> None:
        super().__init__(downstream, settings)
        self._ended = False
        """the peer closed its side"""
        self._ping_due = 0.0
        """when the next keep-alive PING goes out; 0.0: the clock has not been seen yet"""
        self._ping_deadline = 0.0
        """when the PING under way counts as lost; 0.0: none under way"""

    @property
    def closed(self) -> bool:
        """True when the connection must be closed as soon as the output is flushed."""
        if self._failed:
            return True
        if not self.downstream and self._ended:
            return True
        return not self._streams and (self._ended or self._draining == 2 or (self._peer_goaway and not self.downstream))

    @property
    def draining(self) -> bool:
        """We have said GOAWAY."""
        return self._draining != 0

    @property
    def open_streams(self) -> int:
        """Streams that are not over yet."""
        return len(self._streams)

    @property
    def max_streams(self) -> int:
        """Upstream side: how many streams the peer and our own settings allow at once."""
        return min(self._peer_max_streams, self.settings.max_concurrent_streams)

    @property
    def settings_received(self) -> bool:
        """The peer's SETTINGS came: `max_streams` and `peer_allows_connect` are its word."""
        return self._settings_received

    @property
    def peer_allows_connect(self) -> bool:
        """The peer offered extended CONNECT (RFC 8441)."""
        return self._peer_allows_connect

    def receive_eof(self) -> list[Event]:
        """The peer will send no more: streams that it had not finished are over."""
        events: list[Event] = []
        if self._failed or self._ended:
            return events
        cut = bool(self._buffer) or self._block_stream != 0
        for stream in list(self._streams.values()):
            if stream.state != HALF_CLOSED_REMOTE:
                self._abandon(stream)
                events.append(StreamReset(stream.id, ResetReason.CONNECTION_TERMINATION))
        self._ended = True
        if cut:
            self._failed = True
            events.append(ConnectionFailed(self._block_stream, RemoteProtocolError("http2.connection_cut_off")))
        else:
            events.append(ConnectionEnded())
        return events

    # Shutdown (RFC 9113, 6.8).

    def shutdown(self) -> None:
        """Begin a graceful end.

        Downstream side: GOAWAY that still allows every stream, then, a round trip later, the final one with the last stream
        that we took; streams opened after that are dropped and the peer may try them elsewhere. A second call skips the wait.
        """
        if self._failed or self._draining == 2:
            return
        if self._draining == 0 and self.downstream and not self._settings_expected:
            self._draining = 1
            self._out.append(frames.goaway_frame(frames.LARGEST_STREAM_ID, frames.NO_ERROR))
            self._out.append(frames.ping_frame(0, _DRAIN))
        else:
            self._final_goaway()

    def _final_goaway(self) -> None:
        self._draining = 2
        self._ignore_above = self._last_peer_id
        self._out.append(frames.goaway_frame(self._last_peer_id, frames.NO_ERROR))

    # Time.

    def next_timer(self) -> float | None:
        """When `handle_timer` should be called; 0.0 is a wish to learn the time at once."""
        if self._failed or self._ended:
            return None
        earliest = self._guard.next_timer()
        due = self._ping_deadline
        if due or self.settings.keepalive_interval is not None:
            due = due or self._ping_due
            if earliest is None or due < earliest:
                earliest = due
        if self._draining == 1 and (earliest is None or self._drain_at < earliest):
            earliest = self._drain_at
        return earliest

    def handle_timer(self, now: float) -> list[Event]:
        """Forget old flood counts, send or miss a keep-alive PING, end the first stage of a shutdown."""
        events: list[Event] = []
        if self._failed or self._ended:
            return events
        self._guard.tick(now)
        if self._draining == 1:
            if not self._drain_at:
                self._drain_at = now + self.settings.shutdown_grace
            elif now >= self._drain_at:
                self._final_goaway()
        interval = self.settings.keepalive_interval
        if self._ping_deadline:
            if now >= self._ping_deadline:
                self._fail(ConnectionFault(frames.NO_ERROR, "http2.keepalive_timeout"), 0, events)
        elif interval is not None:
            if not self._ping_due:
                self._ping_due = now + interval
            elif now >= self._ping_due:
                self._ping_due = now + interval
                self.probe(now)
        return events

    def probe(self, now: float) -> None:
        """Ask the peer whether it is still there, by a PING that must be answered within `keepalive_timeout`."""
        if not (self._ping_deadline or self._failed or self._ended):
            self._ping_deadline = now + self.settings.keepalive_timeout
            self._out.append(frames.ping_frame(0, _KEEPALIVE))

    def _ping_answered(self, payload: bytes) -> None:
        if payload == _KEEPALIVE:
            self._ping_deadline = 0.0
        elif payload == _DRAIN and self._draining == 1:
            self._final_goaway()

    # Hand-over to another process.

    @property
    def exportable(self) -> bool:
        """The connection is between requests: `export_state` works."""
        return not (
            self._streams
            or self._failed
            or self._ended
            or self._block_stream
            or self._draining
            or self._peer_goaway
            or self.pending
        )

    def export_state(self) -> bytes:
        """All that another process needs to go on with this connection; this codec must not be used afterwards.

        Raises:
            LocalProtocolError: a stream is open or the connection is about to end.
        """
        from mesh_codecs.http2.snapshot import export_state

        if not self.exportable:
            raise LocalProtocolError("http2.not_between_requests")
        return export_state(self)

    @classmethod
    def import_state(cls, state: bytes) -> Http2Codec:
        """The codec that `export_state` described. It keeps the settings that the peer was told.

        Raises:
            ValueError: this is no such description.
        """
        from mesh_codecs.http2.snapshot import import_state

        return import_state(state)

    def __repr__(self) -> str:
        side = "downstream" if self.downstream else "upstream"
        state = "FAILED" if self._failed else "ENDED" if self._ended else ("OPEN", "DRAINING", "LAST")[self._draining]
        return f"<Http2Codec {side} {state} streams={len(self._streams)} window={self._send_window}>"
