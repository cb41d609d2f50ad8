"""The gRPC caller of the demo: HTTP/2 connections with several unary calls in flight on each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from mesh_codecs.events import ConnectionFailed, Data, Event, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.grpc import frame, status_of_value
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.demo.caller import Caller, send_over
from mesh_proxy.demo.identities import Door
from mesh_proxy.demo.scenario import GRPC_RULES, NAME_HEADER, SIDECAR, Result, Rule


class Call:
    """One that waits for its end."""

    __slots__ = ("began", "name", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.began = time.perf_counter()
        self.name = SIDECAR


class GrpcCaller(Caller):
    """One connection."""

    def __init__(self, door: Door, waiting: deque[Rule], results: dict[str, Result]) -> None:
        super().__init__(door, waiting, results)
        self._codec = Http2Codec(downstream=False)
        self._calls: dict[int, Call] = {}
        self._free: int | None = None

    def _in_flight(self) -> int:
        return len(self._calls)

    def _may_call(self) -> bool:
        self._free = self._codec.open_stream()
        return self._free is not None

    def _call(self, rule: Rule) -> Iterable[bytes]:
        stream_id = self._free
        assert stream_id is not None
        self._calls[stream_id] = Call(rule)
        pairs = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
        pairs += [(name.encode(), value.encode()) for name, value in rule.headers]
        self._codec.send(RequestHeaders(stream_id, b"POST", b"http", b"shop.demo", rule.path.encode(), Headers(pairs), False))
        self._codec.send(Data(stream_id, frame(b""), True))
        return ()

    def _owed(self) -> Iterable[bytes]:
        return self._codec.data_to_send()

    def _received(self, data: bytes) -> None:
        for event in self._codec.receive_data(data):
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionFailed):
            self._fail(event.error.code)
            return
        call = self._calls.get(event.stream_id)
        if isinstance(event, Data):
            self._codec.acknowledge(event.stream_id, event.flow_size)
        elif call is not None and isinstance(event, ResponseHeaders):
            call.name = event.headers.first.get(NAME_HEADER.encode(), SIDECAR.encode()).decode()
            if event.end_stream:
                self._ended(event.stream_id, call, event.headers)
        elif call is not None and isinstance(event, Trailers):
            self._ended(event.stream_id, call, event.headers)
        elif call is not None and isinstance(event, StreamReset):
            del self._calls[event.stream_id]
            self._results[call.rule.name].failures["reset"] += 1

    def _ended(self, stream_id: int, call: Call, last: Headers) -> None:
        del self._calls[stream_id]
        result = self._results[call.rule.name]
        result.latencies.append(time.perf_counter() - call.began)
        status = status_of_value(last.first.get(b"grpc-status"))
        if status != call.rule.status:
            result.failures[f"status {status} instead of {call.rule.status}"] += 1
        else:
            result.answered[call.name] += 1

    def _forget(self) -> Iterable[Rule]:
        rules = [call.rule for call in self._calls.values()]
        self._calls.clear()
        return rules


async def send_grpc(rules: Iterable[Rule], door: Door, connections: int, known: Iterable[Rule] = GRPC_RULES) -> dict[str, Result]:
    """Send the calls over so many connections; the results by name of the known rules."""
    return await send_over(lambda waiting, results: GrpcCaller(door, waiting, results), rules, known, connections)
