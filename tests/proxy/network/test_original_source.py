"""Upstream connections in the names of callers, without the rights that foreign addresses take: from 127.0.0.x to 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from bootstraps import options, typed, web
from dubbo_support import wire
from dubbo_support.plane import bootstrap, id_of, read_frame
from e2e_support.backends import Grpc
from e2e_support.pod import configuration
from moving_support import Handing, planes
from plane_support import ANSWER, GET, Plane, head, run, until
from plane_support import plane as bare_plane

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model.listener import ListenerFilterConfig, PortPredicateConfig
from mesh_proxy.listener.predicate import compile_predicate
from mesh_proxy.network import original_source
from mesh_proxy.network.original_source import LocalConnectFailed, OriginalSource, SourceKeeper, keeper_of
from mesh_proxy.upstream import source_pools
from mesh_proxy.upstream.endpoint import Endpoint

FIRST, SECOND = "127.0.0.21", "127.0.0.22"
FILTER = f"listener_filters: [{typed('s', 'filters.listener.original_src.v3.OriginalSrc')}]"
FAST_IDLE = "common_http_protocol_options: {idle_timeout: 0.2s}"


@pytest.fixture
def no_rights_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of this machine can be bound to by everybody."""
    monkeypatch.setattr(original_source, "make_transparent", lambda sock: None)
    monkeypatch.setattr(SourceKeeper, "missing", lambda self: "")


class Endpoints:
    """An endpoint on 127.0.0.1 that notes from where its connections come: (address, port)."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, int]] = []
        self.open = 0
        self.port = 0

    @property
    def hosts(self) -> list[str]:
        return [host for host, _ in self.peers]

    @asynccontextmanager
    async def serving(self, kind: type[asyncio.Protocol]) -> Any:
        noted = self

        class Noting(kind):  # type: ignore[misc,valid-type]
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                noted.peers.append(transport.get_extra_info("peername"))
                noted.open += 1
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                noted.open -= 1
                super().connection_lost(error)

        server = await asyncio.get_running_loop().create_server(Noting, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def address(self) -> str:
        return f"endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.port}}}}}}}"


class Http1(asyncio.Protocol):
    """Answers every head with 200."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


class Telling(Http1):
    """Answers with the address that it sees."""

    def data_received(self, data: bytes) -> None:
        host = self.transport.get_extra_info("peername")[0].encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(host), host))


class Dubbo(asyncio.Protocol):
    """Answers every call, whole frames only."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 16 and len(self.buffer) >= (size := 16 + int.from_bytes(self.buffer[12:16], "big")):
            frame, self.buffer = self.buffer[:size], self.buffer[size:]
            if frame[2] & 0xE0 == 0xC0:
                self.transport.write(wire.answer(id_of(frame)))


class Echo(Http1):
    """What comes goes back."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]
callers_left: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def plane(yaml: str) -> AsyncIterator[Plane]:
    """A data plane whose callers have left at the end."""
    async with bare_plane(yaml) as one:
        try:
            yield one
        finally:
            await all_left(one)


async def all_left(*made: Plane) -> None:
    while callers_left:
        writer = callers_left.pop()
        writer.transport.abort()
    await until(lambda: not any(one.data.active_connections for one in made))


