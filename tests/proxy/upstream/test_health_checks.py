"""Active health checks against real sockets: thresholds, all three kinds of check, what requests see of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from bootstraps import options, web
from http2_support.serving import ServerProtocol
from plane_support import GET, Plane, at, head, plane, run, until, upstream

from mesh_codecs.events import Data, ResponseHeaders, Trailers
from mesh_codecs.grpc import frame
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Settings
from mesh_proxy.config.model import AddressConfig

QUICK = "timeout: 5s, interval: 0.01s, no_traffic_interval: 0.01s"
HC = "cluster.a.health_check."


def check(kind: str, *, healthy: int = 1, unhealthy: int = 1, times: str = QUICK) -> str:
    return f"health_checks: [{{{times}, healthy_threshold: {healthy}, unhealthy_threshold: {unhealthy}, {kind}}}]"


HTTP2 = ", " + options("explicit_http_config: {http2_protocol_options: {}}")
HTTP = "http_health_check: {path: /hc}"
NO_PANIC = ", common_lb_config: {healthy_panic_threshold: {value: 0}}"


class Clinic:
    """An HTTP/1 endpoint whose answer to checks can be changed."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        self.connections = 0
        self.checks = 0
        self.silent = False

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await head(reader):
                if request.startswith(b"GET /hc"):
                    self.checks += 1
                    if not self.silent:
                        writer.write(self.answer)
                else:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ncall")
        except asyncio.IncompleteReadError:
            pass


async def call(one: Plane, headers: bytes = b"") -> bytes:
    """The status line that a caller gets."""
    reader, writer = await one.connect("web")
    writer.write(GET[:-2] + headers + b"\r\n")
    answer = await head(reader)
    writer.close()
    return answer.partition(b"\r\n")[0]


def health(one: Plane, name: str) -> int:
    return int(one.stat(HC, name))


def flags(one: Plane) -> list[str]:
    return list(one.data.describe_clusters()[0]["endpoints"][0]["health_flags"])


def test_verdicts_follow_the_answers() -> None:
    async def test() -> None:
        clinic = Clinic()
        async with upstream(clinic) as address, plane(web(endpoint=at(address), cluster=check(HTTP) + NO_PANIC)) as one:
            # The start waits for the first check.
            assert health(one, "healthy") == 1
            assert await call(one) == b"HTTP/1.1 200 OK"
            clinic.answer = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
            await until(lambda: health(one, "healthy") == 0)
            assert flags(one) == ["failed_active_hc"]
            assert await call(one) == b"HTTP/1.1 503 Service Unavailable"
            clinic.answer = b"HTTP/1.1 200 OK\r\nx-envoy-degraded: 1\r\ncontent-length: 0\r\n\r\n"
            await until(lambda: health(one, "healthy") == 1)
            assert flags(one) == ["degraded_active_hc"]
            assert health(one, "degraded") == 1
            assert one.stat("cluster.a.", "membership_degraded") == 1
            assert await call(one) == b"HTTP/1.1 200 OK"
            assert clinic.connections == 3, "one for the checks; the calls' was closed when the endpoint failed"

    run(test())


def test_thresholds() -> None:
    """Broken connections and silence count up to the threshold; so do successes on the way back."""

    async def test() -> None:
        clinic = Clinic()
        config = check(HTTP, healthy=3, unhealthy=3, times="timeout: 1s, interval: 0.01s, no_traffic_interval: 0.01s")
        async with upstream(clinic) as address, plane(web(endpoint=at(address), cluster=config)) as one:
            await until(lambda: health(one, "healthy") == 1)
            clinic.silent = True
            await until(lambda: health(one, "healthy") == 0)
            assert health(one, "network_failure") >= 3
            assert flags(one) == ["failed_active_hc", "active_hc_timeout"]
            before = health(one, "success")
            clinic.silent = False
            await until(lambda: health(one, "healthy") == 1)
            assert health(one, "success") >= before + 3
            assert flags(one) == []

    run(test())


def test_connections_are_kept_or_not() -> None:
    async def test() -> None:
        for reuse in (True, False):
            clinic = Clinic()
            config = check(HTTP)[:-2] + f", reuse_connection: {str(reuse).lower()}}}]"
            async with upstream(clinic) as address, plane(web(endpoint=at(address), cluster=config)):
                await until(lambda clinic=clinic: clinic.checks >= 4)  # type: ignore[misc]
                assert (clinic.connections == 1) is reuse

    run(test())


