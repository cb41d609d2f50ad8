"""Requests and responses that have passed another sidecar go the shortest way, and what is each one's own stays its own."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from bootstraps import file_log, options, typed, web
from build_support import COMPILED
from http1_support import forget_heads
from label_support import chain, label, one_label, router
from plane_support import ANSWER, Plane, at, head, plane, run, upstream

from mesh_codecs.http1 import upstream as upstream_codec
from mesh_proxy.config.model import AddressConfig
from mesh_proxy.stream.planned_stream import PlannedStream

TIMES = 12
FIRST = 5
"""at most so many requests make the plans, with their answers"""
SUPPRESSED = """http_filters: [{name: r, typed_config: {"@type":
 type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]"""
GET = b"GET /x HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: http\r\nx-request-id: %b\r\nx-envoy-attempt-count: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nserver: istio-envoy\r\ncontent-length: 2\r\nx-envoy-upstream-service-time: %d\r\n\r\nok"


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the whole responses were written at once, which compiled code does not tell."""
    forget_heads()
    upstream_codec._table.entries.clear()
    upstream_codec._table.hits = upstream_codec._table.resting = upstream_codec._table.size = 0
    seen: list[bool] = []
    if COMPILED:
        return seen
    whole = PlannedStream.on_upstream_whole

    def counted(*arguments: Any) -> bool:
        seen.append(whole(*arguments))
        return seen[-1]

    monkeypatch.setattr(PlannedStream, "on_upstream_whole", counted)
    return seen


class Endpoint:
    """Answers with a time that no other answer has, and keeps the ids that it got."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.ids: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.ids += re.findall(rb"(?i)\r\nx-request-id: *(.*?) *\r\n", await head(reader))
                writer.write(self.answer % (1_000_000 + len(self.ids)) if b"%d" in self.answer else self.answer)


async def ask(proxy: Plane, request: bytes, ids: list[bytes]) -> list[bytes]:
    """The times in the answers to requests with these ids."""
    reader, writer = await proxy.connect("web")
    times: list[bytes] = []
    for one in ids:
        writer.write(request % one)
        times += re.findall(rb"\r\nx-envoy-upstream-service-time: (.*?)\r\n", await head(reader))
        assert await reader.readexactly(2) == b"ok"
    writer.close()
    return times


IDS = [b"0a1b2c3d-0a1b-4c2d-8e3f-%012d" % number for number in range(TIMES)]


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"hcm": "generate_request_id: false"},
        {"hcm": "use_remote_address: true, preserve_external_request_id: true"},
        {"hcm": chain(one_label("{header: user-agent}, {constant: base}"), router(""))},
        {"hcm": SUPPRESSED},
    ],
    ids=str,
)
def test_ids_and_times_are_those_that_came(parts: dict[str, str], went: list[bool]) -> None:
    endpoint = Endpoint()

    async def test() -> None:
        async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), **parts)) as proxy:
            times = [*await ask(proxy, GET, IDS[:5]), *await ask(proxy, GET, IDS[5:])]
            if parts.get("hcm") == SUPPRESSED:
                assert times == [b"%d" % (1_000_001 + number) for number in range(TIMES)]
            else:
                assert max(map(int, times)) < 1_000_000  # ours

    run(test())
    assert endpoint.ids == IDS
    assert COMPILED or went.count(True) >= TIMES - FIRST


TRACED = GET.replace(b"x-forwarded-proto", b"traceparent: 00-%b-01\r\nb3: %b-%%\r\nx-forwarded-proto")
LABELLED = "labels: [{name: x-mesh-tag, sources: [{trace: true}, {constant: base}], remember: true}]"


@pytest.mark.parametrize(
    ("parts", "at_once"),
    [
        ({}, True),
        ({"hcm": "use_remote_address: true"}, True),
        ({"hcm": "use_remote_address: true", "table": "internal_only_headers: [traceparent]"}, True),
        ({"hcm": chain(one_label("{header: user-agent}, {constant: base}"))}, False),
        ({"hcm": chain(label(LABELLED))}, False),
        ({"hcm": chain(typed("envoy.filters.http.cors", "filters.http.cors.v3.Cors"))}, True),
        ({"hcm": chain(typed("envoy.filters.http.buffer", "filters.http.buffer.v3.Buffer", "max_request_bytes: 99"))}, False),
        ({"match": "headers: [{name: b3, present_match: true}]"}, False),
        ({"cluster": options("explicit_http_config: {http2_protocol_options: {}}")}, False),
    ],
    ids=str,
)
def test_traces_are_those_that_came(parts: dict[str, str], at_once: bool, went: list[bool]) -> None:
    names = (b"traceparent", b"b3", b"x-request-id")
    got: list[list[bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                text = await head(reader)
                got.append([b"".join(re.findall(rb"\r\n%b: (.*?)\r\n" % name, text)) for name in names])
                writer.write(ANSWER)

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as second:
            port = next(port for (name, _), port in second.ports.items() if name == "web")
            to = AddressConfig(host="127.0.0.1", port=port) if "cluster" in parts else address
            async with plane(web(endpoint=at(to), **parts)) as proxy:
                for half in (IDS[:5], IDS[5:]):
                    reader, writer = await proxy.connect("web")
                    for one in half:
                        writer.write(TRACED % (one, one[::-1], one))
                        await head(reader)
                        assert await reader.readexactly(2) == b"ok"
                    writer.close()
                if "trace: true" in str(parts):
                    memory = proxy.data._context.trace_memory
                    assert [memory.recall(b"x-mesh-tag", one, monotonic()) for one in IDS] == [b"base"] * TIMES

    run(test())
    edge = "use_remote_address" in str(parts)
    wanted = [[b"00-" + one + b"-01", one[::-1] + b"-%", one] for one in IDS]
    if "internal_only" in str(parts):
        wanted = [[b"", *one[1:]] for one in wanted]
    assert [one[:2] for one in got] == [one[:2] for one in wanted]
    assert len({one[2] for one in got}) == TIMES
    assert edge or got == wanted
    assert COMPILED or "cluster" in parts or (went.count(True) >= TIMES - FIRST if at_once else not any(went))


@pytest.mark.parametrize("answer", [OK, ANSWER], ids=["a time", "no time"])
@pytest.mark.parametrize("suppressed", [False, True], ids=["", "suppressed"])
def test_what_is_logged_is_each_request_s_own(answer: bytes, suppressed: bool, went: list[bool], tmp_path: Path) -> None:
    """Whichever way they go."""
    operators = ["REQ(X-REQUEST-ID)", "STREAM_ID", "REQ(TRACEPARENT)", "REQ(B3)", "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)"]
    line = " ".join([f"%{one}%" for one in operators])
    text = f'log_format: {{text_format_source: {{inline_string: "{line}\\n"}}}}'
    log = file_log(text).replace("/dev/null", str(tmp_path / "log"))
    sent: list[bytes] = []

    async def test() -> None:
        more = f"access_log: [{log}]" + (f", {SUPPRESSED}" if suppressed else "")
        async with upstream(Endpoint(answer).serve) as address, plane(web(endpoint=at(address), hcm=more)) as proxy:
            for request, times in ((GET, 1), (TRACED, 3)):
                reader, writer = await proxy.connect("web")
                for one in IDS:
                    writer.write(request % ((one,) * times))
                    found = re.findall(rb"\r\nx-envoy-upstream-service-time: (.*?)\r\n", await head(reader))
                    sent.append(found[0] if found else b"-")
                    assert await reader.readexactly(2) == b"ok"
                writer.close()

    run(test())
    wanted = [f"{one} {one} - -" for one in map(bytes.decode, IDS)]
    wanted += [f"{one} {one} 00-{one}-01 {one}-%" for one in map(bytes.decode, IDS)]
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"{one} {time.decode()}" for one, time in zip(wanted, sent, strict=True)]
    if suppressed:
        assert sent == ([b"%d" % (1_000_001 + number) for number in range(2 * TIMES)] if answer == OK else [b"-"] * 2 * TIMES)


def test_an_id_of_ours_takes_the_place_of_one_from_outside(went: list[bool]) -> None:
    endpoint = Endpoint()

    async def test() -> None:
        async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), hcm="use_remote_address: true")) as proxy:
            await ask(proxy, GET, IDS)

    run(test())
    assert len(set(endpoint.ids)) == TIMES
    assert set(endpoint.ids).isdisjoint(IDS)
    assert COMPILED or any(went)


def test_a_route_may_look_at_the_id(went: list[bool]) -> None:
    """Then heads that differ in it are not alike."""
    route = (
        "match: {prefix: /, headers: [{name: X-Request-Id, string_match: {suffix: '7'}}]}, direct_response: {status: 404, "
        "body: {inline_string: 'no'}}}, {match: {prefix: /}, route: {cluster: a}"
    )

    found: list[bytes] = []

    async def test() -> None:
        async with upstream(Endpoint().serve) as address, plane(web(endpoint=at(address), route=route)) as proxy:
            reader, writer = await proxy.connect("web")
            for one in IDS:
                writer.write(GET % one)
                found.append((await head(reader))[9:12])
                await reader.readexactly(2)
            writer.close()

    run(test())
    assert found == [b"404" if one.endswith(b"7") else b"200" for one in IDS]
    assert not any(went)


@pytest.mark.parametrize("alike", [False, True], ids=["", "another field may say the id"])
def test_a_label_is_remembered_for_each_id(alike: bool, went: list[bool]) -> None:
    more = ", remember: true}], trace_ids: [x-mine, x-request-id"
    request = GET.replace(b"host: a\r\n", b"host: a\r\nx-mine: %b\r\n" % IDS[0]) if alike else GET

    async def test() -> None:
        filters = chain(label(f"labels: [{{name: x-mesh-tag, sources: [{{constant: base}}]{more}]"))
        async with upstream(Endpoint().serve) as address, plane(web(endpoint=at(address), hcm=filters)) as proxy:
            await ask(proxy, request, [IDS[0]] * 4 * alike + IDS)
            memory = proxy.data._context.trace_memory
            for one in IDS:
                assert memory.recall(b"x-mesh-tag", one, monotonic()) == b"base", one

    run(test())
    assert COMPILED or alike or went.count(True) >= TIMES - FIRST


def test_two_hops(went: list[bool]) -> None:
    """What the first adds is known to the second, and the other way round."""
    ids: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                got = await head(reader)
                ids.extend(re.findall(rb"\r\nx-request-id: (.*?)\r\n", got))
                writer.write(b"HTTP/1.1 200 OK\r\nserver: s\r\ncontent-length: 2\r\n\r\nok")

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as near:
            port = next(port for (name, _), port in near.ports.items() if name == "web")
            async with plane(web(endpoint=at(AddressConfig(host="127.0.0.1", port=port)))) as far:
                await ask(far, b"GET /two HTTP/1.1\r\nhost: a%.0b\r\n\r\n", IDS)
                await ask(far, b"GET /two HTTP/1.1\r\nhost: a%.0b\r\n\r\n", IDS)
                for proxy in (far, near):
                    assert proxy.stat("http.web.", "downstream_rq_total") == 2 * TIMES

    run(test())
    assert len(set(ids)) == 2 * TIMES
    assert COMPILED or went.count(True) >= 2 * (2 * TIMES - FIRST)
