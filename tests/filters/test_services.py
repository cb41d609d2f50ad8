"""Services that filters ask, where no Envoy is to compare with: Dubbo calls, callers that leave, answers that are none."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from typing import Any

import pytest
from asked_services import AskedServices, told
from bootstraps import EXT, HCM, ROUTER, web
from dubbo_support import plane as dubbo
from dubbo_support import wire
from plane_support import Plane, answer, at, head, plane, run, until, upstream

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.ext_authz_verdict import Verdict, apply
from mesh_filters.service import Failure, GrpcServiceConfig, ServiceError, ServiceResponse, call_grpc
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

AUTHZ = f'"@type": {EXT}filters.http.ext_authz.v3.ExtAuthz'
LIMIT = f'"@type": {EXT}filters.http.ratelimit.v3.RateLimit'
GRPC = "grpc_service: {envoy_grpc: {cluster_name: asked}, timeout: 20s}, transport_api_version: V3"
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ACTIONS = (
    "[{request_headers: {header_name: ask, descriptor_key: ask, skip_if_absent: true}}, {generic_key: {descriptor_value: calls}}]"
)
RATE = f"domain: shop, timeout: 20s, rate_limit_service: {{{GRPC}}}, rate_limits: [{{actions: {ACTIONS}}}]"


RULES = "decoder_header_mutation_rules"
GOOGLE = "{target_uri: x, stat_prefix: other}"


def cluster(port: int) -> str:
    address = f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
    options = f"{{{OPTIONS}: {{'@type': type.googleapis.com/{OPTIONS}, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}"
    return (
        f"- {{name: asked, typed_extension_protocol_options: {options}, "
        f"load_assignment: {{cluster_name: asked, endpoints: [{{lb_endpoints: [{address}]}}]}}}}"
    )


async def dubbo_calls(filters: str, server: AskedServices, *calls: dict[str, object]) -> list[tuple[int, bytes]]:
    """What each call with these attachments came to, and what its endpoint saw."""
    endpoint = dubbo.Provider(lambda frame: wire.answer(dubbo.id_of(frame)))
    seen = []
    async with dubbo.served(endpoint) as addresses:
        text = dubbo.bootstrap({"a": addresses}, dubbo_filters=filters) + f"  {cluster(server.port)}\n"
        async with plane(text) as one:
            reader, writer = await one.connect("dubbo")
            for attachments in calls:
                writer.write(wire.call(attachments=attachments))
                frame = await dubbo.read_frame(reader)
                seen.append((frame[3], frame[16:]))
            writer.close()
    calls_seen = [DubboCodec(HeadMemo()).receive_data(frame)[0] for frame in endpoint.frames]
    for message in calls_seen:
        assert isinstance(message, DubboMessage)
        assert message.attachments is not None
        seen.append((0, json.dumps({k.decode(): v.decode() for k, v in message.attachments.values.items()}).encode()))
    return seen


def test_ext_authz_on_dubbo() -> None:
    ok = told('{"okResponse": {"headers": [{"header": {"key": "x-user", "value": "me"}}], "headersToRemove": ["secret"]}}')
    no = told('{"status": {"code": 7}, "deniedResponse": {"body": "not you"}}')

    async def test() -> None:
        with AskedServices() as server:
            filters = f"{{name: authz, config: {{{AUTHZ}, {GRPC}}}}}"
            got = await dubbo_calls(filters, server, {"x-ask": ok, "secret": "x"}, {"x-ask": no}, {"x-ask": "fail"})
            assert [status for status, _ in got] == [20, 80, 80, 0]
            assert b"not you" in got[1][1]
            assert b"ext_authz_error" in got[2][1]
            passed = json.loads(got[3][1])
            assert passed["x-user"] == "me"
            assert "secret" not in passed
            http = server.asked[0]["attributes"]["request"]["http"]
            assert (http["method"], http["path"], http["protocol"]) == ("POST", "/demo.HelloService/sayHello", "Dubbo")
            assert http["headers"]["secret"] == "x"

    run(test())


def test_ratelimit_on_dubbo() -> None:
    async def test() -> None:
        with AskedServices() as server:
            filters = f"{{name: limit, config: {{{LIMIT}, {RATE}}}}}"
            over = told('{"overallCode": "OVER_LIMIT"}')
            got = await dubbo_calls(filters, server, {}, {"ask": over}, {"ask": "fail"}, {})
            assert [status for status, _ in got][:4] == [20, 100, 20, 20], "SERVER_THREADPOOL_EXHAUSTED when limited"
            assert b"rate limited" in got[1][1]
            assert server.asked[0] == {"domain": "shop", "descriptors": [{"entries": [{"key": "generic_key", "value": "calls"}]}]}

    run(test())


async def asked_plane(stack: Any, server: AskedServices, filters: str) -> Plane:
    address = await stack.enter_async_context(upstream(answer))
    text = web(hcm=f"http_filters: [{filters}, {ROUTER}]", endpoint=at(address), static=cluster(server.port))
    return await stack.enter_async_context(plane(text))


def test_who_leaves_is_not_waited_for() -> None:
    async def test() -> None:
        from contextlib import AsyncExitStack

        with AskedServices() as server:
            async with AsyncExitStack() as stack:
                proxy = await asked_plane(stack, server, f"{{name: authz, typed_config: {{{AUTHZ}, {GRPC}}}}}")
                reader, writer = await proxy.connect("web")
                writer.write(f"GET / HTTP/1.1\r\nhost: a\r\nx-ask: {told('hang')}\r\n\r\n".encode())
                await until(lambda: len(server.asked) == 1)
                writer.close()
                active = lambda: proxy.stat("cluster.asked.", "upstream_rq_active")  # noqa: E731
                await until(lambda: active() == 0)
                reader, writer = await proxy.connect("web")
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await head(reader)).startswith(b"HTTP/1.1 200")
                writer.close()

    run(test())


def test_many_at_once_share_a_connection() -> None:
    async def test() -> None:
        from contextlib import AsyncExitStack

        with AskedServices() as server:
            async with AsyncExitStack() as stack:
                proxy = await asked_plane(stack, server, f"{{name: authz, typed_config: {{{AUTHZ}, {GRPC}}}}}")

                async def ask(number: int) -> bytes:
                    reader, writer = await proxy.connect("web")
                    deny = told('{"status": {"code": 7}}') if number % 2 else ""
                    writer.write(f"GET /{number} HTTP/1.1\r\nhost: a\r\nx-ask: {deny}\r\n\r\n".encode())
                    got = await head(reader)
                    writer.close()
                    return got.split()[1]

                got = await asyncio.gather(*(ask(number) for number in range(50)))
                assert got == [b"403" if number % 2 else b"200" for number in range(50)]
                assert proxy.stat("cluster.asked.", "upstream_cx_total") == 1
                assert proxy.stat("http.web.ext_authz.", "ok") == 25

    run(test())


class _Service:
    """As much of a FilterContext as a call needs."""

    def __init__(self, response: ServiceResponse) -> None:
        self.response = response

    async def call_service(self, *_: object, **__: object) -> ServiceResponse:
        return self.response


@pytest.mark.parametrize(
    ("response", "failure"),
    [
        (ServiceResponse(503, Headers(), b""), Failure.STATUS),
        (ServiceResponse(200, Headers([(b"grpc-status", b"7")]), b""), Failure.STATUS),
        (ServiceResponse(200, Headers(), b"\0\0\0\0\0", Headers([(b"grpc-status", b"2")])), Failure.STATUS),
        (ServiceResponse(200, Headers(), b"\0\0\0\0\0"), Failure.STATUS),
        (ServiceResponse(200, Headers(), b"", Headers([(b"grpc-status", b"0")])), Failure.MALFORMED),
        (ServiceResponse(200, Headers(), b"\1\0\0\0\0", Headers([(b"grpc-status", b"0")])), Failure.MALFORMED),
        (ServiceResponse(200, Headers(), b"\0\0\0\0\5abc", Headers([(b"grpc-status", b"0")])), Failure.MALFORMED),
        (ServiceResponse(200, Headers(), b"\0\0\0\0\1ab", Headers([(b"grpc-status", b"0")])), Failure.MALFORMED),
    ],
)
def test_answers_that_are_none(response: ServiceResponse, failure: Failure) -> None:
    with pytest.raises(ServiceError) as caught:
        asyncio.run(call_grpc(_Service(response), GrpcServiceConfig(cluster="x"), b"/s/M", b"", 1.0))  # type: ignore[arg-type]
    assert caught.value.failure is failure


def test_a_good_answer() -> None:
    response = ServiceResponse(200, Headers(), b"\0\0\0\0\3abc", Headers([(b"grpc-status", b"0")]))
    made = asyncio.run(call_grpc(_Service(response), GrpcServiceConfig(cluster="x"), b"/s/M", b"", 1.0))  # type: ignore[arg-type]
    assert made == b"abc"


def test_a_service_cannot_break_the_message() -> None:
    request = RequestHeaders(0, b"POST", b"http", b"a", b"/x", Headers([(b"content-length", b"5")]), False)
    changes = [("set", b"content-length", b"500"), ("set", b"transfer-encoding", b"chunked"), ("set", b":path", b"nonsense")]
    apply(request, Verdict(True, headers=changes, remove=[b"content-length", b"host", b":path"]))
    assert dict(request.headers.items()) == {b"content-length": b"5"}
    assert request.path == b"/x"


@pytest.mark.parametrize(
    ("filter_", "where", "why"),
    [
        (f"{AUTHZ}, transport_api_version: V3", "", "needs grpc_service or http_service"),
        (f"{AUTHZ}, {GRPC.replace('asked', 'nobody')}", "grpc_service.envoy_grpc.cluster_name", "nobody"),
        (f"{AUTHZ}, grpc_service: {{google_grpc: {GOOGLE}}}", "grpc_service.google_grpc", "only envoy_grpc"),
        (f"{AUTHZ}, {GRPC}, emit_filter_state_stats: true", "emit_filter_state_stats", "not supported"),
        (f"{AUTHZ}, {GRPC}, {RULES}: {{disallow_all: true}}", RULES, "not supported"),
        (f"{LIMIT}, {RATE.replace('rate_limits: [{', 'rate_limits: [{stage: 1, ')}", "rate_limits[0].stage", "not supported"),
    ],
)
def test_refused(filter_: str, where: str, why: str) -> None:
    text = web(hcm=f"http_filters: [{{name: x, typed_config: {{{filter_}}}}}, {ROUTER}]", static=cluster(1))
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, text)
    path, said = caught.value.problems[0]
    assert path == f"{HCM}.http_filters[0].typed_config" + (f".{where}" if where else "")
    assert why in said


@pytest.mark.slow
def test_who_does_not_use_it_does_not_pay() -> None:
    code = (
        "import sys, mesh_proxy.worker.data_plane, mesh_filters.ext_authz, mesh_filters.ratelimit; "
        "print({'google.protobuf', 'grpc'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_told() -> None:
    assert base64.urlsafe_b64decode(told("x")) == b"x"