def test_immediate_failure_in_a_response() -> None:
    """`x-envoy-immediate-health-check-fail` in any response takes the endpoint out until a check is good."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await head(reader):
                extra = b"" if request.startswith(b"GET /hc") else b"x-envoy-immediate-health-check-fail: true\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n" + extra + b"content-length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass

    async def test() -> None:
        config = check(HTTP, times="timeout: 5s, interval: 60s")
        async with upstream(serve) as address, plane(web(endpoint=at(address), cluster=config)) as one:
            assert await call(one) == b"HTTP/1.1 200 OK"
            assert health(one, "passive_failure") == 1
            assert flags(one) == ["failed_active_hc", "excluded_via_immediate_hc_fail"]
            assert one.stat("cluster.a.", "membership_excluded") == 1

    run(test())


def test_tcp_with_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readexactly(4) == b"ping":
            writer.write(b"+po")
            await writer.drain()
            writer.write(b"ng\r\n")

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        asks = f"tcp_health_check: {{send: {{text: '{b'ping'.hex()}'}}, receive: [{{text: '{b'pong'.hex()}'}}]}}"
        async with upstream(serve) as address, plane(web(endpoint=at(address), cluster=check(asks))) as one:
            await until(lambda: health(one, "success") >= 3)
            assert health(one, "failure") == 0
        times = "timeout: 0.05s, interval: 60s"
        async with upstream(quiet) as address, plane(web(endpoint=at(address), cluster=check(asks, times=times))) as one:
            assert health(one, "network_failure") == 1

    run(test())


class HealthServer(ServerProtocol):
    """grpc.health.v1 over our codec, as the test wants it."""

    reply: Callable[[ServerProtocol, int], None]
    bodies: list[bytes]  # set by the test

    def handle(self, event: object) -> None:
        if isinstance(event, Data):
            self.bodies.append(event.data)
        super().handle(event)  # type: ignore[arg-type]

    def answer(self, stream_id: int) -> None:
        type(self).reply(self, stream_id)


def serving(message: bytes, status: bytes = b"0") -> Callable[[ServerProtocol, int], None]:
    def reply(server: ServerProtocol, stream_id: int) -> None:
        server.codec.send(ResponseHeaders(stream_id, 200, Headers([(b"content-type", b"application/grpc")]), False))
        server.codec.send(Data(stream_id, frame(message), False))
        server.codec.send(Trailers(stream_id, Headers([(b"grpc-status", status)])))

    return reply


def trailers_only(server: ServerProtocol, stream_id: int) -> None:
    headers = Headers([(b"content-type", b"application/grpc"), (b"grpc-status", b"12")])
    server.codec.send(ResponseHeaders(stream_id, 200, headers, True))


def plain(server: ServerProtocol, stream_id: int) -> None:
    server.codec.send(ResponseHeaders(stream_id, 200, Headers([(b"content-type", b"text/plain")]), True))


@asynccontextmanager
async def health_server(reply: Callable[[ServerProtocol, int], None]) -> AsyncIterator[tuple[AddressConfig, list[bytes]]]:
    bodies: list[bytes] = []
    kind = type("Server", (HealthServer,), {"reply": reply, "bodies": bodies})
    server = await asyncio.get_running_loop().create_server(lambda: kind(Http2Settings(), "mesh"), "127.0.0.1", 0)
    try:
        yield AddressConfig(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), bodies
    finally:
        server.close()


@pytest.mark.parametrize(
    ("reply", "healthy"),
    [
        (serving(b"\x08\x01"), 1),
        (serving(b"\x08\x02"), 0),
        (serving(b""), 0),
        (serving(b"\x08"), 0),
        (serving(b"\x08\x01", b"14"), 0),
        (trailers_only, 0),
        (plain, 0),
    ],
    ids=["serving", "not serving", "unknown", "broken", "unavailable", "unimplemented", "not grpc"],
)
def test_grpc(reply: Callable[[ServerProtocol, int], None], healthy: int) -> None:
    async def test() -> None:
        config = check("grpc_health_check: {service_name: a.B}") + HTTP2
        async with health_server(reply) as (address, bodies), plane(web(endpoint=at(address), cluster=config)) as one:
            await until(lambda: health(one, "attempt") >= 3)
            assert health(one, "healthy") == healthy
            assert health(one, "network_failure") == 0
            assert bodies[0] == b"\0\0\0\0\5\x0a\3a.B"

    run(test())


def test_nobody_there() -> None:
    async def test() -> None:
        async with upstream(Clinic()) as address:
            pass
        for kind in (HTTP, "tcp_health_check: {}", "grpc_health_check: {}"):
            async with plane(web(endpoint=at(address), cluster=check(kind) + NO_PANIC + HTTP2)) as one:
                assert health(one, "healthy") == 0
                assert health(one, "network_failure") >= 1
                assert await call(one) == b"HTTP/1.1 503 Service Unavailable"

    run(test())


def test_endpoint_that_is_not_checked() -> None:
    async def test() -> None:
        async with upstream(Clinic()) as address:
            where = at(address)[:-1] + ", health_check_config: {disable_active_health_check: true}}"
            async with plane(
                web(endpoint=where, cluster=check("tcp_health_check: {send: {text: ff}, receive: [{text: ff}]}"))
            ) as one:
                assert health(one, "attempt") == 0
                assert await call(one) == b"HTTP/1.1 200 OK"

    run(test())


def test_a_change_of_configuration() -> None:
    """Checks that are dropped from the configuration leave no verdict behind."""

    async def test() -> None:
        clinic = Clinic()
        clinic.answer = b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"
        async with upstream(clinic) as address, plane(web(endpoint=at(address), cluster=check(HTTP) + NO_PANIC)) as one:
            assert await call(one) == b"HTTP/1.1 503 Service Unavailable"
            await one.apply(web(endpoint=at(address), cluster="common_lb_config: {healthy_panic_threshold: {value: 0}}"))
            assert await call(one) == b"HTTP/1.1 200 OK"
            await one.apply(web(endpoint=at(address), cluster=check(HTTP) + NO_PANIC))
            assert await call(one) == b"HTTP/1.1 503 Service Unavailable"

    run(test())
