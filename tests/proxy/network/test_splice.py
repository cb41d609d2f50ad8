"""Bulk between two sockets: nobody can tell who moved it, transports or the kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import uvloop
from plane_support import LIMIT_S, Plane, plane, until, upstream

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.network import splice, tcp_proxy
from mesh_proxy.network.transport import WATERMARK_HIGH

MUCH = Random(1).randbytes(1 << 20) * 6
LITTLE = b"ping"
RESET = struct.pack("ii", 1, 0)
Test = Callable[[], Coroutine[Any, Any, None]]
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Run = Callable[[Test], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """With the loop of the tests, and with that of the proxy."""

    def whole(test: Test) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await test()

        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(limited())

    return whole


class Kernel:
    """Looks on while bytes are moved."""

    def __init__(self) -> None:
        self.moved = 0
        self.fail: Callable[[], None] = lambda: None
        self._splice = os.splice

    def splice(self, source: int, sink: int, count: int, **options: Any) -> int:
        self.fail()
        size = self._splice(source, sink, count, **options)
        self.moved += size
        return size


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    one = Kernel()
    monkeypatch.setattr(os, "splice", one.splice)
    return one


def configuration(address: AddressConfig, listener: str = "", proxy: str = "") -> str:
    endpoint = f"endpoint: {{address: {{socket_address: {{address: {address.host}, port_value: {address.port}}}}}}}"
    return f"""
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    {listener}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          {proxy}
  clusters:
  - name: c
    type: STATIC
    load_assignment:
      cluster_name: c
      endpoints: [{{lb_endpoints: [{{{endpoint}}}]}}]
