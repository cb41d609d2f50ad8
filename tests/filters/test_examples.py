"""The configurations in docs/examples are accepted, and two of them do what their comments say."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from plane_support import Plane, head, plane, run, upstream

from mesh_proxy.config.loader import load_bootstrap

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads(path: Path) -> None:
    bootstrap = load_bootstrap(None, path.read_text())
    assert bootstrap.listeners
    assert bootstrap.clusters


async def served(stack: AsyncExitStack, name: str) -> Plane:
    """The example, with an endpoint on loopback for each address, which says where it should be."""
    text = (EXAMPLES / name).read_text()
    for ip, port in dict.fromkeys(
        re.findall(r"endpoint: {address: {socket_address: {address: ([\d.]+), port_value: (\d+)}}}", text)
    ):

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str = ip) -> None:
            while await head(reader):
                writer.write(f"HTTP/1.1 200 OK\r\nx-who: {ip}\r\ncontent-length: 0\r\n\r\n".encode())

        address = await stack.enter_async_context(upstream(serve))
        text = text.replace(f"address: {ip}, port_value: {port}", f"address: 127.0.0.1, port_value: {address.port}")
    return await stack.enter_async_context(plane(text))


async def ask(proxy: Plane, listener: str, *headers: str, path: str = "/") -> str:
    reader, writer = await proxy.connect(listener)
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", "host: a", *headers, "", ""]).encode())
    found = re.search(rb"x-who: ([\d.]+)", answered := await head(reader))
    writer.close()
    return found[1].decode() if found else answered.split()[1].decode()


def test_lanes() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "lanes.yaml")
            assert await ask(proxy, "outbound") == "10.0.0.1"
            assert await ask(proxy, "outbound", "x-lane: dev1") == "10.0.0.8"
            assert await ask(proxy, "outbound", "x-lane: dev2") == "10.0.0.9", "by way of daily"
            assert await ask(proxy, "outbound", "x-lane: unknown") == "10.0.0.1"
            assert await ask(proxy, "outbound-payment", "x-lane: dev1") == "127.0.0.1"
            assert await ask(proxy, "outbound-payment", "x-lane: dev3") == "503"
            assert await ask(proxy, "outbound-payment") == "10.0.2.1"

    run(test())


def test_full_link_grey_release() -> None:
    trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "full-link-grey-release.yaml")
            assert await ask(proxy, "outbound", trace, path="/orders") == "10.0.1.1"
            assert await ask(proxy, "inbound", trace, "x-mesh-tag: gray") == "127.0.0.1"
            assert await ask(proxy, "outbound", trace, path="/orders") == "10.0.1.9", "the colour of the trace"
            assert await ask(proxy, "outbound", trace) == "10.0.0.1", "no grey version here: the trunk"

    run(test())


def test_canary_by_user() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "canary-by-user.yaml")
            got = {user: await ask(proxy, "outbound", f"user-id: {user}") for user in ("20", "120", "21", "7", "1001")}
            assert got == {"20": "10.0.0.9", "120": "10.0.0.9", "21": "10.0.0.1", "7": "10.0.0.9", "1001": "10.0.0.9"}

    run(test())


def test_canary_by_percentage() -> None:
    """Each user always lands on the same side, and about five in a hundred on the canary."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "canary-by-percentage.yaml")
            users = [f"u{i}" for i in range(300)]
            first = {user: await ask(proxy, "outbound", f"cookie: user={user}") == "10.0.0.9" for user in users}
            assert 5 <= sum(first.values()) <= 30
            again = {user: await ask(proxy, "outbound", f"cookie: user={user}") == "10.0.0.9" for user in users if first[user]}
            assert all(again.values())

    run(test())
