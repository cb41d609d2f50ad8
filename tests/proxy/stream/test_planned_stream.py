"""The shortest way of usual requests and responses: nobody can tell it from the long one, by what is sent and counted."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Any

import pytest
from bootstraps import web
from label_support import chain, one_label, router
from plane_support import at, head, plane, run, upstream
from statistics_support import counted

from mesh_codecs.events import ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, requests
from mesh_codecs.http1.head_table import UNKNOWN, HeadTable
from mesh_proxy.stream.planned_stream import PlannedStream

TIMES = 6
GET = b"GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: u\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nserver: s\r\ndate: today\r\ncontent-length: 2\r\n\r\nok"
_VARIES = re.compile(
    rb"x-request-id: [0-9a-f-]{36}\r\n|date: [A-Z].*?\r\n|x-envoy-upstream-service-time: \d+\r\n"
    rb"|x-t: \d+\r\n|x-local: [\d.:]+\r\n"
)


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the whole responses were written at once."""
    seen: list[bool] = []
    whole = PlannedStream.on_upstream_whole

    def counted(*arguments: Any) -> bool:
        seen.append(whole(*arguments))
        return seen[-1]

    monkeypatch.setattr(PlannedStream, "on_upstream_whole", counted)
    monkeypatch.setattr(requests, "_table", HeadTable())  # no other test has sent these heads
    return seen


async def outcome(parts: dict[str, str], sent: bytes, response: bytes) -> tuple[set[bytes], bytes, dict[tuple[str, str], object]]:
    """What the endpoint got, what the callers got, and what was counted, for two connections of TIMES requests."""
    got: set[bytes] = set()
    answers: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                got.add(_VARIES.sub(b"", await head(reader)))
                writer.write(response)

    async with upstream(serve) as address, plane(web(endpoint=at(address), **parts)) as proxy:
        for _ in range(2):
            reader, writer = await proxy.connect("web")
            for _ in range(TIMES):
                writer.write(sent)
                with suppress(asyncio.IncompleteReadError):
                    text = await head(reader)
                    length = re.search(rb"content-length: (\d+)", text)
                    if b"chunked" in text:
                        text += await reader.readuntil(b"0\r\n\r\n")
                    elif not sent.startswith(b"HEAD") and b" 304 " not in text and length is not None:
                        text += await reader.readexactly(int(length[1]))
                    answers.append(text)
            writer.close()
        found = {(prefix, name): value for prefix, name, value in counted(proxy)}
    return got, _VARIES.sub(b"", b"".join(answers)), found