"""


@asynccontextmanager
async def connected(**options: str) -> AsyncIterator[tuple[Plane, Pair, Pair]]:
    """A caller and an endpoint that see each other through the proxy."""
    accepted: asyncio.Future[Pair] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))
        await over.wait()

    async with upstream(serve) as address, plane(configuration(address, **options)) as proxy:
        reader, writer = await proxy.connect("in")
        try:
            yield proxy, (reader, writer), await accepted
            proxy.data.close()
            assert proxy.data._context.splices.used == 0
        finally:
            over.set()
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without a FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def send(writer: asyncio.StreamWriter, data: bytes, *, end: bool = False) -> None:
    writer.write(data)
    if end:
        writer.write_eof()
    await writer.drain()


def splices(proxy: Plane) -> list[splice.Splice]:
    """Those in progress."""
    halves: list[Any] = []
    for listener in proxy.data._listeners.values():
        for connection in listener.connections:
            assert isinstance(connection, tcp_proxy.TcpConnection)
            halves += [connection, connection.upstream]
    return [half.splice for half in halves if half is not None and half.splice is not None]


def test_both_directions_at_once_and_half_close(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        async with connected() as (proxy, (reader, writer), (their_reader, their_writer)):
            async with asyncio.TaskGroup() as group:
                group.create_task(send(writer, MUCH, end=True))
                group.create_task(send(their_writer, MUCH[::-1]))
                there = group.create_task(their_reader.read(-1))
                here = group.create_task(reader.readexactly(len(MUCH)))
            assert there.result() == MUCH
            assert here.result() == MUCH[::-1]
            await send(their_writer, LITTLE, end=True)  # the caller has ended long ago
            assert await reader.read(-1) == LITTLE
            assert kernel.moved > len(MUCH)  # some of each, into a pipe and out again
            await until(lambda: proxy.stat("tcp.t.", "downstream_cx_tx_bytes_total") == len(MUCH) + len(LITTLE))
            assert proxy.stat("tcp.t.", "downstream_cx_rx_bytes_total") == len(MUCH)
            assert proxy.stat("cluster.c.", "upstream_cx_tx_bytes_total") == len(MUCH)
            assert proxy.stat("cluster.c.", "upstream_cx_rx_bytes_total") == len(MUCH) + len(LITTLE)

    run(test)


def test_a_reader_that_waits_holds_up_the_writer(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        async with connected() as (proxy, (reader, _), (_, their_writer)):
            transport = their_writer.transport
            for _ in range(16):
                their_writer.write(MUCH)
            got = await reader.readexactly(len(MUCH))
            assert got == MUCH
            # Who reads stops: then all buffers fill, and the writer's own does not become less any more.
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            before = -1
            while transport.get_write_buffer_size() != before:  # type: ignore[attr-defined]
                before = transport.get_write_buffer_size()  # type: ignore[attr-defined]
                await asyncio.sleep(0.5)
            assert before
            assert any(one._left for one in splices(proxy))
            paused = proxy.stat("tcp.t.", "downstream_flow_control_paused_reading_total")
            assert paused == proxy.stat("tcp.t.", "downstream_flow_control_resumed_reading_total") + 1
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            for _ in range(15):
                assert await reader.readexactly(len(MUCH)) == MUCH

    run(test)


def test_what_was_taken_is_delivered(run: Run, kernel: Kernel) -> None:
    """The endpoint breaks off while the caller does not read; what the proxy has of it still arrives."""

    async def test() -> None:
        async with connected() as (proxy, (reader, writer), (_, their_writer)):
            their_writer.write(MUCH * 16)
            await reader.readexactly(len(MUCH))
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: any(one._left for one in splices(proxy)))
            reset(their_writer)
            while proxy.stat("cluster.c.", "upstream_cx_active"):
                writer.write(LITTLE)  # this is how the proxy hears of it, as it does not read from the endpoint
                await asyncio.sleep(0.01)
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            got = await reader.read(-1)
            assert len(MUCH) + len(got) == proxy.stat("tcp.t.", "downstream_cx_tx_bytes_total")
            assert got == (MUCH * 15)[: len(got)]

    run(test)


@pytest.mark.parametrize("who", ["caller", "endpoint"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_resets(run: Run, kernel: Kernel, who: str, direction: str) -> None:
    async def test() -> None:
        async with connected() as (proxy, ours, theirs):
            sink, source = (theirs[0], ours[1]) if direction == "up" else (ours[0], theirs[1])
            source.write(MUCH * 4)
            await sink.readexactly(len(MUCH))
            assert splices(proxy)
            reset(ours[1] if who == "caller" else theirs[1])
            other = theirs[0] if who == "caller" else ours[0]
            try:
                await other.read(-1)  # as long as it does not take what was sent, nobody looks at the sender
            except ConnectionError:
                pass
            await until(lambda: proxy.data.active_connections == 0)
            stats = "upstream_cx_destroy_remote" if who == "endpoint" else "upstream_cx_destroy_local"
            await until(lambda: proxy.stat("cluster.c.", "upstream_cx_destroy") == 1)
            assert proxy.stat("cluster.c.", stats) == 1

    run(test)


def test_small_pieces_go_back_to_the_transports(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        async with connected() as (proxy, (reader, writer), (their_reader, their_writer)):
            async with asyncio.TaskGroup() as group:
                group.create_task(send(their_writer, MUCH))
                group.create_task(reader.readexactly(len(MUCH)))
            assert splices(proxy)
            for _ in range(2 * splice.SIGNS):
                await send(writer, LITTLE)
                assert await their_reader.readexactly(len(LITTLE)) == LITTLE
                await send(their_writer, LITTLE)
                assert await reader.readexactly(len(LITTLE)) == LITTLE
            assert not splices(proxy)
            moved = kernel.moved
            async with asyncio.TaskGroup() as group:
                group.create_task(send(their_writer, MUCH))
                group.create_task(reader.readexactly(len(MUCH)))
            assert kernel.moved > moved

    run(test)


@pytest.mark.parametrize("calls", [0, 1, 2, 7])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM])
def test_a_kernel_that_does_no_such_thing(run: Run, kernel: Kernel, calls: int, code: int) -> None:
    async def test() -> None:
        made = 0

        def fail() -> None:
            nonlocal made
            made += 1
            if made > calls:
                raise OSError(code, os.strerror(code))

        kernel.fail = fail
        async with connected() as (proxy, (reader, _), (_, their_writer)):
            async with asyncio.TaskGroup() as group:
                group.create_task(send(their_writer, MUCH, end=True))
                here = group.create_task(reader.read(-1))
            assert here.result() == MUCH
            assert proxy.data._context.splices.refused
            assert not splices(proxy)

    run(test)


@pytest.mark.parametrize("what", ["pipe2", "epoll"])
def test_no_descriptors(run: Run, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def none_left(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    async def test() -> None:
        async with connected() as (_, (reader, _), (_, their_writer)):
            monkeypatch.setattr(splice.os if what == "pipe2" else splice.select, what, none_left)
            async with asyncio.TaskGroup() as group:
                group.create_task(send(their_writer, MUCH, end=True))
                here = group.create_task(reader.read(-1))
            monkeypatch.undo()
            assert here.result() == MUCH
            assert kernel.moved == 0

    run(test)


def test_a_small_buffer_stays_small(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        limit = f"per_connection_buffer_limit_bytes: {WATERMARK_HIGH - 1}"
        async with connected(listener=limit) as (_, (reader, _), (_, their_writer)):
            async with asyncio.TaskGroup() as group:
                group.create_task(send(their_writer, MUCH, end=True))
                here = group.create_task(reader.read(-1))
            assert here.result() == MUCH
            assert kernel.moved == 0

    run(test)


def test_idle_while_nobody_reads(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        async with connected(proxy="idle_timeout: 1s") as (proxy, (reader, _), (_, their_writer)):
            their_writer.write(MUCH * 16)
            await reader.readexactly(len(MUCH))
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: proxy.data.active_connections == 0)
            assert proxy.stat("tcp.t.", "idle_timeout") == 1

    run(test)


def test_closing_the_proxy(run: Run, kernel: Kernel) -> None:
    async def test() -> None:
        async with connected() as (proxy, (reader, _), (_, their_writer)):
            their_writer.write(MUCH * 16)
            await reader.readexactly(len(MUCH))
            assert splices(proxy)

    run(test)
