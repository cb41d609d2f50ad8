"""Copies of requests: what becomes of those that nobody answers."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import web
from plane_support import GET, answer, at, head, plane, run, until, upstream

from mesh_proxy.stream import shadow

POST = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"


@pytest.mark.parametrize("request_bytes", [GET, POST])
def test_a_copy_that_nobody_answers_gives_its_slot_back(request_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the route has no time-out."""
    monkeypatch.setattr(shadow, "RESPONSE_S", 0.1)
    over = asyncio.Event()

    async def body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        if request_bytes is POST:
            await reader.readexactly(3)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await answer(reader, writer)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async def test() -> None:
        async with upstream(body) as first, upstream(silent) as second:
            b = f"load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{{{at(second)}}}]}}]}}"
            text = web(endpoint=at(first), action="timeout: 0s, request_mirror_policies: [{cluster: b}]")
            async with plane(text.replace("{name: b}", f"{{name: b, {b}}}")) as one:
                reader, writer = await one.connect("web")
                writer.write(request_bytes)
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
                await until(lambda: one.stat("cluster.b.", "upstream_rq_timeout") == 1)
                assert one.stat("cluster.b.", "upstream_rq_active") == 0
                found = one.data._context.clusters.get("b")
                assert found is not None
                assert found.default.requests == 0
                writer.close()
                over.set()

    run(test())
