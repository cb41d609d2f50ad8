"""The stub resolver against name servers of our own on the loopback address."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from mesh_proxy.upstream import resolver as module
from mesh_proxy.upstream.dns_config import SystemFiles
from mesh_proxy.upstream.dns_message import TYPE_A, TYPE_AAAA, encode_name
from mesh_proxy.upstream.resolver import Answer, LookupFailed, Query, StubResolver

SERVFAIL, NXDOMAIN, FORMERR = 2, 3, 1


class NameServer(asyncio.DatagramProtocol):
    """Knows addresses, and what to do wrong."""

    def __init__(self) -> None:
        self.book: dict[tuple[str, int], list[bytes] | int] = {}
        """a list of addresses or a response code; NXDOMAIN for all else"""
        self.asked: list[tuple[str, int, str]] = []
        self.silent = False
        self.cut = False
        """over UDP only the head, with the TC bit"""
        self.knows_edns = True
        self.forge = False
        """wrong answers before the right one"""
        self.transport: asyncio.DatagramTransport
        self.again: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def answer(self, data: bytes, how: str) -> bytes:
        position, labels = 12, []
        while data[position]:
            labels.append(data[position + 1 : position + 1 + data[position]].decode())
            position += data[position] + 1
        name, kind = ".".join(labels), struct.unpack_from(">H", data, position + 1)[0]
        question = data[12 : position + 5]
        edns = len(data) > position + 5
        self.asked.append((name, kind, how))
        found = self.book.get((name.lower(), kind), NXDOMAIN)
        if self.again is not None and not self.again.done():
            self.again.set_result(None)
        if edns and not self.knows_edns:
            found = FORMERR
        addresses, code = (found, 0) if isinstance(found, list) else ([], found)
        if how == "udp" and self.cut:
            return data[:2] + struct.pack(">HHHHH", 0x8380, 1, len(addresses), 0, 0) + question
        out = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(addresses), 0, 0) + question
        for address in addresses:
            out += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 77, len(address)) + address
        return out

    async def until_asked(self, times: int) -> None:
        while len(self.asked) < times:
            self.again = asyncio.get_running_loop().create_future()
            await self.again

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.answer(data, "udp")
        if self.silent:
            return
        if self.forge:
            self.transport.sendto(b"garbage", addr)
            self.transport.sendto(bytes([data[0] ^ 1]) + reply[1:], addr)  # another id
            other = encode_name("other.test") + struct.pack(">HH", TYPE_A, 1)
            self.transport.sendto(data[:2] + struct.pack(">HHHHH", 0x8180, 1, 0, 0, 0) + other, addr)
        self.transport.sendto(reply, addr)

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2), "big")
            reply = self.answer(await reader.readexactly(size), "tcp")
            if not self.silent:
                writer.write(len(reply).to_bytes(2, "big") + reply)
        finally:
            writer.close()


@asynccontextmanager
async def name_server(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[NameServer, int]]:
    server = NameServer()
    tcp, transport = await _bind(server, host, port)
    try:
        yield server, tcp.sockets[0].getsockname()[1]
    finally:
        transport.close()
        tcp.close()
        await tcp.wait_closed()
        await asyncio.sleep(0)  # the transport closes in the next turn


async def _bind(server: NameServer, host: str, port: int) -> tuple[asyncio.Server, asyncio.DatagramTransport]:
    """One port for TCP and UDP: a free one of the one kind may be taken in the other."""
    for _ in range(20):
        tcp = await asyncio.start_server(server.serve_tcp, host, port)
        address = tcp.sockets[0].getsockname()
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, local_addr=address)
        except OSError:
            tcp.close()
            await tcp.wait_closed()
        else:
            return tcp, transport
    raise AssertionError("no port is free for both")


class Setting:
    def __init__(self, folder: Path, resolv: str = "nameserver 127.0.0.1\n", hosts: str = "") -> None:
        (folder / "resolv.conf").write_text(resolv)
        (folder / "hosts").write_text(hosts)
        self.files = SystemFiles(str(folder / "resolv.conf"), str(folder / "hosts"))

    def resolver(self, port: int, **options: object) -> StubResolver:
        return StubResolver(asyncio.get_running_loop(), files=self.files, port=port, **options)  # type: ignore[arg-type]


V4 = bytes([10, 0, 0, 1])
V6 = bytes(15) + b"\1"
Check = Callable[[NameServer, StubResolver], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"], autouse=True)
def event_loop_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on both loops: workers run on uvloop."""
    monkeypatch.setattr(
        sys.modules[__name__], "new_loop", uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    )


