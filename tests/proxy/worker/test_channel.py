"""Messages and descriptors arrive whole and in order, whatever the kernel makes of them."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from typing import Any

import pytest

from mesh_proxy.worker import messages as m
from mesh_proxy.worker.channel import MAX_FDS, Channel


class End:
    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.messages: list[tuple[Any, list[int]]] = []
        self.changed = asyncio.Event()
        self.closed = False
        self.channel = Channel(loop, sock, self._message, self._close)

    def _message(self, message: Any, fds: list[int]) -> None:
        self.messages.append((message, fds))
        self.changed.set()

    def _close(self) -> None:
        self.closed = True
        self.changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.messages) < count and not self.closed:
                self.changed.clear()
                await self.changed.wait()


def run(scenario: Any) -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        loop = asyncio.get_running_loop()
        ends = End(loop, left), End(loop, right)
        try:
            await scenario(*ends)
        finally:
            for end in ends:
                end.channel.close()

    asyncio.run(main())


def test_big_messages_in_both_directions() -> None:
    async def scenario(left: End, right: End) -> None:
        big = m.Clusters(1, [{"text": "x" * 3_000_000}])
        for number in range(5):
            left.channel.send(m.Ping(number))
            left.channel.send(big)
            right.channel.send(m.Pong(number, number))
        await right.until(10)
        await left.until(5)
        assert [message for message, _ in right.messages[::2]] == [m.Ping(number) for number in range(5)]
        assert right.messages[9][0] == big
        assert [message for message, _ in left.messages] == [m.Pong(number, number) for number in range(5)]

    run(scenario)


def test_descriptors_stay_with_their_message() -> None:
    async def scenario(left: End, right: End) -> None:
        files = [tempfile.TemporaryFile() for _ in range(MAX_FDS)]  # noqa: SIM115
        for index, file in enumerate(files):
            file.write(str(index).encode())
            file.flush()
        fds = [file.fileno() for file in files]
        left.channel.send(m.Ping(1))
        left.channel.send(m.Sockets((("a", "b"),)), fds[:1])
        left.channel.send(m.Clusters(1, [{"text": "x" * 1_000_000}]))
        left.channel.send(m.Sockets(()), fds)
        left.channel.send(m.Sockets(()), fds[:2])
        for file in files:
            file.close()  # what is queued has its own copies
        await right.until(5)
        assert [len(got) for _, got in right.messages] == [0, 1, 0, MAX_FDS, 2]
        for _, got in right.messages:
            for index, fd in enumerate(got):
                assert os.pread(fd, 10, 0) == str(index).encode()
                os.close(fd)

    run(scenario)


def test_the_end_is_told_once_after_the_last_message() -> None:
    async def scenario(left: End, right: End) -> None:
        left.channel.send(m.Ping(1))
        left.channel.close()
        left.channel.send(m.Ping(2))
        await right.until(2)
        assert right.messages == [(m.Ping(1), [])]
        assert right.closed
        right.channel.send(m.Ping(3))
        right.channel.close()

    run(scenario)


def test_the_rest_of_a_dead_peer_can_be_read_at_once() -> None:
    async def scenario(left: End, right: End) -> None:
        for number in range(100):
            left.channel.send(m.Ping(number))
        left.channel.close()
        right.channel.receive_rest()
        assert len(right.messages) == 100
        assert right.closed

    run(scenario)


def test_nonsense_ends_the_channel() -> None:
    async def scenario(left: End, right: End) -> None:
        left.channel._socket.send(b"\xff" * 8)
        await right.until(1)
        assert right.closed
        assert right.messages == []

    run(scenario)


def test_sending_into_a_dead_channel_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(left: End, right: End) -> None:
        right.channel.close()
        with tempfile.TemporaryFile() as file:
            for _ in range(3):
                left.channel.send(m.Clusters(1, [{"text": "x" * 1_000_000}]), [file.fileno()])
        await left.until(1)
        assert left.closed

    run(scenario)
