"""Heads that come again are not worked out again, and nobody can tell: over real sockets within one process."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest
from bootstraps import web
from build_support import COMPILED
from http1_support import forget_heads
from http2_support.caller import Caller
from plane_support import ANSWER, at, head, plane, run, upstream

from mesh_proxy.stream.http_stream import HttpStream

TIMES = 8
"""the caller's encoder says a head in the same bytes from the third time on"""
_ID = re.compile(rb"x-request-id: [0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}\r\n")
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"grpc-timeout", b"5S"))
OWN_ID = ((b"x-request-id", b"mine"),)
WAY = ((b"x-forwarded-for", b"192.0.2.7"), (b"x-envoy-internal", b"true"), (b"user-agent", b"u"))


class Heads:
    """What an endpoint over HTTP/1 gets."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                self.raw.append(await head(reader))
                writer.write(ANSWER)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths of the requests that went as planned, which compiled code does not tell."""
    forget_heads()
    seen: list[bytes] = []
    if COMPILED:
        return seen
    whole = HttpStream._start_as_planned

    def counted(stream: HttpStream, *arguments: object) -> None:
        seen.append(stream.request.path)
        whole(stream, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpStream, "_start_as_planned", counted)
    at_once = HttpStream.start_at_once

    def counted_too(stream: HttpStream, *arguments: object) -> None:
        seen.append(stream.request.path)
        at_once(stream, *arguments)  # type: ignore[arg-type]

    over_http2 = HttpStream.start_over_http2

    def counted_as_well(stream: HttpStream, *arguments: object) -> None:
        seen.append(stream.request.path)
        over_http2(stream, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HttpStream, "start_at_once", counted_too)
    monkeypatch.setattr(HttpStream, "start_over_http2", counted_as_well)
    return seen


@pytest.mark.parametrize("fields", [(), GRPC, OWN_ID, WAY], ids=["none", "grpc", "own id", "forwarded"])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"hcm": "use_remote_address: true"},
        {"hcm": "use_remote_address: true, via: here, preserve_external_request_id: true"},
        {"hcm": "use_remote_address: true, xff_num_trusted_hops: 1, append_x_forwarded_port: true"},
        {"hcm": "generate_request_id: false"},
        {"hcm": "internal_address_config: {cidr_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}"},
        {"action": "timeout: 3s"},
        {"action": "timeout: 0s, prefix_rewrite: /new, host_rewrite_literal: other"},
        {"action": "max_grpc_timeout: 1s"},
        {"action": "max_stream_duration: {grpc_timeout_header_max: 2s}"},
        {"action": "retry_policy: {retry_on: 5xx, num_retries: 2}"},
        {"host": "include_request_attempt_count: true"},
        {"match": "headers: [{name: x-forwarded-proto, string_match: {exact: http}}]"},
        {"table": "request_headers_to_add: [{header: {key: x-n, value: '%START_TIME(%s)%'}}]"},
    ],
    ids=str,
)
def test_an_endpoint_sees_no_difference(
    parts: dict[str, str], fields: tuple[tuple[bytes, bytes], ...], planned: list[bytes]
) -> None:
    heads = Heads()

    async def body() -> None:
        async with upstream(heads.serve) as address, plane(web(endpoint=at(address), **parts)) as one:
            for _ in range(2):  # connections share their plans
                caller = Caller(*await one.connect("web"))
                for _ in range(TIMES):
                    got = await caller.answer(caller.request(b"/x?y=1", headers=fields))
                    assert (got.status, got.body) == (200, b"ok")
                caller.writer.close()
            assert one.stat("http.web.", "rq_total") == 2 * TIMES
            assert one.stat("cluster.a.", "upstream_rq_total") == 2 * TIMES
            assert one.stat("http.web.", "downstream_rq_active") == 0

    run(body())
    plain = {re.sub(rb"x-n: \d+\r\n", b"", _ID.sub(b"x-request-id: new\r\n", one)) for one in heads.raw}
    assert len(heads.raw) == 2 * TIMES
    assert len(plain) == 1
    ids = [found.group() for one in heads.raw if (found := _ID.search(one)) is not None]
    assert len(set(ids)) == len(ids)
    assert COMPILED or bool(planned) == ("max_stream_duration" not in str(parts))