new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop


def run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)


def against_a_server(setting: Setting, check: Check, **options: object) -> None:
    async def main() -> None:
        async with name_server() as (server, port):
            resolver = setting.resolver(port, **options)
            async with asyncio.timeout(60):
                await check(server, resolver)
            resolver.close()

    run(main())


def resolve(resolver: StubResolver, name: str, family: str = "V4_ONLY") -> asyncio.Future[Answer | None]:
    future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
    resolver.resolve(name, family, future.set_result)
    return future


@pytest.mark.parametrize(
    ("family", "book", "expected"),
    [
        ("V4_ONLY", {TYPE_A: [V4, bytes([10, 0, 0, 2])], TYPE_AAAA: [V6]}, ["10.0.0.1", "10.0.0.2"]),
        ("V6_ONLY", {TYPE_A: [V4], TYPE_AAAA: [V6]}, ["::1"]),
        ("V6_ONLY", {TYPE_A: [V4]}, []),
        ("V4_ONLY", {TYPE_A: []}, []),
        ("V4_ONLY", {TYPE_A: SERVFAIL}, None),
        ("AUTO", {TYPE_A: [V4], TYPE_AAAA: [V6]}, ["::1"]),
        ("AUTO", {TYPE_A: [V4], TYPE_AAAA: []}, ["10.0.0.1"]),
        ("AUTO", {TYPE_A: [V4], TYPE_AAAA: SERVFAIL}, ["10.0.0.1"]),
        ("AUTO", {TYPE_A: SERVFAIL, TYPE_AAAA: SERVFAIL}, None),
        ("V4_PREFERRED", {TYPE_A: [V4], TYPE_AAAA: [V6]}, ["10.0.0.1"]),
        ("V4_PREFERRED", {TYPE_AAAA: [V6]}, ["::1"]),
        ("ALL", {TYPE_A: [V4], TYPE_AAAA: [V6]}, ["::1", "10.0.0.1"]),
        ("ALL", {TYPE_A: SERVFAIL, TYPE_AAAA: [V6]}, ["::1"]),
        ("ALL", {TYPE_A: SERVFAIL}, None),
        ("ALL", {}, []),
    ],
)
def test_families(tmp_path: Path, family: str, book: dict[int, list[bytes] | int], expected: list[str] | None) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.book = {("a.test", kind): found for kind, found in book.items()}
        answer = await resolve(resolver, "a.test", family)
        assert (answer.addresses if answer is not None else None) == expected
        if answer is not None and expected:
            assert answer.ttl_s == 77

    against_a_server(Setting(tmp_path), check)


def test_the_search_list(tmp_path: Path) -> None:
    setting = Setting(tmp_path, "nameserver 127.0.0.1\nsearch ns.test test\noptions ndots:2 attempts:1\n")

    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.book = {("a.test", TYPE_A): [V4], ("b.ns.test", TYPE_A): SERVFAIL, ("c.test", TYPE_A): [V4]}
        assert await resolve(resolver, "a") == Answer(["10.0.0.1"], 77.0)
        assert [name for name, _, _ in server.asked] == ["a.ns.test", "a.test"]
        assert await resolve(resolver, "b") is None  # it may well exist
        assert await resolve(resolver, "c.test.") == Answer(["10.0.0.1"], 77.0)
        assert server.asked[-1][0] == "c.test"
        assert await resolve(resolver, "no") == Answer([])

    against_a_server(setting, check)


