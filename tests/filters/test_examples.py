"""The configurations in docs/examples are accepted, and do what their comments say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from plane_support import Plane, head, plane, run, upstream

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import AddressConfig
from mesh_proxy.demo.identities import make_certificates

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples call `certs`."""
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder)
    return folder


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads(path: Path, certificates: Path) -> None:
    bootstrap = load_bootstrap(None, path.read_text().replace("{filename: certs/", f"{{filename: {certificates}/"))
    assert bootstrap.listeners
    assert bootstrap.clusters


async def served(
    stack: AsyncExitStack, name: str, known: Mapping[str, AddressConfig] | None = None, broken: Collection[str] = ()
) -> Plane:
    """The example, with an endpoint on loopback for each address, which says where it should be. Some may be known already; those
    in `broken` answer with 503."""
    text = (EXAMPLES / name).read_text()
    known = known or {}
    for ip, port in dict.fromkeys(
        re.findall(r"endpoint: {address: {socket_address: {address: ([\d.]+), port_value: (\d+)}}}", text)
    ):

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ip: str = ip) -> None:
            while await head(reader):
                status = "503 Broken" if ip in broken else "200 OK"
                writer.write(f"HTTP/1.1 {status}\r\nx-who: {ip}\r\ncontent-length: 0\r\n\r\n".encode())

        address = known.get(ip) or await stack.enter_async_context(upstream(serve))
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


def port_of(proxy: Plane, listener: str) -> int:
    return next(port for (name, _), port in proxy.ports.items() if name == listener)


TRACE = "traceparent: 00-{:032x}-b7ad6b7169203331-01"


async def service(stack: AsyncExitStack, name: str, path: str, known: Mapping[str, AddressConfig]) -> AddressConfig:
    """A service behind its sidecar, which is the example; it calls on with nothing but its trace header. Where it is called."""
    proxy: list[Plane] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await head(reader)
            trace = re.search(rb"traceparent: \S+", request)
            assert trace is not None
            further, to = await proxy[0].connect("outbound")
            to.write(b"GET %b HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % (path.encode(), trace[0]))
            who = re.search(rb"x-who: (.+)\r\n", await head(further))
            to.close()
            assert who is not None
            writer.write(b"HTTP/1.1 200 OK\r\nx-who: %b > %b\r\ncontent-length: 0\r\n\r\n" % (name.encode(), who[1]))

    app = await stack.enter_async_context(upstream(serve))
    proxy.append(await served(stack, "full-link-grey-release.yaml", {**known, "127.0.0.1": app}))
    return AddressConfig(host="127.0.0.1", port=port_of(proxy[0], "inbound"))


def test_full_link_grey_release_over_three_hops() -> None:
    """Coloured at the entry; the second hop has no grey version, and the third is grey again."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            second = await service(stack, "second", "/orders", {})
            first = {name: await service(stack, name, "/", {"10.0.0.1": second}) for name in ("trunk", "gray")}
            entry = await served(stack, "canary-by-user.yaml", {"10.0.0.1": first["trunk"], "10.0.0.9": first["gray"]})
            for user in range(10, 26):
                reader, writer = await entry.connect("outbound")
                lines = ["GET / HTTP/1.1", "host: a", f"user-id: {user}", TRACE.format(user), "", ""]
                writer.write("\r\n".join(lines).encode())
                way = re.search(rb"x-who: (.+)\r\n", await head(reader))
                writer.close()
                assert way is not None
                expected = b"gray > second > 10.0.1.9" if user == 20 else b"trunk > second > 10.0.1.1"
                assert way[1] == expected, user

    run(test())


def test_region_first() -> None:
    """All in our own region; when its endpoints fail, they are found out and the next region takes over."""

    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "region-first.yaml")
            assert {await ask(proxy, "outbound") for _ in range(10)} == {"10.0.0.1", "10.0.0.2"}
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "region-first.yaml", broken={"10.0.0.1", "10.0.0.2"})
            first = [await ask(proxy, "outbound") for _ in range(10)]
            assert "10.1.0.1" in first
            assert {await ask(proxy, "outbound") for _ in range(10)} == {"10.1.0.1"}

    run(test())


def test_route_chain() -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            proxy = await served(stack, "route-chain.yaml")
            for user, tag, where in (
                ("1007", "", "10.0.0.1"),
                ("1007", "gray", "10.0.0.9"),
                ("1070", "", "10.1.0.1"),
                ("1070", "gray", "10.1.0.1"),  # no gray version in that unit
                ("", "gray", "10.0.0.9"),  # nobody's unit: our own region
            ):
                headers = [f"user-id: {user}"] if user else []
                assert await ask(proxy, "outbound", *headers, *([f"x-mesh-tag: {tag}"] if tag else [])) == where, (user, tag)

    run(test())
