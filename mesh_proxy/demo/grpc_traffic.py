"""The gRPC caller of the demo: HTTP/2 connections with several unary calls in flight on each."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from mesh_codecs.events import ConnectionFailed, Data, Event, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.grpc import frame, status_of_value
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.demo.scenario import GRPC_RULES, NAME_HEADER, SIDECAR, Result, Rule

IN_FLIGHT: Final = 8
"""calls at a time on each connection"""
CALL_TIMEOUT_S: Final = 10.0


class Call:
    """One that waits for its end."""

    __slots__ = ("began", "name", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.began = time.perf_counter()
        self.name = SIDECAR


class Caller:
    """One connection."""

    def __init__(self, port: int, waiting: deque[Rule], results: dict[str, Result]) -> None:
        self._port = port
        self._waiting = waiting
        self._results = results
        self._codec = Http2Codec(downstream=False)
        self._calls: dict[int, Call] = {}

    async def run(self) -> None:
        """Send what waits until nothing does. Calls that get no answer fail."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            self._fail(type(error).__name__)
            return
        try:
            self._send(writer)
            while self._calls:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    data = await reader.read(65536)
                if not data:
                    self._fail("the connection ended")
                    break
                for event in self._codec.receive_data(data):
                    self._take(event)
                self._send(writer)
        except (OSError, TimeoutError) as error:
            self._fail(type(error).__name__)
        finally:
            writer.close()

    def _send(self, writer: asyncio.StreamWriter) -> None:
        codec = self._codec
        while self._waiting and len(self._calls) < IN_FLIGHT and (stream_id := codec.open_stream()) is not None:
            rule = self._waiting.popleft()
            self._results[rule.name].sent += 1
            self._calls[stream_id] = Call(rule)
            pairs = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
            pairs += [(name.encode(), value.encode()) for name, value in rule.headers]
            path = rule.path.encode()
            codec.send(RequestHeaders(stream_id, b"POST", b"http", b"shop.demo", path, Headers(pairs), False))
            codec.send(Data(stream_id, frame(b""), True))
        writer.writelines(codec.data_to_send())

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

    def _fail(self, why: str) -> None:
        for call in self._calls.values():
            self._results[call.rule.name].failures[f"no answer: {why}"] += 1
        self._calls.clear()


async def send_grpc(rules: Iterable[Rule], port: int, connections: int) -> dict[str, Result]:
    """Send the calls over so many connections; the results by rule name."""
    waiting = deque(rules)
    results = {rule.name: Result(rule) for rule in GRPC_RULES}
    await asyncio.gather(*(Caller(port, waiting, results).run() for _ in range(connections)))
    for rule in waiting:  # no connection was left for them
        results[rule.name].sent += 1
        results[rule.name].failures["not sent"] += 1
    return results
