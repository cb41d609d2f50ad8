"""The callers of mixed load, as protocols on the loop: cheap enough that the proxy under test does most of the work.

Every answer is compared with what was asked; every connection is counted. Another takes the place of one that ends.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, cast

from dubbo_support import wire

from mesh_codecs.events import (
    ConnectionFailed,
    Data,
    Event,
    GoAway,
    RequestHeaders,
    ResponseHeaders,
    StreamReset,
    Trailers,
)
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec, Http2Settings

from .backends import checksum

GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
STREAM_LIFE_S = (1.0, 4.0)
"""of a stream that spans upgrades; at random between these, so that they do not all end at once"""
WORD_INTERVAL_S = 0.1
"""between two messages on such a stream"""
_words = (b"%08x" % number for number in itertools.count(1))


@dataclass(slots=True)
class Kind:
    """What one kind of load has seen."""

    done: int = 0
    connections: int = 0
    wanted_connections: int = 0
    in_flight: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def reconnects(self) -> int:
        return max(self.connections - self.wanted_connections, 0)


class Load(Protocol):
    """What callers ask of the whole."""

    stopping: bool

    def later(self, call: Callable[[], None]) -> None:
        """At the next tick."""

    def counts(self, change: int) -> None:
        """So many requests more, or fewer, are in flight."""

    def gone(self, caller: Caller) -> None:
        """Its connection has ended."""


class Caller(asyncio.Protocol):
    """One connection."""

    listener = "http"

    def __init__(self, load: Load, kind: Kind) -> None:
        self.load = load
        self.kind = kind
        self.transport: asyncio.Transport
        self.waiting: dict[int, tuple[float, bytes]] = {}
        """requests in flight, the oldest first: when they were sent, and what the answer must hold"""
        self.over = False
        """we have closed it"""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.kind.connections += 1
        self.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            if not self.over:
                self.kind.errors[f"connection ended: {exc or 'closed'}"[:80]] += len(self.waiting)
            self.sent(-len(self.waiting))
            self.waiting.clear()
        self.over = True
        self.load.gone(self)

    def begin(self) -> None:
        """Send the first requests."""
        raise NotImplementedError

    def sent(self, change: int) -> None:
        self.kind.in_flight += change
        self.load.counts(change)

    def ask(self, number: int, expected: bytes) -> None:
        """A request goes out."""
        self.waiting[number] = (monotonic(), expected)
        self.sent(1)

    def answered(self, number: int) -> bytes:
        """Its answer has come: what it must hold."""
        self.sent(-1)
        self.kind.done += 1
        return self.waiting.pop(number)[1]

    def fail(self, why: str) -> None:
        """Something is wrong: one failure, and a new connection."""
        self.kind.errors[why[:80]] += 1
        self.close()

    def close(self) -> None:
        self.over = True
        if self.waiting:
            self.transport.abort()
        else:
            self.transport.close()

    def look(self, now: float, limit_s: float) -> None:
        """Once a second: an answer that takes too long never comes; who is to stop closes when nothing is in flight."""
        if self.waiting and now - next(iter(self.waiting.values()))[0] > limit_s:
            self.fail("timeout")
        elif self.load.stopping and not self.waiting:
            self.close()


class Http1(Caller):
    """Keep-alive: one request after the other. With a delay they are slow, and the next follows at once."""

    delay = 0
    once = False

    def begin(self) -> None:
        self._buffer = b""
        self.next()

    def next(self) -> None:
        if self.over:
            return
        if self.load.stopping:
            self.close()
            return
        word = next(_words)
        self.ask(0, word)
        self.transport.write(b"GET /%d/%s HTTP/1.1\r\nhost: shop\r\n\r\n" % (self.delay, word))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data
        head, separator, body = buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < 8:
            return
        if not self.waiting:
            self.fail("bytes that nobody asked for")
            return
        self._buffer = b""
        expected = self.answered(0)
        if not head.startswith(b"HTTP/1.1 200") or body != expected:
            self.fail(f"wrong answer: {head[:40]!r} {body[:20]!r}")
        elif self.once or b"connection: close" in head:
            self.close()
        elif self.delay:
            self.next()
        else:
            self.load.later(self.next)


class Http1Slow(Http1):
    delay = 600


class Http1Fresh(Http1):
    """A connection for each request."""

    once = True


class Http2(Caller):
    """So many requests in flight all the time, a third of them slow."""

    width = 8

    def begin(self) -> None:
        self._codec = Http2Codec(downstream=False, settings=Http2Settings())
        self._bodies: dict[int, bytes] = {}
        self._going = False
        self.fill()

    def fill(self) -> None:
        if self.over:
            return
        while len(self.waiting) < self.width and not self.load.stopping and not self._going:
            stream = self._codec.open_stream()
            assert stream is not None
            self.request(stream, next(_words))
        self.flush()
        if not self.waiting and (self._going or self.load.stopping):
            self.close()

    def request(self, stream: int, word: bytes) -> None:
        path = b"/%d/%s" % (stream % 3 * 20, word)
        self._codec.send(RequestHeaders(stream, b"GET", b"http", b"shop", path, Headers([]), True, b""))
        self.ask(stream, word)

    def flush(self) -> None:
        pieces = self._codec.data_to_send()
        if pieces and not self.over:
            self.transport.write(b"".join(pieces))

    def data_received(self, data: bytes) -> None:
        done = False
        for event in self._codec.receive_data(data):
            done = self.event(event) or done
        self.flush()
        if done and not self.over:
            self.load.later(self.fill)

    def event(self, event: Event) -> bool:
        """True when a response is complete."""
        stream = event.stream_id
        if isinstance(event, Data):
            self._codec.acknowledge(stream, event.flow_size)
            self._bodies[stream] = self._bodies.get(stream, b"") + event.data
        elif isinstance(event, ResponseHeaders):
            if event.status != 200:
                self.fail(f"status {event.status}")
                return False
        elif isinstance(event, StreamReset):
            if stream in self.waiting:
                self.fail(f"reset {event.reason}")
            return False
        elif isinstance(event, GoAway):
            self._going = True
            return not self.waiting
        elif isinstance(event, ConnectionFailed):
            self.fail(f"connection failed: {event.error}")
            return False
        if not getattr(event, "end_stream", isinstance(event, Trailers)):
            return False
        return self.complete(stream, event.headers if isinstance(event, Trailers) else None)

    def complete(self, stream: int, trailers: Headers | None) -> bool:
        if self._bodies.pop(stream, b"") != self.answered(stream):
            self.fail("wrong body")
        return True


class GrpcUnary(Http2):
    """Calls with one message each way."""

    listener = "grpc"
    width = 6

    def request(self, stream: int, word: bytes) -> None:
        self.open(stream, b"/mesh.Test/Echo")
        message = b"\0\0\0\0\x08" + word
        self._codec.send(Data(stream, message, True))
        self.ask(stream, message)

    def open(self, stream: int, path: bytes) -> None:
        self._codec.send(RequestHeaders(stream, b"POST", b"http", b"shop", path, Headers(list(GRPC)), False, b""))

    def complete(self, stream: int, trailers: Headers | None) -> bool:
        if trailers is None or trailers.get(b"grpc-status") != b"0":
            self.fail("no grpc-status 0")
            return False
        return super().complete(stream, trailers)


class GrpcStream(GrpcUnary):
    """A stream in both directions that lives for some seconds, so that it spans an upgrade; then the next one."""

    width = 1

    def request(self, stream: int, word: bytes) -> None:
        self._stream = stream
        self._said = b""
        self._until = monotonic() + random.uniform(*STREAM_LIFE_S)
        self._going = True  # the only one
        self.open(stream, b"/mesh.Test/Chat")
        self.ask(stream, b"")
        self.speak()

    def speak(self) -> None:
        if self.over or self._stream not in self.waiting:
            return
        ends = self.load.stopping or monotonic() > self._until
        word = b"" if ends else next(_words)
        self._said += word
        self.waiting[self._stream] = (monotonic(), self._said)
        self._codec.send(Data(self._stream, word, ends))
        self.flush()
        if not ends:
            asyncio.get_running_loop().call_later(WORD_INTERVAL_S, self.speak)


class Dubbo(Caller):
    """A consumer's one connection: quick calls all the time, beside slow ones; after READONLY no more."""

    listener = "dubbo"
    quick = 8
    slow = 20
    slow_ms = 1000

    def begin(self) -> None:
        self._buffer = b""
        self._numbers = itertools.count(1)
        self._due = self.quick
        self._readonly = False
        for _ in range(self.slow):
            self.call(slow=True)
        self.fill()

    def call(self, *, slow: bool) -> None:
        number = next(self._numbers) * 2 + slow
        delay = self.slow_ms if slow else 0
        frame = wire.call(method=f"after{delay}", request_id=number, arguments=(next(_words).decode(),))
        self.ask(number, checksum(frame).encode())
        self.transport.write(frame)

    def fill(self) -> None:
        if self.over:
            return
        due, self._due = self._due, 0
        if not self.load.stopping and not self._readonly:
            for _ in range(due):
                self.call(slow=False)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        while len(buffer) >= 16 and len(buffer) >= (size := 16 + int.from_bytes(buffer[12:16], "big")):
            frame, buffer = buffer[:size], buffer[size:]
            if frame[2] & 0x80:
                self._readonly = self._readonly or b"R" in frame[16:]  # else a heartbeat
                continue
            number = int.from_bytes(frame[4:12], "big", signed=True)
            if number not in self.waiting:
                self.fail("an answer that nobody waits for")
                return
            expected = self.answered(number)
            if frame[3] != 20 or expected not in frame:
                self.fail(f"status {frame[3]}" if frame[3] != 20 else "wrong answer")
                return
            if self.load.stopping or self._readonly:
                if not self.waiting:
                    self.close()
            elif number & 1:
                self.call(slow=True)
            else:
                self._due += 1
                if self._due == 1:
                    self.load.later(self.fill)
        self._buffer = buffer


class Bytes(Caller):
    """Some seconds of echo over the TCP proxy."""

    listener = "bytes"

    def begin(self) -> None:
        self._left = b""
        self._until = monotonic() + random.uniform(*STREAM_LIFE_S)
        self.ask(0, b"")
        self.speak()

    def speak(self) -> None:
        if self.over:
            return
        if self.load.stopping or monotonic() > self._until:
            self.answered(0)
            self.close()
            return
        word = self._left = next(_words)
        self.waiting[0] = (monotonic(), word)
        self.transport.write(word)

    def data_received(self, data: bytes) -> None:
        if not self._left.startswith(data):
            self.fail("wrong bytes")
            return
        self._left = self._left[len(data) :]
        if not self._left:
            asyncio.get_running_loop().call_later(WORD_INTERVAL_S, self.speak)
