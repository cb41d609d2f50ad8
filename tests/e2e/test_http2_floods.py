"""Hostile HTTP/2 callers against the running proxy with one worker: each is answered or cut off, costs a bounded amount of
memory, and hurts nobody else: a caller that was there before, a new one, and the upstream go on."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
from e2e_support import Sidecar, forward, static_cluster, until
from e2e_support.peers import Peer, connect, head_of, read_answer
from e2e_support.sidecar import memory_kb
from http2_support.floods import FLOODS, streams
from http2_support.wire import (
    CONTINUATION,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    HELLO,
    POST,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    block,
    data,
    frame,
    headers,
    ping,
    rst,
    settings,
    window_update,
)
from parity.config import bootstrap, http

pytestmark = pytest.mark.slow

CALM, FLOW_CONTROL = 11, 3
MOST_GROWTH_KB = 16 * 1024
LARGE = 300_000
DEADLINE_S = 30.0
OVER = threading.Event()
"""the tests are over"""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMITS = """
stream_idle_timeout: 2s
request_headers_timeout: 2s
delayed_close_timeout: 0.5s
http2_protocol_options:
  max_concurrent_streams: 100
  initial_stream_window_size: 65536
  initial_connection_window_size: 1048576
  max_outbound_frames: 2000
  override_stream_error_on_invalid_http_message: true
"""
PATIENT = """
http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 1048576}
"""
NARROW = """
http2_protocol_options: {initial_stream_window_size: 1048576, initial_connection_window_size: 65535}
"""
DIRECT = {"match": {"prefix": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 1000}}}


def serve(sock: socket.socket) -> None:
    """`/hang` is never answered or read on, `/large` gets many bytes, everything else `ok`."""
    while head := head_of(sock):
        if b" /hang" in head:
            with contextlib.suppress(TimeoutError):
                OVER.wait(60) if b"POST" in head else sock.recv(1)
            return
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE + bytes(LARGE) if b" /large" in head else ANSWER)


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Sidecar]:
    with Peer(serve) as peer:
        listeners = [
            http("in", [DIRECT, forward("back")], LIMITS),
            http("patient", [forward("back")], PATIENT),
            http("narrow", [forward("back")], NARROW),
        ]
        config = bootstrap(listeners, [static_cluster("back", peer.port)])
        one = Sidecar(config, concurrency=1)
        try:
            one.start()
            yield one
        finally:
            OVER.set()
            one.stop(keep=True)
            log = one.log()
            one.remove()
    assert "Traceback" not in log, log[-4000:]


def get(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(n, path if n == b":path" else v) for n, v in GET]


def post(path: bytes) -> list[tuple[bytes, bytes]]:
    return [(n, path if n == b":path" else v) for n, v in POST]


class Attacker:
    """One connection: what is sent, what came back, and how the worker's memory grew meanwhile."""

    def __init__(self, sidecar: Sidecar, *, listener: str = "in", hello: bytes = HELLO) -> None:
        self.worker = sidecar.workers()[0]
        self.before = self.largest = memory_kb(self.worker, "Rss")
        self.sock = connect(sidecar.port(listener))
        self.frames: list[Frame] = []
        self.ended = False
        self._buffer = bytearray()
        self.sock.sendall(hello)

    def send(self, pieces: Iterable[bytes], *, reading: bool = True, batch: int = 50) -> None:
        """Send until all went out, or the proxy takes no more because it has ended the connection."""
        self.sock.setblocking(False)
        waiting: list[bytes] = []
        for piece in pieces:
            waiting.append(piece)
            if len(waiting) >= batch:
                if not self._push(b"".join(waiting), reading):
                    return
                waiting = []
        self._push(b"".join(waiting), reading)

    def _push(self, raw: bytes, reading: bool) -> bool:
        deadline = time.monotonic() + DEADLINE_S
        while raw and not self.ended:
            assert time.monotonic() < deadline, "the proxy neither reads nor ends the connection"
            readable, writable, _ = select.select([self.sock] if reading else [], [self.sock], [], 1.0)
            self.measure()
            try:
                if writable:
                    raw = raw[self.sock.send(raw) :]
                if readable:
                    self._read()
            except OSError:
                self.ended = True
            if not readable and not writable and not reading:
                return False  # it does not read any more: that is an answer, too
        return not self.ended

    def measure(self) -> None:
        self.largest = max(self.largest, memory_kb(self.worker, "Rss"))

    def _read(self) -> None:
        received = self.sock.recv(1 << 16)
        if not received:
            self.ended = True
            return
        self._buffer += received
        while len(self._buffer) >= 9:
            word, flags, stream_id = struct.unpack_from(">IBI", self._buffer)
            end = 9 + (word >> 8)
            if len(self._buffer) < end:
                break
            self.frames.append(Frame(word & 0xFF, flags, stream_id, bytes(self._buffer[9:end])))
            del self._buffer[:end]

    def read_until(self, done: Callable[[], bool]) -> None:
        """Read until something came, or the connection ended."""
        deadline = time.monotonic() + DEADLINE_S
        self.sock.setblocking(False)
        while not self.ended and not done():
            assert time.monotonic() < deadline, f"nothing happened; {self.frames[-3:]}"
            if select.select([self.sock], [], [], 0.5)[0]:
                try:
                    self._read()
                except OSError:
                    self.ended = True
            self.measure()

    def of(self, kind: int) -> list[Frame]:
        return [one for one in self.frames if one.kind == kind]

    def close(self) -> None:
        self.sock.close()


