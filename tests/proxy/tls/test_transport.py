"""`TlsTransport` alone: records cut in every way, what is paused, farewells and faults, with nothing of a listener."""

from __future__ import annotations

import asyncio
import gc
import random
import ssl
import weakref
from typing import Any

import pytest
from tls_support import client, server

from mesh_proxy.tls.authority import Authority
from mesh_proxy.tls.transport import RECORD, TlsTransport

MESH = Authority("mesh.local")
SERVER = server(MESH.workload("web"))
CALLER = client(MESH.pem)
SIZES = (1, 100, 5, RECORD, 1, RECORD - 1, 3 * RECORD + 7, 40)


class App(asyncio.Protocol):
    """Keeps what it gets, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = False
        self.lost: Exception | None = None

    def data_received(self, data: bytes) -> None:
        assert data
        self.pieces.append(data)

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc


class Raw:
    """The socket's transport."""

    def __init__(self) -> None:
        self.out = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.out += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def take(self) -> bytes:
        data, self.out = self.out, b""
        return data


class Server(TlsTransport):
    """Begins at once."""

    def __init__(self) -> None:
        super().__init__()
        self.app = App()
        self.raw: Any = Raw()
        self._begin(SERVER, True, None)
        self._attach(self.raw)

    def _established(self) -> None:
        self._flush()
        self._app = self.app


class Peer:
    """A caller in memory, and its server after the handshake."""

    def __init__(self) -> None:
        self.server = Server()
        self._in, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CALLER.wrap_bio(self._in, self.out)
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.server.data_received(self.out.read())
        self._in.write(self.server.raw.take())
        self.tls.do_handshake()
        self.server.data_received(self.out.read())

    def record(self, data: bytes) -> bytes:
        """As it stands on the wire."""
        self.tls.write(data)
        return self.out.read()

    def read(self) -> bytes:
        """What the server sent."""
        self._in.write(self.server.raw.take())
        got = b""
        try:
            while piece := self.tls.read(RECORD):
                got += piece
        except ssl.SSLWantReadError:
            pass
        return got


def body(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("step", [1, 3, 21, 22, 23, 150, RECORD - 1, RECORD, RECORD + 22, 1 << 20])
def test_every_step(step: int) -> None:
    peer = Peer()
    wire = b"".join(peer.record(body(size)) for size in SIZES)
    for start in range(0, len(wire), step):
        peer.server.data_received(wire[start : start + step])
    assert b"".join(peer.server.app.pieces) == b"".join(map(body, SIZES))


@pytest.mark.parametrize("seed", range(10))
def test_random_cuts(seed: int) -> None:
    chance = random.Random(seed)
    peer = Peer()
    sent, wire = b"", b""
    for _ in range(40):
        data = body(chance.choice([1, 50, 1000, RECORD, 2 * RECORD]))
        sent += data
        wire += peer.record(data)
        keep = chance.choice([0, 0, 1, 10, 100, 5000])
        cut = max(len(wire) - keep, 0)
        if cut:
            peer.server.data_received(wire[:cut])
            wire = wire[cut:]
    if wire:
        peer.server.data_received(wire)
    assert b"".join(peer.server.app.pieces) == sent


def test_what_comes_together_goes_up_together() -> None:
    peer = Peer()
    peer.server.data_received(b"".join(peer.record(b"%d" % n) for n in range(5)))
    assert peer.server.app.pieces == [b"01234"]


def test_the_end_of_a_record_that_is_longer_than_what_came_last() -> None:
    peer = Peer()
    wire = peer.record(body(5000))
    peer.server.data_received(wire[:-30])
    assert peer.server.app.pieces == []
    peer.server.data_received(wire[-30:])
    assert peer.server.app.pieces == [body(5000)]


def test_data_and_the_farewell_behind_it() -> None:
    peer = Peer()
    wire = peer.record(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.server.data_received(wire + peer.out.read())
    assert peer.server.app.pieces == [b"last words"]
    assert peer.server.app.ended


def test_a_farewell_alone() -> None:
    peer = Peer()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.server.data_received(peer.out.read())
    assert peer.server.app.ended
    assert not peer.server.raw.closed


@pytest.mark.parametrize("together", [False, True])
def test_good_data_goes_up_before_a_record_that_was_changed(together: bool) -> None:
    peer = Peer()
    good, bad = peer.record(b"good"), bytearray(peer.record(b"bad"))
    bad[-1] ^= 1
    for piece in [good + bytes(bad)] if together else [good, bytes(bad)]:
        peer.server.data_received(piece)
    assert peer.server.app.pieces == [b"good"]
    assert peer.server.raw.closed
    peer.server.connection_lost(None)
    assert isinstance(peer.server.app.lost, ConnectionResetError)


def test_nothing_goes_up_while_paused() -> None:
    async def test() -> None:
        peer = Peer()
        peer.server.pause_reading()
        peer.server.data_received(peer.record(b"one"))
        peer.server.data_received(peer.record(b"two"))
        assert peer.server.app.pieces == []
        peer.server.resume_reading()
        await asyncio.sleep(0)
        assert peer.server.app.pieces == [b"onetwo"]

    asyncio.run(test())


@pytest.mark.parametrize("size", SIZES)
def test_writing(size: int) -> None:
    peer = Peer()
    peer.server.write(body(size))
    assert peer.read() == body(size)
    peer.server.writelines([b"a", body(size), b"z"])
    assert peer.read() == b"a" + body(size) + b"z"


@pytest.mark.parametrize("cut", [0, 10, 10_000])
def test_a_connection_that_is_gone_is_no_garbage(cut: int) -> None:
    """The collector runs seldom in a worker, and a connection with its buffers is large."""
    gc.collect()
    gc.disable()
    try:
        peer = Peer()
        wire = peer.record(body(2 * RECORD))
        peer.server.data_received(wire[: len(wire) - cut])
        peer.server.resume_reading()
        peer.server._deliver()
        gone = weakref.ref(peer.server.tls_object)
        peer.server.connection_lost(None)
        del peer
        assert gone() is None
    finally:
        gc.enable()
