"""What limits, breakers and faults answer, in the words of each protocol: HTTP status, gRPC status, Dubbo response with text."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from bootstraps import ROUTER, web
from dubbo_support import wire
from dubbo_support.plane import Provider, proxied, read_frame
from plane_support import at, head, plane, run, upstream

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.'
ON = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"
BUCKET = "token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 1000s}"
MEASURES = "min_rtt_calc_params: {min_concurrency: 1, interval: 60s}"
GRADIENT = f"gradient_controller_config: {{concurrency_limit_params: {{concurrency_update_interval: 1s}}, {MEASURES}}}"
EXHAUSTED, UNAVAILABLE, ABORTED = 8, 14, 10
SERVICE_ERROR, SERVER_ERROR, THREADPOOL_EXHAUSTED = 70, 80, 100
UNANSWERED, FAILS, NOTHING = "a call that nobody answers", "a call that fails", "nothing"


@dataclass(frozen=True)
class Refuses:
    """A filter, what must happen so that it refuses the next call, and how it does."""

    name: str
    config: str
    before: str
    text: str
    http: int
    grpc: int
    dubbo: int

    def __str__(self) -> str:
        return self.name


LOCAL = f'"@type": {HTTP}local_ratelimit.v3.LocalRateLimit, stat_prefix: rl, {BUCKET}, {ON}'
ADAPTIVE = f'"@type": {HTTP}adaptive_concurrency.v3.AdaptiveConcurrency, {GRADIENT}'
STEEP = "aggression: {default_value: 1000000000.0, runtime_key: a}"
SURE = f"{STEEP}, max_rejection_probability: {{default_value: {{value: 100}}, runtime_key: m}}"
ADMISSION = f'"@type": {HTTP}admission_control.v3.AdmissionControl, success_criteria: {{}}, {SURE}'
BROKEN = "{by: [service, method], kind: error_count, threshold: 0, min_requests: 1}"


def fault(kind: str) -> str:
    return f'"@type": {HTTP}fault.v3.HTTPFault, abort: {{{kind}, percentage: {{numerator: 100}}}}'


def ours(kind: str, rule: str, more: str = "") -> str:
    return f"{STRUCT}{kind}, value: {{rules: [{rule}]{more}}}"


FAILING = fault("http_status: 503")
LIMITED, REACHED, MANY = "local_rate_limited", "reached concurrency limit", "too many requests"
OVER = (429, EXHAUSTED, THREADPOOL_EXHAUSTED)
UNWELL = (503, UNAVAILABLE, SERVER_ERROR)
CASES = (
    Refuses("local_ratelimit", LOCAL, UNANSWERED, LIMITED, 429, UNAVAILABLE, THREADPOOL_EXHAUSTED),
    Refuses("local_ratelimit_exhausted", f"{LOCAL}, rate_limited_as_resource_exhausted: true", UNANSWERED, LIMITED, *OVER),
    Refuses("local_ratelimit_503", f"{LOCAL}, status: {{code: 503}}", UNANSWERED, LIMITED, *UNWELL),
    Refuses("adaptive_concurrency", ADAPTIVE, UNANSWERED, REACHED, *UNWELL),
    Refuses("gradient2", f"{STRUCT}AdaptiveConcurrency, value: {{initial: 1, min: 1}}", UNANSWERED, REACHED, *UNWELL),
    Refuses("admission_control", ADMISSION, FAILS, "denied_by_admission_control", *UNWELL),
    Refuses("pacing", ours("Pacing", "{rate: 0.001, max_wait: 0s}"), UNANSWERED, MANY, *OVER),
    Refuses("hot_parameters", ours("HotParameters", "{by: [{header: x-user}], rate: 0.001}"), UNANSWERED, MANY, *OVER),
    Refuses("concurrency", ours("ConcurrencyLimit", "{by: [call, caller], max: 1}"), UNANSWERED, f"{MANY} under way", *UNWELL),
    Refuses("concurrency_429", ours("ConcurrencyLimit", "{max: 1}", ", status: 429"), UNANSWERED, f"{MANY} under way", *OVER),
    Refuses("circuit_breaker", ours("CircuitBreaker", BROKEN), FAILS, "circuit breaker is open", *UNWELL),
    Refuses("fault", FAILING, NOTHING, "fault filter abort", 503, UNAVAILABLE, SERVICE_ERROR),
    Refuses("fault_grpc", fault("grpc_status: 10"), NOTHING, "fault filter abort", 200, ABORTED, SERVICE_ERROR),
)


def filters(case: Refuses, field: str) -> str:
    """The filter, and behind it one that lets calls fail if that must come before."""
    chain = [f"{{name: it, {field}: {{{case.config}}}}}"]
    if case.before == FAILS:
        chain.append(f"{{name: failing, {field}: {{{FAILING}}}}}")
    return ", ".join(chain)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An endpoint that reads and never answers."""
    while await reader.read(65536):
        pass


async def over_http(case: Refuses, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """The second answer, or the first one if nothing must come before."""
    async with AsyncExitStack() as stack:
        arrived = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await head(reader)
            arrived.set()
            await silent(reader, writer)

        address = await stack.enter_async_context(upstream(serve))
        proxy = await stack.enter_async_context(
            plane(web(hcm=f"http_filters: [{filters(case, 'typed_config')}, {ROUTER}]", endpoint=at(address)))
        )
        request = "POST /demo.S/call HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nx-user: u\r\n" + "".join(
            f"{h}\r\n" for h in headers
        )
        if case.before != NOTHING:
            reader, writer = await proxy.connect("web")
            stack.callback(writer.close)
            writer.write(request.encode() + b"\r\n")
            if case.before == FAILS:
                await head(reader)
            else:
                await arrived.wait()
        reader, writer = await proxy.connect("web")
        writer.write(request.encode() + b"\r\n")
        lines = (await head(reader)).decode().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        writer.close()
        return int(lines[0].split()[1]), fields, body


@pytest.mark.parametrize("case", CASES, ids=str)
def test_http(case: Refuses) -> None:
    async def test() -> None:
        status, _, body = await over_http(case)
        assert status == case.http
        assert body.decode() == ("" if case.name == "admission_control" else case.text)

    run(test())


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["application/grpc", "application/triple+wrapper"])
def test_grpc(case: Refuses, kind: str) -> None:
    async def test() -> None:
        content_type = "application/grpc+proto" if kind == "application/triple+wrapper" else kind
        more = ["tri-service-version: 1"] if kind == "application/triple+wrapper" else []
        status, fields, body = await over_http(case, f"content-type: {content_type}", "te: trailers", *more)
        assert status == 200
        assert int(fields["grpc-status"]) == case.grpc
        assert fields.get("grpc-message", "") == ("" if case.name == "admission_control" else case.text)
        assert not body

    run(test())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_dubbo(case: Refuses) -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, dubbo_filters=filters(case, "config"), consumers=2) as (_, consumers):
            (reader, writer), (other_reader, other) = consumers
            frame = wire.call(attachments={"x-user": "u"})
            if case.before != NOTHING:
                other.write(frame)
                if case.before == FAILS:
                    await read_frame(other_reader)
                else:
                    await provider.next()
            writer.write(frame)
            answer = await read_frame(reader)
            assert answer[3] == case.dubbo
            assert case.text.encode() in answer

    run(test())