@dataclass
class Case:
    """What is sent, and what must come of it."""

    attack: Callable[[Attacker], None]
    goaway: int | None = CALM
    """code of the GOAWAY that ends the connection; None: the attack itself says what it expects"""
    listener: str = "in"


def flood(name: str) -> Case:
    return Case(lambda attacker: attacker.send(FLOODS[name]()))


def unread(pieces: Callable[[], Iterable[bytes]]) -> Callable[[Attacker], None]:
    """Send and read nothing, until the proxy has had enough."""

    def attack(attacker: Attacker) -> None:
        attacker.send(pieces(), reading=False, batch=500)
        with contextlib.suppress(AssertionError):
            attacker.read_until(lambda: False)
        assert attacker.ended, "the connection still stands"

    return attack


def resets(expected: int, code: int) -> Callable[[Attacker], None]:
    """Wait until so many streams were reset."""

    def check(attacker: Attacker) -> None:
        attacker.read_until(lambda: len(attacker.of(RST_STREAM)) >= expected)
        assert {one.number for one in attacker.of(RST_STREAM)} == {code}
        assert not attacker.of(GOAWAY)

    return check


def zero_window(attacker: Attacker) -> None:
    """Large responses are asked for and none is taken: each stream is given up after its idle time."""
    attacker.send([settings((4, 0)), *(headers(1 + 2 * n, get(b"/large")) for n in range(50))])
    resets(50, 2)(attacker)


def trickle(attacker: Attacker) -> None:
    """One byte of window at a time keeps a stream alive, but costs no more than it brings."""
    attacker.send([settings((4, 0)), headers(1, get(b"/large"))])
    attacker.send((window_update(1, 1) for _ in range(300)), batch=1)
    attacker.send([rst(1, 8)])


def slow_head(attacker: Attacker) -> None:
    attacker.send([frame(HEADERS, END_STREAM, 1, block(GET))])
    attacker.read_until(lambda: bool(attacker.of(GOAWAY)))


def slow_body(attacker: Attacker) -> None:
    """A request that goes silent gets 408, and its stream ends; the connection lives."""
    attacker.send([headers(1, post(b"/"), end=False)])
    attacker.read_until(lambda: bool(attacker.of(HEADERS)) and bool(attacker.of(RST_STREAM)))
    assert not attacker.of(GOAWAY)
    attacker.send([headers(3)])
    attacker.read_until(lambda: any(one.stream_id == 3 for one in attacker.of(HEADERS)))


def slow_preface(attacker: Attacker) -> None:
    attacker.read_until(lambda: False)
    assert attacker.ended


def greedy(attacker: Attacker) -> None:
    """Send a body to an upstream that does not read it, as far as the windows allow, and then some more."""
    attacker.send([frame(SETTINGS, 1), headers(1, post(b"/hang"), end=False)])
    attacker.read_until(lambda: bool(attacker.of(SETTINGS)))
    given = dict(struct.iter_unpack(">HI", attacker.of(SETTINGS)[0].payload))
    sent = seen = 0
    windows = {1: given.get(4, 65_535), 0: 65_535}
    quiet_since = time.monotonic()
    while time.monotonic() < quiet_since + 2.0:
        for one in attacker.frames[seen:]:
            if one.kind == WINDOW_UPDATE:
                windows[one.stream_id] += one.number
        seen = len(attacker.frames)
        room = min(windows.values()) - sent
        if room > 0:
            size = min(room, 16_384)
            attacker.send([data(1, bytes(size))])
            sent += size
            quiet_since = time.monotonic()
        elif select.select([attacker.sock], [], [], 0.1)[0]:
            attacker.read_until(lambda: len(attacker.frames) > seen)  # noqa: B023
    attacker.send([data(1, bytes(16_384))])


def beyond_stream_window(attacker: Attacker) -> None:
    greedy(attacker)
    resets(1, FLOW_CONTROL)(attacker)


def refused(attacker: Attacker) -> None:
    attacker.send(streams(lambda n: headers(n, get(b"/hang"))))


