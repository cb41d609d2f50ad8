"""Dubbo through a data plane in the test's own process: the configuration, a consumer and providers, frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from plane_support import Plane, plane, upstream

from mesh_proxy.config.model import AddressConfig

TYPE = "type.googleapis.com/"
DUBBO = f"{TYPE}envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy"
STRUCT = f'"@type": {TYPE}xds.type.v3.TypedStruct, type_url: {TYPE}mesh_proxy.dubbo.v1.'


def options(kind: str, value: str) -> str:
    """`mesh_proxy.dubbo.v1.<kind>` as the fields of a TypedStruct."""
    return f"{{{STRUCT}{kind}, value: {{{value}}}}}"


def route(cluster: str = "a", match: str = "{}", route_options: str = "", extra: str = "") -> str:
    """A route; `route_options` are fields of RouteOptions."""
    fields = f"cluster: {cluster}"
    if route_options:
        fields += f", metadata_match: {{typed_filter_metadata: {{mesh_proxy.dubbo: {options('RouteOptions', route_options)}}}}}"
    return f"{{match: {match}, route: {{{fields}{extra}}}}}"


def bootstrap(
    clusters: dict[str, list[AddressConfig]],
    *,
    routes: str = "",
    interface: str = "'*'",
    manager: str = "",
    dubbo_filters: str = "",
    cluster_options: str = "",
    cluster_fields: str = "",
    listener: bool = True,
) -> str:
    """A bootstrap with a Dubbo listener `dubbo`. `manager` and `cluster_options` are fields of ManagerOptions and
    ClusterOptions."""
    text = ["static_resources:"]
    if listener:
        filters = [f"{{name: options, config: {options('ManagerOptions', manager)}}}"] if manager else []
        filters += [dubbo_filters] if dubbo_filters else []
        filters.append("{name: envoy.filters.dubbo.router}")
        text += [
            "  listeners:",
            "  - name: dubbo",
            "    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
            "    filter_chains:",
            "    - filters:",
            "      - name: dubbo",
            "        typed_config:",
            f'          "@type": {DUBBO}',
            "          stat_prefix: d",
            f"          route_config: [{{name: r, interface: {interface}, routes: [{routes or route()}]}}]",
            f"          dubbo_filters: [{', '.join(filters)}]",
        ]
    text.append("  clusters:")
    for name, addresses in clusters.items():
        ends = ", ".join(
            f"{{endpoint: {{address: {{socket_address: {{address: {one.host}, port_value: {one.port}}}}}}}}}" for one in addresses
        )
        fields = f", {cluster_fields}" if cluster_fields else ""
        if cluster_options:
            typed = options("ClusterOptions", cluster_options)
            fields += f", metadata: {{typed_filter_metadata: {{mesh_proxy.dubbo: {typed}}}}}"
        text.append(
            f"  - {{name: {name}, connect_timeout: 5s{fields}, load_assignment: {{cluster_name: {name}, "
            f"endpoints: [{{lb_endpoints: [{ends}]}}]}}}}"
        )
    return "\n".join(text) + "\n"


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One whole frame."""
    head = await reader.readexactly(16)
    assert head[:2] == b"\xda\xbb", head
    return head + await reader.readexactly(int.from_bytes(head[12:], "big"))


def id_of(frame: bytes) -> int:
    """Of a frame."""
    return int.from_bytes(frame[4:12], "big", signed=True)


Answer = Callable[[bytes], bytes | None]


class Provider:
    """An endpoint that shows what it received, and answers by a function of the frame (or as the test says)."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.frames: list[bytes] = []
        self.arrived: asyncio.Queue[tuple[bytes, asyncio.StreamWriter]] = asyncio.Queue()
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.closed = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append((reader, writer))
        try:
            while True:
                frame = await read_frame(reader)
                self.frames.append(frame)
                self.arrived.put_nowait((frame, writer))
                if self.answer is not None and (reply := self.answer(frame)) is not None:
                    writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.closed += 1

    async def next(self) -> tuple[bytes, asyncio.StreamWriter]:
        """The next frame, and where its answer goes."""
        return await self.arrived.get()


@asynccontextmanager
async def served(*providers: Provider) -> AsyncIterator[list[AddressConfig]]:
    """Addresses of these providers."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(upstream(one.serve)) for one in providers]


Consumer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def proxied(*providers: Provider, consumers: int = 1, **fields: str) -> AsyncIterator[tuple[Plane, list[Consumer]]]:
    """A data plane with a cluster `a` of these providers, and consumers that are connected to it."""
    async with served(*providers) as addresses, plane(bootstrap({"a": addresses}, **fields)) as one:  # type: ignore[arg-type]
        made = [await one.connect("dubbo") for _ in range(consumers)]
        try:
            yield one, made
        finally:
            for _, writer in made:
                writer.close()


Test = Callable[..., Awaitable[None]]
