"""The real rate limit service, over Redis, counts HTTP requests, gRPC calls and Dubbo calls, with Envoy's configuration of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bootstraps import EXT, ROUTER, web
from dubbo_support import plane as dubbo
from dubbo_support import wire
from interop_support.ratelimit import rate_limit_service
from plane_support import answer, at, head, plane, run, upstream

pytestmark = pytest.mark.slow

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
LIMIT = f'"@type": {EXT}filters.http.ratelimit.v3.RateLimit'
SERVICE = "rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: limits}}, transport_api_version: V3}"
FIELDS = f"{LIMIT}, domain: shop, timeout: 20s, failure_mode_deny: true, enable_x_ratelimit_headers: DRAFT_VERSION_03, {SERVICE}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    out = Path(tempfile.mkdtemp(prefix="ratelimit-"))
    try:
        with rate_limit_service(out) as port:
            yield port
    finally:
        shutil.rmtree(out, ignore_errors=True)


def cluster(port: int) -> str:
    address = f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
    options = f"{{{OPTIONS}: {{'@type': type.googleapis.com/{OPTIONS}, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}"
    return (
        f"- {{name: limits, typed_extension_protocol_options: {options}, "
        f"load_assignment: {{cluster_name: limits, endpoints: [{{lb_endpoints: [{address}]}}]}}}}"
    )


USER = "{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}"
TIER = "{actions: [{generic_key: {descriptor_value: tiers}}, {request_headers: {header_name: x-tier, descriptor_key: tier}}]}"


def test_http(port: int) -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            text = web(
                hcm=f"http_filters: [{{name: limit, typed_config: {{{FIELDS}}}}}, {ROUTER}]",
                action=f"rate_limits: [{USER}, {TIER}]",
                endpoint=at(address),
                static=cluster(port),
            )
            async with plane(text) as proxy:

                async def ask(*headers: str) -> tuple[int, dict[str, str]]:
                    reader, writer = await proxy.connect("web")
                    writer.write("\r\n".join(["GET / HTTP/1.1", "host: a", *headers, "", ""]).encode())
                    lines = (await head(reader)).decode().split("\r\n")
                    writer.close()
                    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:] if line)

                assert (await ask())[0] == 200, "nothing to count"
                got = [await ask("x-user: me") for _ in range(3)]
                assert [status for status, _ in got] == [200, 200, 429]
                assert [headers["x-ratelimit-remaining"] for _, headers in got] == ["1", "0", "0"]
                assert got[0][1]["x-ratelimit-limit"] == "2, 2;w=86400"
                assert got[2][1]["x-envoy-ratelimited"] == "true"
                assert (await ask("x-user: you"))[0] == 200, "everybody has his own"
                assert [(await ask("x-tier: gold"))[0] for _ in range(4)] == [200, 200, 200, 429]
                assert (await ask("x-tier: free"))[0] == 429
                grpc = await ask("x-tier: free", "content-type: application/grpc", "te: trailers")
                assert (grpc[0], grpc[1]["grpc-status"]) == (200, "14")

    run(test())


def test_dubbo(port: int) -> None:
    async def test() -> None:
        endpoint = dubbo.Provider(lambda frame: wire.answer(dubbo.id_of(frame)))
        async with dubbo.served(endpoint) as addresses:
            once = f"{{actions: [{{generic_key: {{descriptor_value: once}}}}, {NEVER}]}}"
            limits = f"rate_limits: [{USER.replace('x-user', 'dubbo.user')}, {once}]"
            filters = f"{{name: limit, config: {{{FIELDS}, {limits}}}}}"
            text = dubbo.bootstrap({"a": addresses}, dubbo_filters=filters) + f"  {cluster(port)}\n"
            async with plane(text) as one:
                reader, writer = await one.connect("dubbo")
                statuses = []
                for user in ("first", "first", "first", "second"):
                    writer.write(wire.call(attachments={"dubbo.user": user}))
                    statuses.append((await dubbo.read_frame(reader))[3])
                assert statuses == [20, 20, 100, 20], "SERVER_THREADPOOL_EXHAUSTED when limited"
                writer.close()
            assert len(endpoint.frames) == 3

    run(test())


NEVER = "{request_headers: {header_name: nobody, descriptor_key: nobody}}"