def held_bodies(attacker: Attacker) -> None:
    """An upstream that does not read: what is kept is what the windows allow."""
    opened = b"".join(headers(1 + 2 * n, post(b"/hang"), end=False) for n in range(16))
    attacker.send([opened, *(data(1 + 2 * n, bytes(16_384)) for n in range(16) for _ in range(4))])
    attacker.send([ping()])
    attacker.read_until(lambda: bool(attacker.of(6)))
    assert not attacker.of(GOAWAY)


def eighty_streams(attacker: Attacker) -> None:
    """Many streams given up at once are no attack."""
    attacker.send([b"".join(streams(lambda n: headers(n, get(b"/hang")), 80)) + b"".join(streams(lambda n: rst(n, 8), 80))])
    attacker.send([headers(201)])
    attacker.read_until(lambda: any(one.stream_id == 201 for one in attacker.of(HEADERS)))
    assert not attacker.of(GOAWAY)


def busy_caller(attacker: Attacker) -> None:
    """Many good requests are no attack."""
    for start in range(0, 2000, 80):
        wanted = start + 80
        attacker.send([b"".join(headers(1 + 2 * n, get(b"/direct")) + window_update(0, 2000) for n in range(start, wanted))])
        attacker.read_until(lambda wanted=wanted: len(attacker.of(HEADERS)) >= wanted)  # type: ignore[misc]
    assert not attacker.of(GOAWAY)


def too_large_head(attacker: Attacker) -> None:
    """A head over the limit ends its stream only."""
    value = b"v" * 20_000
    block_ = block([*GET, (b"a", value), (b"b", value), (b"c", value), (b"d", value)])[:60_000]
    pieces = [block_[n : n + 16_000] for n in range(0, len(block_), 16_000)]
    last = len(pieces) - 1
    attacker.send([frame(HEADERS, END_STREAM, 1, pieces[0])])
    attacker.send(frame(CONTINUATION, 4 if n == last else 0, 1, piece) for n, piece in enumerate(pieces) if n)
    attacker.read_until(lambda: bool(attacker.of(RST_STREAM)) or bool(attacker.of(GOAWAY)))


def header_block_without_end(attacker: Attacker) -> None:
    attacker.send([frame(HEADERS, END_STREAM, 1, bytes(16_384)), *[frame(CONTINUATION, 0, 1, bytes(16_384))] * 100], batch=1)


def many_fields(attacker: Attacker) -> None:
    attacker.send([headers(1, [*GET, *((b"x-%d" % n, b"1") for n in range(120))])])
    resets(1, CALM)(attacker)


def direct() -> Iterator[bytes]:
    yield window_update(0, 2**31 - 1 - 1_048_576)
    yield from streams(lambda n: headers(n, get(b"/direct")), 200_000)


CASES: dict[str, Case] = {name: flood(name) for name in FLOODS} | {
    "refused streams": Case(refused),
    "direct responses unread": Case(unread(direct), None),
    "PING unread": Case(unread(lambda: (ping() for _ in range(2_000_000))), None),
    "SETTINGS unread": Case(unread(lambda: (settings() for _ in range(2_000_000))), None),
    "zero window": Case(zero_window, None),
    "window by the byte": Case(trickle, None),
    "slow head": Case(slow_head, 1),
    "slow body": Case(slow_body, None),
    "slow preface": Case(slow_preface, None),
    "body beyond the stream's window": Case(beyond_stream_window, None, "patient"),
    "body beyond the connection's window": Case(greedy, FLOW_CONTROL, "narrow"),
    "bodies that the upstream does not read": Case(held_bodies, None),
    "eighty streams closed at once": Case(eighty_streams, None),
    "two thousand requests": Case(busy_caller, None),
    "head over the limit": Case(too_large_head, None),
    "header block without end": Case(header_block_without_end),
    "too many fields": Case(many_fields, None),
}


@pytest.mark.parametrize("name", CASES)
def test_attack(sidecar: Sidecar, name: str) -> None:
    case = CASES[name]
    worker = sidecar.workers()
    with contextlib.closing(connect(sidecar.port("in"))) as witness:
        witness.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert read_answer(witness).status == 200
        attacker = Attacker(sidecar, listener=case.listener, hello=PREFACE[:5] if name == "slow preface" else HELLO)
        try:
            case.attack(attacker)
            if case.goaway is not None:
                attacker.read_until(lambda: bool(attacker.of(GOAWAY)))
                assert [one.number for one in attacker.of(GOAWAY)][-1:] == [case.goaway]
            attacker.measure()
            assert attacker.largest - attacker.before < MOST_GROWTH_KB
        finally:
            attacker.close()
        # Who was there before, and who comes now.
        for sock in (witness, connect(sidecar.port("in"))):
            with contextlib.closing(sock):
                sock.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert read_answer(sock).status == 200
    assert sidecar.workers() == worker
    until("streams are gone", lambda: sidecar.settled({"http2.streams_active": 0, "http.in.downstream_rq_active": 0}))