async def compare(parts: dict[str, str], sent: bytes, response: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome without the shortest way is that with it."""
    one = await outcome(parts, sent, response)
    with monkeypatch.context() as patch:
        patch.setattr(DownstreamHttp1, "receive_known", lambda *_: None)
        other = await outcome(parts, sent, response)
    assert one == other


@pytest.mark.parametrize(
    ("parts", "at_once"),
    [
        ({}, True),
        ({"hcm": "server_header_transformation: APPEND_IF_ABSENT"}, True),
        ({"hcm": "server_header_transformation: PASS_THROUGH"}, True),
        ({"hcm": "generate_request_id: false, use_remote_address: true"}, True),
        ({"hcm": "via: me"}, False),
        ({"hcm": "always_set_request_id_in_response: true"}, False),
        ({"hcm": "common_http_protocol_options: {max_requests_per_connection: 3}"}, False),
        ({"hcm": "common_http_protocol_options: {max_stream_duration: 30s}"}, False),
        ({"hcm": "request_timeout: 30s, stream_idle_timeout: 30s, request_headers_timeout: 30s"}, True),
        ({"action": "timeout: 3s, priority: HIGH"}, True),
        ({"action": "timeout: 0s"}, True),
        ({"action": "retry_policy: {retry_on: 5xx}"}, False),
        ({"action": "prefix_rewrite: /new"}, False),
        ({"host": "include_attempt_count_in_response: true"}, False),
        ({"table": "response_headers_to_add: [{header: {key: x-t, value: '%START_TIME(%s)%'}}]"}, False),
        ({"table": "response_headers_to_add: [{header: {key: x-local, value: '%UPSTREAM_LOCAL_ADDRESS%'}}]"}, False),
        ({"cluster": "outlier_detection: {consecutive_5xx: 100}"}, True),
        ({"cluster": "common_http_protocol_options: {max_stream_duration: 30s}"}, False),
        ({"cluster": "common_http_protocol_options: {max_requests_per_connection: 2}"}, True),
        ({"cluster": "lb_policy: RING_HASH"}, False),
        ({"hcm": chain(one_label("{header: user-agent}"), router(""))}, True),
        ({"hcm": chain(one_label("{percentage: 50, value: gray}, {constant: base}"), router(""))}, False),
    ],
    ids=str,
)
def test_it_makes_no_difference(parts: dict[str, str], at_once: bool, went: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare(parts, GET, OK, monkeypatch))
    assert all(went)
    assert bool(went) == at_once


ANSWERS = {
    "no server": (b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\nok", True),
    "no date": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
    "a time": (b"HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 7\r\ncontent-length: 2\r\n\r\nok", True),
    "a time at the end": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-envoy-upstream-service-time: 7\r\n\r\nok", True),
    "a time of another spelling": (b"HTTP/1.1 200 OK\r\nX-Envoy-upstream-service-time: 7\r\ncontent-length: 2\r\n\r\nok", False),
    "a time and a half": (b"HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 7.5\r\ncontent-length: 2\r\n\r\nok", False),
    "two times": (b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\n\r\nok" % (b"x-envoy-upstream-service-time: 7\r\n" * 2), False),
    "the mark": (b"HTTP/1.1 200 OK\r\nx-a: <milliseconds>\r\ncontent-length: 2\r\n\r\nok", False),
    "500": (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", True),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", False),
    "304": (b"HTTP/1.1 304 Same\r\ncontent-length: 2\r\n\r\n", False),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
    "last": (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", False),
    "twice": (b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n\r\nok", False),
    "first a 103": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, False),
    "unprobed": (b"HTTP/1.1 200 OK\r\nx-envoy-immediate-health-check-fail: 1\r\ncontent-length: 2\r\n\r\nok", True),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_the_answer(name: str, went: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    response, at_once = ANSWERS[name]
    run(compare({}, GET, response, monkeypatch))
    assert any(went) == at_once


REQUESTS = {
    "HEAD": (b"HEAD /x HTTP/1.1\r\nhost: a\r\n\r\n", False),
    "OPTIONS": (b"OPTIONS /x HTTP/1.1\r\nhost: a\r\n\r\n", True),
    "no body": (b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", True),
    "grpc": (b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n", False),
    "own id": (b"GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n\r\n", True),
    "own id of another spelling": (b"GET /x HTTP/1.1\r\nhost: a\r\nX-Request-Id: mine\r\n\r\n", False),
    "own id with a space": (b"GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: my own\r\n\r\n", False),
    "two ids": (b"GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: a\r\nx-request-id: b\r\n\r\n", False),
    "id not for us": (b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: x-request-id\r\nx-request-id: a\r\n\r\n", True),
    "internal": (b"GET /x HTTP/1.1\r\nhost: a\r\nx-envoy-internal: true\r\n\r\n", True),
    "force": (b"GET /x HTTP/1.1\r\nhost: a\r\nx-envoy-force-trace: 1\r\n\r\n", False),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_whatever_the_request(name: str, went: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    sent, at_once = REQUESTS[name]
    response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" if name == "HEAD" else OK
    run(compare({}, sent, response, monkeypatch))
    assert any(went) == at_once


def test_the_date_is_that_of_the_second(went: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    dates: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                await head(reader)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as proxy:
            reader, writer = await proxy.connect("web")
            now = 1_700_000_000
            monkeypatch.setattr("mesh_proxy.context.time.time", lambda: now)
            for turn in range(12):
                now = 1_700_000_000 + turn // 4
                writer.write(GET)
                found = re.search(rb"date: (.*?)\r\n", await head(reader))
                assert found is not None
                dates.append(found[1])
                assert await reader.readexactly(2) == b"ok"
            writer.close()

    run(test())
    assert any(went)
    assert [len(set(dates[turn : turn + 4])) for turn in (0, 4, 8)] == [1, 1, 1]
    assert len(set(dates)) == 3


def test_a_drain_is_told_and_a_pipeline_answered_in_order(went: list[bool]) -> None:
    """Both go the long way, or back to it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        with suppress(asyncio.IncompleteReadError):
            while True:
                asked = await head(reader)
                count += 1
                body = re.findall(rb"GET (\S+)", asked)[0]
                writer.write(b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    async def test() -> None:
        async with upstream(serve) as address, plane(web(endpoint=at(address))) as proxy:
            reader, writer = await proxy.connect("web")

            async def answered() -> tuple[bytes, bytes]:
                text = await head(reader)
                length = re.search(rb"content-length: (\d+)", text)
                assert length is not None
                return text, await reader.readexactly(int(length[1]))

            for _ in range(4):
                for path in (b"/1", b"/22", b"/333"):
                    writer.write(b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path)
                    assert (await answered())[1] == path
            assert any(went)
            paths = [b"/1", b"/22", b"/333"] * 3
            writer.write(b"".join([b"GET %b HTTP/1.1\r\nhost: a\r\n\r\n" % path for path in paths]))
            assert [(await answered())[1] for _ in paths] == paths
            proxy.data._context.draining = True
            writer.write(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n")
            text, body = await answered()
            assert b"connection: close" in text
            assert body == b"/1"
            assert await reader.read() == b""
            writer.close()

    run(test())


def test_a_connection_whose_heads_are_never_known_stops_asking() -> None:
    codec = DownstreamHttp1(Http1Settings())
    asked: list[bool] = []
    for number in range(UNKNOWN + 3):
        read = b"GET /%d?x HTTP/1.1\r\nhost: a\r\n\r\n" % number
        assert codec.receive_known(read) is None
        asked.append(codec._unknown <= UNKNOWN)
        assert len(codec.receive_data(read)) == 1
        _answer(codec)
    assert asked[0]
    assert not asked[-1]
    known = b"GET /known HTTP/1.1\r\nhost: a\r\n\r\n"
    for _ in range(2):
        assert codec.receive_known(known) is None
        codec.receive_data(known)
        _answer(codec)
    assert codec.receive_known(known) is not None


def _answer(codec: DownstreamHttp1) -> None:
    codec.send(ResponseHeaders(codec.stream, 204, Headers(), True))
    codec.data_to_send()
