"""A pair of codecs driven by random steps, against a model of what must have arrived."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    Event,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings


class Pair(RuleBasedStateMachine):
    """Streams are opened, fed, answered, reset; either side may be handed over or shut down in between."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        limits = Http2Settings(initial_stream_window_size=5_000, initial_connection_window_size=65_535, max_concurrent_streams=8)
        self.client = Http2Codec(downstream=False, settings=limits)
        self.server = Http2Codec(downstream=True, settings=limits)
        self.sent: dict[int, bytes] = {}
        self.arrived: dict[int, bytes] = {}
        self.unread: list[Data] = []
        self.request_done: set[int] = set()
        self.answered: dict[int, bool] = {}
        self.over: set[int] = set()
        self.counter = 0
        self.flush()

    def flush(self) -> None:
        while True:
            forth, back = b"".join(self.client.data_to_send()), b"".join(self.server.data_to_send())
            if not forth and not back:
                return
            for event in self.server.receive_data(forth):
                self.at_server(event)
            for event in self.client.receive_data(back):
                assert not isinstance(event, ConnectionFailed), event
                if isinstance(event, Data):
                    self.client.acknowledge(event.stream_id, event.flow_size)

    def at_server(self, event: Event) -> None:
        assert not isinstance(event, ConnectionFailed), event
        if isinstance(event, RequestHeaders):
            assert event.path == b"/%d" % event.stream_id
            self.arrived[event.stream_id] = b""
        elif isinstance(event, Data):
            self.arrived[event.stream_id] += event.data
            self.unread.append(event)
            if event.end_stream:
                self.request_done.add(event.stream_id)
        elif isinstance(event, Trailers):
            self.request_done.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.over.add(event.stream_id)

    @rule(target=requests, label=st.sampled_from([b"a", b"b", b"c"]), unique=st.booleans())
    def open(self, label: bytes, unique: bool) -> int:
        stream_id = self.client.open_stream()
        if stream_id is None:
            return 0
        headers = Headers([(b"x-label", label)])
        if unique:
            self.counter += 1
            headers.add(b"x-request-id", b"%d" % self.counter)
        self.client.send(RequestHeaders(stream_id, b"POST", b"http", b"svc", b"/%d" % stream_id, headers, False))
        self.sent[stream_id] = b""
        self.flush()
        return stream_id

    @rule(stream_id=requests, size=st.integers(1, 9_000))
    def feed(self, stream_id: int, size: int) -> None:
        size = min(size, self.client.send_window(stream_id))
        if size and stream_id not in self.over:
            self.counter += 1
            body = bytes([self.counter % 256]) * size
            self.client.send(Data(stream_id, body, False))
            self.sent[stream_id] += body
            self.flush()

    @rule(stream_id=consumes(requests), trailers=st.booleans())
    def finish(self, stream_id: int, trailers: bool) -> None:
        if not stream_id or stream_id in self.over:
            return
        self.client.send(Trailers(stream_id, Headers([(b"x", b"y")])) if trailers else Data(stream_id, b"", True))
        self.flush()
        assert self.arrived[stream_id] == self.sent[stream_id]
        assert stream_id in self.request_done

    @rule()
    def deliver(self) -> None:
        for event in self.unread:
            self.server.acknowledge(event.stream_id, event.flow_size)
        self.unread.clear()
        self.flush()

    @rule(stream_id=consumes(requests))
    def cancel(self, stream_id: int) -> None:
        if stream_id and stream_id not in self.over:
            self.client.send(StreamReset(stream_id, ResetReason.LOCAL_RESET))
            self.flush()
            assert stream_id in self.over

    @rule(status=st.sampled_from([200, 404, 503]), body=st.binary(max_size=300))
    def answer(self, status: int, body: bytes) -> None:
        for stream_id in sorted(self.request_done - self.over):
            self.server.send(ResponseHeaders(stream_id, status, Headers([(b"server", b"x")]), not body))
            if body:
                self.server.send(Data(stream_id, body, True))
            self.over.add(stream_id)
        self.flush()

    @rule()
    def hand_over(self) -> None:
        if self.client.exportable:
            self.client = Http2Codec.import_state(self.client.export_state())
        if self.server.exportable:
            self.unread.clear()
            self.server = Http2Codec.import_state(self.server.export_state())
        self.flush()

    @invariant()
    def windows_agree(self) -> None:
        assert self.client._send_window == self.server._recv_window
        for stream_id, stream in self.server._streams.items():
            if stream_id not in self.request_done:
                assert self.client._streams[stream_id].send_window == stream.recv_window

    @invariant()
    def both_know_the_same_streams(self) -> None:
        assert set(self.client._streams) == set(self.server._streams) == set(self.sent) - self.over

    @invariant()
    def tables_agree(self) -> None:
        assert self.client._encoder.export_table() == self.server._decoder.export_table()
        assert self.server._encoder.export_table() == self.client._decoder.export_table()


Pair.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestPair = Pair.TestCase
