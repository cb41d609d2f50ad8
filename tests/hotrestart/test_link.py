"""Messages and descriptors over a real socket pair; peers that break off, lie, or send too many descriptors."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import resource
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mesh_hotrestart import Link, TruncatedDescriptors, peer_of
from mesh_hotrestart import messages as hr
from mesh_hotrestart.fdpass import receive_with_descriptors, send_with_descriptors

LIMIT_S = 30.0


class End:
    """A link that keeps what comes."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: list[hr.Message] = []
        self.descriptors: list[int] = []
        self.ended: str | None = None
        self.changed = asyncio.Event()
        self.link = Link(asyncio.get_running_loop(), sock, self._message, self._end)

    def _message(self, message: hr.Message, descriptors: list[int]) -> None:
        self.messages.append(message)
        self.descriptors += descriptors
        self.changed.set()

    def _end(self, why: str) -> None:
        self.ended = why
        self.changed.set()

    async def until(self, ready: Callable[[], Any]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not ready():
                self.changed.clear()
                await self.changed.wait()

    def close(self) -> None:
        self.link.close()
        for fd in self.descriptors:
            os.close(fd)


def run(test: Callable[[socket.socket, End], Awaitable[None]]) -> None:
    """`test(raw, end)`: a bare socket and a link at its other side."""

    async def main() -> None:
        ours, theirs = socket.socketpair()
        end = End(theirs)
        try:
            await test(ours, end)
        finally:
            end.close()
            ours.close()

    asyncio.run(main())


def test_many_messages_with_descriptors_in_order() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        other = End(raw.dup())
        files = [os.open("/dev/null", os.O_RDONLY) for _ in range(hr.MAX_DESCRIPTORS)]
        for number in range(20):
            other.link.send(hr.Connection(number=number, protocol="", listener="", data=bytes(100_000)), files[:number])
        other.link.send(hr.Sockets(), files)
        assert other.link.queued
        await end.until(lambda: len(end.messages) == 21)
        assert await other.link.sent(LIMIT_S)
        assert [m.number for m in end.messages[:20]] == list(range(20))  # type: ignore[attr-defined]
        assert len(end.descriptors) == sum(range(20)) + hr.MAX_DESCRIPTORS
        assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in end.descriptors)
        for fd in files:
            os.close(fd)
        other.close()
        raw.close()
        await end.until(lambda: end.ended == "")

    run(test)


def test_byte_by_byte() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        for byte in hr.encode(hr.Ready()) + hr.encode(hr.Accepting()):
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        await end.until(lambda: len(end.messages) == 2)

    run(test)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "does not speak"),
        (hr.encode(hr.Ready(), version=9), "speaks version 9 of the hot-restart protocol, this process version 1"),
        (hr.HEAD.pack(hr.MAGIC, 1, 0, 2, 0) + b"[]", "has no type"),
        (hr.encode(hr.Sockets(), 1), "without its file descriptors"),
        (hr.HEAD.pack(hr.MAGIC, 1, 0, 0xFFFFFFFF, 0), "too large"),
    ],
)
def test_nonsense_ends_it_after_the_good_messages(data: bytes, why: str) -> None:
    async def test(raw: socket.socket, end: End) -> None:
        raw.sendall(hr.encode(hr.Ready()) + data)
        await end.until(lambda: end.ended is not None)
        assert end.ended is not None
        assert why in end.ended
        assert end.messages == [hr.Ready()]
        assert end.link.closed

    run(test)


def test_a_peer_of_another_version_learns_why() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        raw.sendall(hr.encode(hr.Hello(program="", pid=1), version=2))
        await end.until(lambda: end.ended is not None)
        raw.settimeout(LIMIT_S)
        answer = raw.recv(65536)
        assert hr.decode_head(answer)[0] == hr.PROTOCOL_VERSION
        assert b"version 2" in answer

    run(test)


def test_breaking_off_in_the_middle() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        raw.send(hr.encode(hr.Ready())[:-1])
        raw.shutdown(socket.SHUT_WR)
        await end.until(lambda: end.ended is not None)
        assert end.ended == "it broke off in the middle of a message"

    run(test)


def test_sending_to_the_dead_is_harmless() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        raw.close()
        for _ in range(3):
            end.link.send(hr.Ready(), [0])
        await end.until(lambda: end.ended == "")
        end.link.send(hr.Ready(), [0])
        assert not end.link.queued

    run(test)


def test_truncated_descriptors_are_noticed_and_none_leaks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null") as file:
        before = set(os.listdir("/proc/self/fd"))
        send_with_descriptors(ours, memoryview(b"x"), [file.fileno()] * 8)
        with pytest.raises(TruncatedDescriptors):
            receive_with_descriptors(theirs, socket.CMSG_SPACE(2 * array.array("i").itemsize))
        assert set(os.listdir("/proc/self/fd")) == before


def test_descriptors_lost_to_the_limit_end_the_link() -> None:
    """What really truncates them: the receiver may have no more files open."""

    async def test(raw: socket.socket, end: End) -> None:
        frame = memoryview(hr.encode(hr.Sockets(entries=[{}] * 50), 50))
        file = os.open("/dev/null", os.O_RDONLY)
        send_with_descriptors(raw, frame, [file] * 50)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (file + 1, hard))
        os.close(file)  # the lowest number that was free: at most this one is again
        try:
            await end.until(lambda: end.ended is not None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "descriptors were lost" in str(end.ended)
        assert not end.messages

    run(test)


def test_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == (os.getpid(), os.getuid())


def test_who_must_break_off_says_farewell() -> None:
    async def test(raw: socket.socket, end: End) -> None:
        end.link.farewell = hr.Release()
        raw.sendall(hr.encode(hr.Sockets(), 1))
        await end.until(lambda: end.ended is not None)
        raw.settimeout(LIMIT_S)
        assert b"Release" in raw.recv(65536)

    run(test)