async def connect(one: Plane, listener: str, host: str) -> Caller:
    """From one of this machine's addresses."""
    port = next(port for (name, _), port in one.ports.items() if name == listener)
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for bind_port: both ends are on this machine
    sock.bind((host, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock)
    callers_left.append(writer)
    return reader, writer


async def asked(connection: Caller, request: bytes = GET) -> bytes:
    reader, writer = connection
    writer.write(request)
    found = await head(reader)
    size = int(found.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return found + await reader.readexactly(size)


def endpoint_of(one: Plane, name: str = "a") -> Endpoint:
    cluster = one.data._context.clusters.get(name)
    assert cluster is not None
    return cluster.endpoints[0]


def pools_of(one: Plane) -> int:
    return len(endpoint_of(one).pools)


def test_http1_connections_are_of_one_caller_each(no_rights_needed: None) -> None:
    """Keep-alive connections are used again, for connections from the same address only."""

    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            first, second = [await connect(one, "web", host) for host in (FIRST, SECOND)]
            for _ in range(3):
                for caller in (first, second):
                    assert (await asked(caller)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]
            again = await connect(one, "web", FIRST)
            await asked(again)
            assert there.hosts == [FIRST, SECOND]
            assert one.stat("cluster.a.", "upstream_cx_active") == 2

    run(test())


def test_http2_connections_are_of_one_caller_each(no_rights_needed: None) -> None:
    async def test() -> None:
        http2 = options("explicit_http_config: {http2_protocol_options: {}}")
        async with (
            Endpoints().serving(Grpc) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=http2)) as one,
        ):
            callers = [await connect(one, "web", host) for host in (FIRST, SECOND, FIRST, SECOND)]
            for reader, writer in callers:
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok")
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]

    run(test())


def dubbo_yaml(there: Endpoints, *, filtered: bool = True, **fields: str) -> str:
    text = bootstrap({}, **fields)  # type: ignore[arg-type]
    cluster = f"  - {{name: a, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{{{there.address()}}}]}}]}}}}\n"
    text += cluster
    return text.replace("    filter_chains:", f"    {FILTER}\n    filter_chains:", 1) if filtered else text


def test_dubbo_connections_are_of_one_consumer_each(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there, plane(dubbo_yaml(there)) as one:
            consumers = [await connect(one, "dubbo", host) for host in (FIRST, SECOND, FIRST)]
            for number in range(3):
                for reader, writer in consumers:
                    writer.write(wire.call(request_id=number))
                    assert await read_frame(reader) == wire.answer(number)
            assert there.hosts == [FIRST, SECOND]

    run(test())


def test_tcp(no_rights_needed: None) -> None:
    async def test() -> None:
        text = web(endpoint="<endpoint>").replace("- name: tcp\n", f"- name: tcp\n    {FILTER}\n")
        async with Endpoints().serving(Echo) as there, plane(text.replace("<endpoint>", there.address())) as one:
            for host in (FIRST, SECOND):
                reader, writer = await connect(one, "tcp", host)
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            assert there.hosts == [FIRST, SECOND]

    run(test())


def test_without_the_filter_everybody_shares(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(endpoint=there.address())) as one:
            for host in (FIRST, SECOND):
                caller = await connect(one, "web", host)
                await asked(caller)
            assert there.hosts == ["127.0.0.1"]

    run(test())


def test_two_listeners_with_and_without_the_filter(no_rights_needed: None) -> None:
    """The pools of a cluster that both use are not mixed up, whoever comes first, also where requests go by their plans."""

    async def test() -> None:
        text = web(listener=FILTER, endpoint="<endpoint>")
        plain = text[text.index("  - name: web") : text.index("  - name: tcp")].replace("name: web", "name: plain")
        text = text.replace("  - name: tcp", plain.replace(FILTER, "") + "  - name: tcp", 1)
        async with Endpoints().serving(Telling) as there, plane(text.replace("<endpoint>", there.address())) as one:
            for listener in ("plain", "web", "plain", "web"):
                caller = await connect(one, listener, FIRST)
                for _ in range(6):  # so that its head becomes a known one
                    answer = await asked(caller)
                    assert answer.endswith(b"127.0.0.1" if listener == "plain" else FIRST.encode())
            assert there.hosts == ["127.0.0.1", FIRST]

    run(test())


def test_bind_port(no_rights_needed: None) -> None:
    """The caller's port, too."""

    async def test() -> None:
        listener = FILTER.replace("OriginalSrc}", "OriginalSrc, bind_port: true}")
        async with Endpoints().serving(Http1) as there, plane(web(listener=listener, endpoint=there.address())) as one:
            callers = [await connect(one, "web", FIRST) for _ in range(2)]
            for caller in callers:
                await asked(caller)
            assert there.peers == [writer.get_extra_info("sockname") for _, writer in callers]

    run(test())


@pytest.mark.parametrize("http2", [False, True])
def test_pools_go_when_they_are_idle(no_rights_needed: None, http2: bool) -> None:
    async def test() -> None:
        http = "http2_protocol_options: {}" if http2 else "http_protocol_options: {}"
        cluster = options(f"{FAST_IDLE}, explicit_http_config: {{{http}}}")
        kind = Grpc if http2 else Http1
        async with (
            Endpoints().serving(kind) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=cluster)) as one,
        ):
            callers = [await connect(one, "web", f"127.0.0.{number}") for number in range(21, 26)]
            for reader, writer in callers:
                writer.write(GET)
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
            assert len(set(there.hosts)) == 5
            await until(lambda: pools_of(one) == 0 and there.open == 0)
            assert one.stat("cluster.a.", "upstream_cx_idle_timeout") == 5

    run(test())


