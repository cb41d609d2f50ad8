"""Faults where Envoy cannot be asked: on Dubbo, and how slow responses hold back their upstream."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import ROUTER, web
from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import GET, at, head, plane, run, until, upstream

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
HUNDRED = "percentage: {numerator: 100}"


def dubbo(fields: str) -> str:
    return f'{{name: fault, config: {{"@type": {FAULT}, {fields}}}}}'


def http(fields: str) -> str:
    return f'http_filters: [{{name: fault, typed_config: {{"@type": {FAULT}, {fields}}}}}, {ROUTER}]'


def echo(frame: bytes) -> bytes | None:
    return wire.answer(id_of(frame)) if frame[2] & 0xE0 == 0xC0 else None


@pytest.mark.parametrize(
    ("fields", "attachments", "status"),
    [
        (f"abort: {{http_status: 503, {HUNDRED}}}", {}, 70),
        (f"abort: {{http_status: 503, {HUNDRED}}}, filter_metadata: {{dubbo_status: 31}}", {}, 31),
        (f"abort: {{http_status: 503, {HUNDRED}}}, filter_metadata: {{dubbo_status: 20}}", {}, 20),
        (f"abort: {{header_abort: {{}}, {HUNDRED}}}", {"x-envoy-fault-abort-request": "503"}, 70),
        (
            f"abort: {{header_abort: {{}}, {HUNDRED}}}",
            {"x-envoy-fault-abort-request": "503", "x-mesh-fault-dubbo-status": "100"},
            100,
        ),
        (
            f"abort: {{header_abort: {{}}, {HUNDRED}}}",
            {"x-envoy-fault-abort-request": "503", "x-mesh-fault-dubbo-status": "7"},
            70,
        ),
        (f"abort: {{header_abort: {{}}, {HUNDRED}}}", {"x-mesh-fault-dubbo-status": "100"}, 20),
        ("abort: {http_status: 503, percentage: {numerator: 0}}, filter_metadata: {dubbo_status: 31}", {}, 20),
    ],
)
def test_aborts_of_dubbo_calls(fields: str, attachments: dict[str, str], status: int) -> None:
    async def test() -> None:
        async with proxied(Provider(echo), dubbo_filters=dubbo(fields)) as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=1, attachments=attachments))
            answer = await read_frame(reader)
            assert (id_of(answer), answer[3]) == (1, status)
            if status not in (20,):
                assert b"fault filter abort" in answer

    run(test())


def test_delays_of_dubbo_calls() -> None:
    async def test() -> None:
        provider = Provider(echo)
        fields = f"delay: {{header_delay: {{}}, {HUNDRED}}}"
        async with proxied(provider, dubbo_filters=dubbo(fields)) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1, attachments={"x-envoy-fault-delay-request": "100"}) + wire.call(request_id=2))
            assert id_of(await read_frame(reader)) == 2, "it overtakes the one that is delayed"
            assert await read_frame(reader) == wire.answer(1)
            assert one.stat("dubbo.d.fault.", "delays_injected") == 1
            writer.write(wire.call(request_id=3, attachments={"x-envoy-fault-delay-request": "60000"}))
            await until(lambda: one.stat("dubbo.d.fault.", "active_faults") == 1)
            writer.close()
            await until(lambda: one.stat("dubbo.d.fault.", "active_faults") == 0)
            assert len(provider.frames) == 2

    run(test())


def test_unknown_dubbo_statuses_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"filter_metadata\.dubbo_status: must be one of"):
        load_bootstrap(None, web(hcm=http(f"abort: {{http_status: 503, {HUNDRED}}}, filter_metadata: {{dubbo_status: 7}}")))


def test_a_slow_response_holds_back_its_upstream() -> None:
    """Much more than the buffers hold comes at once; the caller gets it at the rate, and nobody keeps it all."""

    async def test() -> None:
        size = 32 * 1024 * 1024
        sent = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // 65536):
                writer.write(bytes(65536))
                await writer.drain()
            sent.set()

        fields = f"response_rate_limit: {{fixed_limit: {{limit_kbps: 256}}, {HUNDRED}}}"
        async with (
            upstream(serve) as address,
            plane(web(hcm=http(fields), endpoint=at(address), listener="per_connection_buffer_limit_bytes: 65536")) as one,
        ):
            reader, writer = await one.connect("web")
            loop = asyncio.get_running_loop()
            started = loop.time()
            writer.write(GET)
            await head(reader)
            got = 0
            while got < 128 * 1024:
                got += len(await reader.read(65536))
            assert loop.time() - started >= 0.35, "at 256 KiB a second"
            assert not sent.is_set(), "the upstream waits"
            assert one.stat("http.web.fault.", "response_rl_injected") == 1
            writer.close()
            await until(lambda: one.stat("http.web.fault.", "active_faults") == 0)

    run(test())