@pytest.mark.parametrize(
    ("hcm", "fields"),
    [
        ("normalize_path: true", ()),
        ("add_user_agent: true", ()),
        ("", ((b"expect", b"100-continue"),)),
        ("", ((b"x-twice", b"1"), (b"x-twice", b"2"))),
        ("", ((b"x-long", b"l" * 3000),)),
    ],
)
def test_what_may_differ_is_worked_out_each_time(hcm: str, fields: tuple[tuple[bytes, bytes], ...], planned: list[bytes]) -> None:
    heads = Heads()

    async def body() -> None:
        async with upstream(heads.serve) as address, plane(web(endpoint=at(address), hcm=hcm)) as one:
            caller = Caller(*await one.connect("web"))
            for _ in range(TIMES):
                assert (await caller.answer(caller.request(headers=fields))).status == 200
            caller.writer.close()

    run(body())
    assert len(heads.raw) == TIMES
    assert planned == []


GET = b"GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: u\r\nx-envoy-internal: true\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"


@pytest.mark.parametrize("sent", [GET, POST], ids=["get", "post"])
def test_connection_managers_share_heads_but_no_plans(sent: bytes, planned: list[bytes]) -> None:
    """HTTP/1 heads are known by their bytes in the whole process."""
    seen: dict[str, set[bytes]] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                got = await head(reader)
                if b"content-length: 2" in got:
                    assert await reader.readexactly(2) == b"hi"
                current.add(_ID.sub(b"x-request-id: new\r\n", got))
                writer.write(ANSWER)

    async def body(hcm: str) -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address), hcm=hcm)) as one:
            for _ in range(2):
                reader, writer = await one.connect("web")
                for _ in range(4):
                    writer.write(sent)
                    assert (await head(reader)).startswith(b"HTTP/1.1 200 OK")
                    assert await reader.readexactly(2) == b"ok"
                writer.close()

    for hcm in ("", "use_remote_address: true", "generate_request_id: false", "via: me", "", "use_remote_address: true"):
        current = seen.setdefault(hcm, set())
        run(body(hcm))
    assert [len(heads) for heads in seen.values()] == [1, 1, 1, 1]
    assert len(set().union(*seen.values())) == 4
    assert COMPILED or len(planned) == 6 * 8 - 6 - 1  # the first of all is not known, the first of each manager not planned


def test_a_lot_is_drawn_each_time(planned: list[bytes]) -> None:
    """A route with a share of the requests."""

    async def body() -> None:
        match = "runtime_fraction: {default_value: {numerator: 50}}"
        async with upstream(Heads().serve) as address, plane(web(endpoint=at(address), match=match)) as one:
            caller = Caller(*await one.connect("web"))
            seen = set()
            while seen != {200, 404}:
                seen.add((await caller.answer(caller.request())).status)
            for _ in range(TIMES):
                await caller.answer(caller.request())
            caller.writer.close()

    run(body())
    assert planned == []


def test_a_cluster_may_change_under_a_plan(planned: list[bytes]) -> None:
    """Endpoints are looked up each time."""

    async def body() -> None:
        async with upstream(Heads().serve) as address, plane(web(endpoint=at(address))) as one:
            caller = Caller(*await one.connect("web"))
            for _ in range(TIMES):
                assert (await caller.answer(caller.request())).status == 200
            assert COMPILED or planned
            await one.apply(web(endpoint="health_status: UNHEALTHY", cluster="common_lb_config: {healthy_panic_threshold: {}}"))
            assert (await caller.answer(caller.request())).status == 503
            caller.writer.close()

    run(body())