def test_a_dubbo_pool_goes_with_its_connection(no_rights_needed: None) -> None:
    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there, plane(dubbo_yaml(there)) as one:
            reader, writer = await connect(one, "dubbo", FIRST)
            writer.write(wire.call(request_id=1))
            await read_frame(reader)
            [pool] = endpoint_of(one).pools.values()
            pool.drain()
            await until(lambda: pools_of(one) == 0)
            writer.write(wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            assert there.hosts == [FIRST, FIRST]

    run(test())


def test_too_many_callers(no_rights_needed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle pool makes room for another caller; where all are busy the request is refused."""
    monkeypatch.setattr(source_pools.make_room, "__defaults__", (3,))
    waiting: list[Any] = []

    class Holding(Http1):
        def data_received(self, data: bytes) -> None:
            if b"/hold" in data:
                waiting.append(self.transport)
            else:
                super().data_received(data)

    async def test() -> None:
        async with Endpoints().serving(Holding) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            callers = [await connect(one, "web", f"127.0.0.{number}") for number in range(21, 31)]
            for caller in callers:
                assert (await asked(caller)).startswith(b"HTTP/1.1 200")
                assert pools_of(one) <= 3
            await until(lambda: there.open == 3)
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 0
            for _, writer in callers[:3]:
                writer.write(GET.replace(b"GET /", b"GET /hold"))
            await until(lambda: len(waiting) == 3)
            answer = await asked(callers[3])
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"reset reason: overflow" in answer
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 1
            for transport in waiting:
                transport.write(ANSWER)
            for reader, _ in callers[:3]:
                assert (await head(reader)).startswith(b"HTTP/1.1 200")

    run(test())


def test_too_many_consumers(no_rights_needed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_pools.make_room, "__defaults__", (1,))

    class Holding(Dubbo):
        def data_received(self, data: bytes) -> None:
            pass

    async def test() -> None:
        async with Endpoints().serving(Holding) as there, plane(dubbo_yaml(there)) as one:
            first, second = [await connect(one, "dubbo", host) for host in (FIRST, SECOND)]
            first[1].write(wire.call(request_id=1))
            await until(lambda: there.open == 1)
            second[1].write(wire.call(request_id=2))
            frame = await read_frame(second[0])
            assert (id_of(frame), frame[3] == 20) == (2, False)
            assert there.hosts == [FIRST]
            assert one.stat("cluster.a.", "upstream_cx_pool_overflow") == 1

    run(test())


def test_the_circuit_breaker_counts_the_connections_of_all_callers(no_rights_needed: None) -> None:
    """Beyond it each caller still gets one connection, as with Envoy, whose pools are as many."""

    async def test() -> None:
        cluster = "circuit_breakers: {thresholds: [{max_connections: 1}]}"
        async with (
            Endpoints().serving(Http1) as there,
            plane(web(listener=FILTER, endpoint=there.address(), cluster=cluster)) as one,
        ):
            for host in (FIRST, SECOND):
                caller = await connect(one, "web", host)
                assert (await asked(caller)).startswith(b"HTTP/1.1 200")
            assert there.hosts == [FIRST, SECOND]
            assert one.stat("cluster.a.", "upstream_cx_overflow") == 1
            assert one.stat("cluster.a.", "upstream_cx_active") == 2

    run(test())


def test_a_moved_connection_keeps_its_source(no_rights_needed: None) -> None:
    """Hot upgrade: the new process calls in the caller's name too."""

    async def test() -> None:
        async with Endpoints().serving(Dubbo) as there:
            text = dubbo_yaml(there)
            async with planes(text, text) as [old, new]:
                reader, writer = await connect(old, "dubbo", FIRST)
                writer.write(wire.call(request_id=1))
                await read_frame(reader)
                await Handing(old, new).begin().done()
                writer.write(wire.call(request_id=2))
                assert await read_frame(reader) == wire.answer(2)
                assert there.hosts == [FIRST, FIRST]
                assert endpoint_of(new).pools
                await all_left(old, new)

    run(test())


class Refusing:
    """A socket that cannot be made transparent."""

    family = socket.AF_INET

    def setsockopt(self, *_: int) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_without_the_right(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Said once at the start; then connections fail as Envoy's do."""

    def refuse(sock: socket.socket) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(original_source, "make_transparent", refuse)
    monkeypatch.setattr(SourceKeeper, "missing", lambda self: "IP_TRANSPARENT cannot be set (…): the proxy needs CAP_NET_ADMIN")

    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            caller = await connect(one, "web", FIRST)
            for number in (1, 2):
                answer = await asked(caller)
                assert answer.startswith(b"HTTP/1.1 503")
                text = b"upstream connect error or disconnect/reset before headers. reset reason: local connection failure"
                assert answer.endswith(b"\r\n\r\n" + text)
                for name in ("upstream_cx_connect_fail", "upstream_cx_destroy_local", "upstream_cx_total"):
                    assert one.stat("cluster.a.", name) == number
            assert one.stat("cluster.a.", "upstream_cx_destroy_remote") == 0
            assert not there.peers
            assert pools_of(one) == 0

    with caplog.at_level(logging.WARNING):
        run(test())
    assert [record.getMessage() for record in caplog.records if "original_src" in record.getMessage()] == [
        "listener web: original_src: IP_TRANSPARENT cannot be set (…): the proxy needs CAP_NET_ADMIN. "
        "Until then its connections to endpoints fail"
    ]


@pytest.mark.parametrize(("user", "transparent", "warnings"), [(1337, True, 1), (0, True, 0), (1337, False, 0)])
def test_the_user_whose_connections_come_back(
    no_rights_needed: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    user: int,
    transparent: bool,
    warnings: int,
) -> None:
    """As user 1337 behind TPROXY the proxy would call itself: that is said at the start."""
    monkeypatch.setattr(original_source.os, "geteuid", lambda: user)

    async def test() -> None:
        async with plane(web(listener=f"{FILTER}\ntransparent: {str(transparent).lower()}")):
            pass

    with caplog.at_level(logging.WARNING):
        run(test())
    said = [record.getMessage() for record in caplog.records if "original_src" in record.getMessage()]
    assert len(said) == warnings
    assert all("run it as user 0, group 1337" in one for one in said)


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(Refusing):
        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(original_source.socket, "socket", Probe)
    assert SourceKeeper(1337).missing() == "SO_MARK cannot be set (Operation not permitted): the proxy needs CAP_NET_ADMIN"
    assert SourceKeeper(0).missing() == "IP_TRANSPARENT cannot be set (Operation not permitted): the proxy needs CAP_NET_ADMIN"


class Noted:
    """A socket that notes what it is told."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.told: list[tuple[Any, ...]] = []

    def setsockopt(self, *words: int) -> None:
        self.told.append(words)

    def bind(self, address: tuple[str, int]) -> None:
        self.told.append(("bind", *address))


@pytest.mark.parametrize(
    ("source", "family", "told"),
    [
        (
            OriginalSource("10.0.0.1", 0, 1337),
            socket.AF_INET,
            [(socket.SOL_SOCKET, socket.SO_MARK, 1337), (0, 19, 1), (0, 24, 1), ("bind", "10.0.0.1", 0)],
        ),
        (OriginalSource("fd00::1", 0, 0), socket.AF_INET6, [(41, 75, 1), (0, 24, 1), ("bind", "fd00::1", 0)]),
        (
            OriginalSource("fd00::1", 9, 0),
            socket.AF_INET6,
            [(41, 75, 1), (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), ("bind", "fd00::1", 9)],
        ),
    ],
)
def test_options_of_the_socket(source: OriginalSource, family: int, told: list[tuple[Any, ...]]) -> None:
    sock = Noted(family)
    source.bind(sock)  # type: ignore[arg-type]
    assert sock.told == told


def test_an_endpoint_of_the_other_ip_version(no_rights_needed: None) -> None:
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(LocalConnectFailed) as caught:
        OriginalSource("127.0.0.9", 0, 0).bind(sock)
    assert str(caught.value) == "failed to bind to 127.0.0.9:0: Invalid argument"


def test_as_istiod_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    """virtualInbound with TPROXY: the filter stands after original_dst, and nothing about it is refused, ignored or warned of."""
    with caplog.at_level(logging.INFO):
        loaded = load_bootstrap(None, json.dumps(configuration(transparent=True, original_src=True)))
    assert [
        record.getMessage() for record in caplog.records if "source" in record.getMessage() or "src" in record.getMessage()
    ] == []
    inbound = loaded.listeners[0]
    assert [one.type_url.rpartition(".")[2] for one in inbound.listener_filters] == [
        "OriginalDst",
        "OriginalSrc",
        "HttpInspector",
    ]
    keeper = keeper_of(inbound)
    assert keeper is not None
    assert keeper.source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 0, 1337)


def test_whose_source() -> None:
    keeper = SourceKeeper(1337)
    assert keeper.source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 0, 1337)
    assert keeper.source_of(("::ffff:10.0.0.1", 5000, 0, 0), 80) == OriginalSource("10.0.0.1", 0, 1337)
    assert keeper.source_of(("fe80::1%eth0", 5000, 0, 2), 80) == OriginalSource("fe80::1%eth0", 0, 1337)
    assert keeper.source_of("", 0) is None, "a unix socket's"
    assert SourceKeeper(0, bind_port=True).source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 5000, 0)
    some = SourceKeeper(1, disabled=compile_predicate(PortPredicateConfig(kind="range", start=80, end=81)))
    assert some.source_of(("10.0.0.1", 5000), 80) is None
    assert some.source_of(("10.0.0.1", 5000), 81) is not None


def test_pools_are_told_apart_by_address_port_and_mark() -> None:
    sources = [OriginalSource(host, port, mark) for host in ("10.0.0.1", "::1") for port in (0, 1) for mark in (0, 1)]
    assert len({one.key for one in sources}) == len(sources)


def test_keeper_of_a_listener() -> None:
    class Config:
        listener_filters = tuple(
            ListenerFilterConfig(name="s", type_url=f"x.{kind}", config=config)
            for kind, config in (("OriginalDst", None), ("OriginalSrc", {"mark": 7, "bind_port": False}))
        )

    found = keeper_of(Config)  # type: ignore[arg-type]
    assert found is not None
    assert found.source_of(("10.0.0.1", 1), 80) == OriginalSource("10.0.0.1", 0, 7)
    Config.listener_filters = Config.listener_filters[:1]
    assert keeper_of(Config) is None  # type: ignore[arg-type]
