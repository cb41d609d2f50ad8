"""Configurations and endpoints for tests of labels: who got a request says his name."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from bootstraps import ROUTER
from plane_support import Plane, head, upstream

from mesh_proxy.config.model import AddressConfig

STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.'


def label(value: str) -> str:
    return f"{{name: label, typed_config: {{{STRUCT}TrafficLabel, value: {{{value}}}}}}}"


def router(value: str) -> str:
    return f"{{name: tags, typed_config: {{{STRUCT}TagRouter, value: {{{value}}}}}}}"


def chain(*filters: str) -> str:
    return f"http_filters: [{', '.join((*filters, ROUTER))}]"


def one_label(sources: str, more: str = "") -> str:
    return label(f"labels: [{{name: x-mesh-tag, sources: [{sources}]{more}}}]")


def lb(address: AddressConfig, labels: str = "", health: str = "UNKNOWN", key: str = "version") -> str:
    metadata = f"metadata: {{filter_metadata: {{envoy.lb: {{{key}: {labels}}}}}}}, " if labels else ""
    return (
        f"{{{metadata}health_status: {health}, endpoint: {{address: {{socket_address: {{address: {address.host}, "
        f"port_value: {address.port}}}}}}}}}"
    )


def endpoints(*entries: str) -> str:
    return f"load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{', '.join(entries)}]}}]}}"


async def named(stack: AsyncExitStack, name: bytes, seen: list[bytes] | None = None) -> AddressConfig:
    """An endpoint that says its name, and keeps the heads that it got."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            got = await head(reader)
            if seen is not None:
                seen.append(got)
            writer.write(b"HTTP/1.1 200 OK\r\nx-who: %b\r\ncontent-length: 0\r\n\r\n" % name)

    return await stack.enter_async_context(upstream(serve))


async def ask(proxy: Plane, *headers: str, path: str = "/") -> str:
    reader, writer = await proxy.connect("web")
    writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n{''.join(f'{one}' + chr(13) + chr(10) for one in headers)}\r\n".encode())
    answered = await head(reader)
    writer.close()
    status = answered.split()[1].decode()
    who = [line[7:].decode() for line in answered.split(b"\r\n") if line.startswith(b"x-who: ")]
    return who[0] if who else status