def test_a_cut_answer_is_asked_for_again_over_tcp(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.cut = True
        server.book = {("a.test", TYPE_A): [bytes([10, 0, i // 250, i % 250]) for i in range(600)]}
        answer = await resolve(resolver, "a.test")
        assert answer is not None
        assert len(answer.addresses) == 600
        assert [how for _, _, how in server.asked] == ["udp", "tcp"]
        server.silent = True  # the connection ends without an answer: the UDP question is not even answered
        with pytest.raises(LookupFailed):
            await resolver._over_tcp("127.0.0.1", b"\0\1\1\0\0\1\0\0\0\0\0\0\0\0\1\0\1", module._Question(1, "", 1))

    against_a_server(Setting(tmp_path), check)


def test_a_server_without_edns(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.knows_edns = False
        server.book = {("a.test", TYPE_A): [V4]}
        assert await resolve(resolver, "a.test") == Answer(["10.0.0.1"], 77.0)

    against_a_server(Setting(tmp_path), check)


def test_forged_answers_are_passed_over(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.forge = True
        server.book = {("a.test", TYPE_A): [V4]}
        assert await resolve(resolver, "A.test") == Answer(["10.0.0.1"], 77.0)

    against_a_server(Setting(tmp_path), check)


@pytest.mark.parametrize("fault", ["refused", "silent", "fails"])
def test_the_next_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Two servers on one port of two loopback addresses."""
    setting = Setting(tmp_path, "nameserver 127.0.0.2\nnameserver 127.0.0.1\noptions attempts:1 timeout:1\n")

    async def main() -> None:
        async with name_server() as (good, port):
            good.book = {("a.test", TYPE_A): [V4]}
            resolver = setting.resolver(port)
            if fault == "refused":
                assert await resolve(resolver, "a.test") == Answer(["10.0.0.1"], 77.0)
                return
            async with name_server("127.0.0.2", port) as (bad, _):
                bad.silent = fault == "silent"
                bad.book = {("a.test", TYPE_A): SERVFAIL}
                assert await resolve(resolver, "a.test") == Answer(["10.0.0.1"], 77.0)
                assert bad.asked

    run(main())


def test_rotation_begins_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path, "nameserver 127.0.0.2\nnameserver 127.0.0.1\noptions rotate\n")
    monkeypatch.setattr(module.secrets, "randbelow", lambda _: 1)

    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.book = {("a.test", TYPE_A): [V4]}
        assert await resolve(resolver, "a.test") == Answer(["10.0.0.1"], 77.0)

    against_a_server(setting, check)


def test_hosts_and_localhost_need_no_server(tmp_path: Path) -> None:
    setting = Setting(tmp_path, hosts="10.1.1.1 mine.test\n::2 mine.test\n")

    async def check(server: NameServer, resolver: StubResolver) -> None:
        assert await resolve(resolver, "Mine.test") == Answer(["10.1.1.1"])
        assert await resolve(resolver, "mine.test.", "ALL") == Answer(["::2", "10.1.1.1"])
        assert await resolve(resolver, "localhost") == Answer(["127.0.0.1"])
        assert await resolve(resolver, "a.localhost", "V6_ONLY") == Answer(["::1"])
        assert server.asked == []

    against_a_server(setting, check)


def test_impossible_names_fail(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        assert await resolve(resolver, "a..test") is None
        assert server.asked == []

    against_a_server(Setting(tmp_path), check)


def test_only_so_many_at_once_and_cancelled_ones_make_room(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.silent = True
        running: list[Query] = [resolver.resolve(f"{name}.test", "V4_ONLY", _never) for name in "ab"]
        waiting = resolver.resolve("c.test", "V4_ONLY", _never)
        await server.until_asked(2)
        server.silent = False
        server.book = {("d.test", TYPE_A): [V4]}
        last = resolve(resolver, "d.test")
        waiting.cancel()
        for query in running:
            query.cancel()
        assert await last == Answer(["10.0.0.1"], 77.0)
        assert sorted(name for name, _, _ in server.asked) == ["a.test", "b.test", "d.test"]

    against_a_server(Setting(tmp_path), check, most=2)


def test_the_deadline(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.silent = True
        assert await resolve(resolver, "a.test") is None

    against_a_server(Setting(tmp_path), check, deadline_s=0.05)


def test_close_ends_what_runs(tmp_path: Path) -> None:
    async def check(server: NameServer, resolver: StubResolver) -> None:
        server.silent = True
        query = resolver.resolve("a.test", "V4_ONLY", _never)
        await server.until_asked(1)
        resolver.close()
        assert query.task is not None
        with pytest.raises(asyncio.CancelledError):
            await query.task

    against_a_server(Setting(tmp_path), check)


def _never(answer: Answer | None) -> None:
    pytest.fail(f"nobody wants {answer}")
