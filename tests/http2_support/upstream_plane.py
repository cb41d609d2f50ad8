"""A data plane in front of an HTTP/2 peer, in the test's process, and HTTP/1 callers of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bootstraps import options, web
from e2e_support.peers import Peer
from plane_support import Plane, at, plane

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.upstream.http2_pool import Http2Pool

ROUTE = "match: {prefix: /}, route: {cluster: a, timeout: 0s}"


def address(peer: Peer) -> AddressConfig:
    return AddressConfig(host="127.0.0.1", port=peer.port)


def config(peer: Peer, http2: str = "", *, common: str = "", cluster: str = "", route: str = ROUTE, hcm: str = "") -> str:
    """A bootstrap whose cluster `a` is the peer; `http2` and `common` are fields of Http2ProtocolOptions and the common ones."""
    kind = options(
        f"explicit_http_config: {{http2_protocol_options: {{{http2}}}}}"
        + (f", common_http_protocol_options: {{{common}}}" if common else "")
    )
    return web(endpoint=at(address(peer)), cluster=f"{kind}, {cluster}" if cluster else kind, route=route, hcm=hcm)


@asynccontextmanager
async def proxied(yaml: str) -> AsyncIterator[Plane]:
    """The plane; at the end nothing may be under way."""
    async with plane(yaml) as one:
        yield one
        for name in ("upstream_rq_active", "upstream_rq_pending_active"):
            await settled(one, name, 0)


async def settled(one: Plane, name: str, value: int, prefix: str = "cluster.a.") -> None:
    """Wait until a statistic has a value."""
    while one.stat(prefix, name) != value:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@dataclass
class Answer:
    status: int
    head: bytes
    body: bytes


def request(path: str = "/", method: str = "GET", body: bytes = b"", *fields: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "host: a.test", *fields]
    if body:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One response with a content-length or in chunks, or none of both without a body."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lower = head.lower()
    if b"\r\ncontent-length: " in lower:
        size = int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        return Answer(status, head, await reader.readexactly(size))
    body = b""
    if b"\r\ntransfer-encoding: chunked" in lower:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            head += line
    return Answer(status, head, body)


async def call(one: Plane, data: bytes = b"") -> Answer:
    """One request on a connection of its own."""
    reader, writer = await one.connect("web")
    try:
        writer.write(data or request())
        return await read_answer(reader)
    finally:
        writer.close()


async def calls(one: Plane, count: int, data: bytes = b"") -> Sequence[Answer]:
    """So many at the same time."""
    return await asyncio.gather(*(call(one, data) for _ in range(count)))


def pool_of(one: Any) -> Http2Pool:
    """Of the only endpoint of cluster `a`."""
    cluster = one.data._context.clusters.get("a")
    found = cluster.endpoints[0].pools["http2"]
    assert isinstance(found, Http2Pool)
    return found
