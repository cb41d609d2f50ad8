"""The shortest way over HTTP/2: nobody can tell it from the long one, by what is sent and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bootstraps import options, web
from http2_support.caller import Caller
from label_support import chain, one_label, router
from plane_support import Plane, at, plane, run, until, upstream
from statistics_support import counted

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import Data, Event, RequestHeaders, ResponseHeaders, StreamReset, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_codecs.http2.frames import goaway_frame
from mesh_proxy.network.http2_known import KnownRequests
from mesh_proxy.upstream.http2_planned import PlannedRequest

TIMES = 8
TIME = b"x-envoy-upstream-service-time"
KIND = options("explicit_http_config: {http2_protocol_options: {}}")
GRPC = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
MESSAGE = b"\0\0\0\0\x02ok"
Fields = tuple[tuple[bytes, bytes], ...]
Script = Callable[[int, int], list[Event]]
"""what the endpoint sends on a stream, the n-th of its connection"""
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
LOG = "path: /dev/null, log_format: {text_format_source: {inline_string: one}}"
STEPS = ("open_known", "take_head", "take_data", "take_trailers", "take_request_data")


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each step was taken at once."""
    seen: Counter[str] = Counter()

    def watch(kind: type, name: str) -> None:
        step = getattr(kind, name)

        def counted(*arguments: Any) -> bool:
            done = bool(step(*arguments))
            seen[name] += done
            return done

        monkeypatch.setattr(kind, name, counted)

    watch(KnownRequests, "open_known")
    for name in STEPS[1:]:
        watch(PlannedRequest, name)
    return seen


def answer(
    status: int = 200,
    fields: Fields = ((b"content-type", b"text/plain"),),
    body: bytes = b"hello",
    trailers: Fields = (),
    pieces: int = 1,
) -> Script:
    def script(stream_id: int, _: int) -> list[Event]:
        events: list[Event] = [ResponseHeaders(stream_id, status, Headers(list(fields)), not body and not trailers)]
        size = len(body) // pieces
        for piece in range(pieces if body else 0):
            last = piece == pieces - 1
            data = body[piece * size :] if last else body[piece * size : (piece + 1) * size]
            events.append(Data(stream_id, data, last and not trailers))
        if trailers:
            events.append(Trailers(stream_id, Headers(list(trailers))))
        return events

    return script


def grpc(status: bytes = b"0", **more: Any) -> Script:
    more.setdefault("body", MESSAGE)
    return answer(fields=GRPC[:1], trailers=((b"grpc-status", status),), **more)


def changing(stream_id: int, number: int) -> list[Event]:
    """A head that is never the same."""
    return answer(fields=((b"etag", b"%d" % number),))(stream_id, number)


def early(stream_id: int, number: int) -> list[Event]:
    """Reset in the middle."""
    return [*answer()(stream_id, number)[:1], StreamReset(stream_id, ResetReason.LOCAL_RESET)]


class Endpoint:
    """Answers each request by the script: all in one write, or each event in one of its own."""

    def __init__(self, script: Script, *, at_once: bool = True) -> None:
        self.script, self.at_once = script, at_once
        self.got: list[object] = []
        self.ids: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        codec = Http2Codec(downstream=True)
        number = 0
        while received := await reader.read(65536):
            ended: list[int] = []
            for event in codec.receive_data(received):
                if isinstance(event, RequestHeaders):
                    fields = {**event.headers.first}
                    if b"x-request-id" in fields:
                        self.ids.append(fields[b"x-request-id"])
                        fields[b"x-request-id"] = b"made"
                    self.got.append((event.method, event.scheme, event.authority, event.path, fields, event.headers.more))
                elif isinstance(event, Data):
                    codec.acknowledge(event.stream_id, event.flow_size)
                    self.got.append(event.data)
                if getattr(event, "end_stream", False) or isinstance(event, Trailers):
                    ended.append(event.stream_id)
            for stream_id in ended:
                for event in self.script(stream_id, number):
                    codec.send(event)
                    if not self.at_once:
                        writer.writelines(codec.data_to_send())
                        await asyncio.sleep(0.001)
                number += 1
            writer.writelines(codec.data_to_send())
        writer.close()


class Ask:
    """A request: its head, the pieces of its body, and the time between them."""

    def __init__(self, fields: Fields = (), *pieces: bytes, apart: bool = False, method: bytes = b"", together: int = 1) -> None:
        self.fields, self.pieces, self.apart, self.together = fields, pieces, apart, together
        self.method = method or (b"POST" if pieces else b"GET")

    def events(self, stream_id: int) -> list[Event]:
        head = RequestHeaders(stream_id, self.method, b"http", b"a", b"/a.B/C", Headers(list(self.fields)), not self.pieces)
        return [head, *[Data(stream_id, one, at == len(self.pieces)) for at, one in enumerate(self.pieces, 1)]]

    async def call(self, caller: Caller) -> list[object]:
        streams = []
        for _ in range(self.together):
            stream_id = caller.codec.open_stream()
            assert stream_id is not None
            streams.append(stream_id)
            for event in self.events(stream_id):
                caller.codec.send(event)
                if self.apart:
                    caller.flush()
                    await asyncio.sleep(0.001)
        caller.flush()
        found: list[object] = []
        for stream_id in streams:
            one = await caller.answer(stream_id)
            fields = {name: value for name, value in one.headers.first.items() if name not in (TIME, b"date")}
            trailers = None if one.trailers is None else one.trailers.first
            found.append((one.status, fields, one.body, trailers, one.reset and one.reset.error_code, TIME in one.headers.first))
        return found


async def outcome(parts: dict[str, str], ask: Ask, endpoint: Endpoint, **settings: Any) -> tuple[object, ...]:
    """What the endpoint got, what the callers got, and what was counted, for two connections."""
    answers: list[object] = []
    parts = dict(parts)
    kind = options("explicit_http_config: {http2_protocol_options: {}}, " + parts.pop("kind", ""))
    parts["cluster"] = f"{kind}, {parts['cluster']}" if "cluster" in parts else kind
    async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), **parts)) as proxy:
        for _ in range(2):
            caller = Caller(*await proxy.connect("web"), **settings)
            for _ in range(TIMES):
                answers.extend(await ask.call(caller))
            await until(lambda: idle(proxy))
            caller.writer.close()
        # Written logs are counted when the time comes.
        found = {
            (prefix, name): value for prefix, name, value in counted(proxy) if prefix != "filesystem." or name == "write_buffered"
        }
    return endpoint.got, answers, found


def idle(proxy: Plane) -> bool:
    return proxy.stat("http.web.", "downstream_rq_active") == 0 and proxy.stat("cluster.a.", "upstream_rq_active") == 0


async def compare(
    parts: dict[str, str], ask: Ask, script: Script, monkeypatch: pytest.MonkeyPatch, *, at_once: bool = True, **settings: Any
) -> None:
    """The outcome without the shortest way is that with it."""
    one = await outcome(parts, ask, Endpoint(script, at_once=at_once), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(KnownRequests, "open_known", lambda *_: False)
        other = await outcome(parts, ask, Endpoint(script, at_once=at_once), **settings)
    assert one == other


@pytest.mark.parametrize(
    ("parts", "at_once"),
    [
        ({}, True),
        ({"hcm": "server_header_transformation: APPEND_IF_ABSENT"}, True),
        ({"hcm": "server_header_transformation: PASS_THROUGH"}, True),
        ({"hcm": "generate_request_id: false, use_remote_address: true"}, True),
        ({"hcm": "via: me"}, False),
        ({"hcm": f"access_log: [{{name: l, typed_config: {{'@type': {FILE_LOG}, {LOG}}}}}]"}, False),
        ({"hcm": "always_set_request_id_in_response: true, generate_request_id: false"}, False),
        ({"hcm": "common_http_protocol_options: {max_requests_per_connection: 30}"}, False),
        ({"hcm": "common_http_protocol_options: {max_stream_duration: 30s}"}, False),
        ({"hcm": "common_http_protocol_options: {headers_with_underscores_action: DROP_HEADER}"}, False),
        ({"hcm": "request_timeout: 30s, stream_idle_timeout: 30s, request_headers_timeout: 30s"}, True),
        ({"action": "timeout: 3s, priority: HIGH"}, True),
        ({"action": "timeout: 0s"}, True),
        ({"action": "retry_policy: {retry_on: 5xx}"}, False),
        ({"host": "include_attempt_count_in_response: true"}, False),
        ({"table": "response_headers_to_add: [{header: {key: x-t, value: there}}]"}, False),
        ({"cluster": "outlier_detection: {consecutive_5xx: 100}"}, True),
        ({"kind": "common_http_protocol_options: {max_requests_per_connection: 6}"}, True),
        ({"cluster": "lb_policy: RING_HASH"}, False),
        ({"hcm": chain(one_label("{header: user-agent}"), router(""))}, True),
        ({"hcm": chain(one_label("{percentage: 100, value: gray}, {constant: base}"), router(""))}, False),
    ],
    ids=str,
)
def test_it_makes_no_difference(
    parts: dict[str, str], at_once: bool, went: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(compare(parts, Ask(((b"user-agent", b"u"),)), answer(), monkeypatch))
    assert bool(went["take_head"]) == bool(went["take_data"]) == at_once


ANSWERS: dict[str, tuple[Script, set[str]]] = {
    "plain": (answer(), {"take_head", "take_data"}),
    "in pieces": (answer(body=b"x" * 3000, pieces=3), {"take_head", "take_data"}),
    "large": (answer(body=b"x" * 40_000), {"take_head", "take_data"}),
    "larger than the window": (answer(body=b"x" * 60_000, pieces=2), {"take_head", "take_data"}),
    "empty": (answer(body=b""), set()),
    "500": (answer(500), {"take_head", "take_data"}),
    "304": (answer(304, body=b""), set()),
    "no date": (answer(fields=()), {"take_head", "take_data"}),
    "a date": (answer(fields=((b"date", b"today"), (b"server", b"s"))), {"take_head", "take_data"}),
    "a time": (answer(fields=((TIME, b"7"),)), {"take_head", "take_data"}),
    "a length": (answer(fields=((b"content-length", b"5"),)), {"take_head", "take_data"}),
    "a wrong length": (answer(fields=((b"content-length", b"7"),)), {"take_head"}),
    "twice": (answer(fields=((b"x-a", b"1"), (b"x-a", b"2"))), {"take_data"}),
    "always another": (changing, {"take_data"}),
    "trailers": (answer(trailers=((b"x-sum", b"1"),)), {"take_head", "take_data", "take_trailers"}),
    "trailers alone": (answer(body=b"", trailers=((b"x-sum", b"1"),)), {"take_head", "take_trailers"}),
    "trailers twice": (answer(trailers=((b"x-a", b"1"), (b"x-a", b"2"))), {"take_head", "take_data", "take_trailers"}),
    "dropped trailers": (answer(trailers=((b"content-length", b"1"),)), {"take_head", "take_data"}),
    "no probe": (answer(fields=((b"x-envoy-immediate-health-check-fail", b"1"),)), {"take_data"}),
    "reset": (early, {"take_head"}),
}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "piece by piece"])
@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_the_answer(name: str, at_once: bool, went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script, steps = ANSWERS[name]
    run(compare({}, Ask(), script, monkeypatch, at_once=at_once))
    assert went["open_known"]
    if at_once and "take_head" not in steps:
        steps = set()  # an event goes before the rest
    assert {step for step in STEPS[1:] if went[step]} == steps


CALLS = {
    "ok": grpc(),
    "failed": grpc(b"13"),
    "refused": grpc(b"7"),
    "no number": grpc(b"what"),
    "no status": answer(fields=GRPC[:1], body=MESSAGE),
    "no message": grpc(body=b""),
    "many messages": grpc(body=MESSAGE * 40, pieces=40),
    "status in the head": answer(fields=(*GRPC[:1], (b"grpc-status", b"0")), body=MESSAGE),
    "at the head": answer(fields=(*GRPC[:1], (b"grpc-status", b"14")), body=b""),
}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "piece by piece"])
@pytest.mark.parametrize("name", CALLS)
def test_grpc(name: str, at_once: bool, went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(compare({}, Ask(GRPC, MESSAGE), CALLS[name], monkeypatch, at_once=at_once))
    assert went["open_known"]
    assert went["take_request_data"]
    assert bool(went["take_trailers"]) == ("status" not in name and name != "at the head")


ASKS = {
    "HEAD": (Ask(method=b"HEAD"), False),
    "small body": (Ask((), b"x" * 100), True),
    "pieces": (Ask((), b"a", b"b", b"c"), True),
    "pieces apart": (Ask((), b"a", b"b", b"c", apart=True), True),
    "large": (Ask((), b"x" * 60_000), True),
    "announced": (Ask(((b"content-length", b"1"),), b"a"), True),
    "ended by nothing": (Ask((), b"a", b""), True),
    "own id": (Ask(((b"x-request-id", b"mine"),)), False),
    "own trace": (Ask(((b"x-envoy-force-trace", b"1"),)), False),
    "together": (Ask((), together=5), False),
    "together with bodies": (Ask(GRPC, MESSAGE, together=5), True),
}


@pytest.mark.parametrize("name", ASKS)
def test_whatever_the_request(name: str, went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ask, body = ASKS[name]
    run(compare({}, ask, grpc() if ask.fields == GRPC else answer(body=b"" if name == "HEAD" else b"ok"), monkeypatch))
    assert bool(went["open_known"]) == (name not in ("own trace", "HEAD"))
    assert bool(went["take_request_data"]) == body


def test_requests_keep_their_ids(went: Counter[str]) -> None:
    """Also where heads that differ in nothing else share a plan."""

    async def body() -> None:
        endpoint = Endpoint(answer())
        async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), cluster=KIND)) as proxy:
            caller = Caller(*await proxy.connect("web"))
            ids = [b"one", b"two", b"one", b"two", b"three"] * 4
            for name in ids:
                await Ask(((b"x-request-id", name), (b"traceparent", name))).call(caller)
            caller.writer.close()
        assert endpoint.ids == ids
        assert [one[4][b"traceparent"] for one in endpoint.got] == ids  # type: ignore[index]

    run(body())
    assert went["open_known"]


@pytest.mark.parametrize("ask", [Ask(), Ask(GRPC, MESSAGE)], ids=["plain", "grpc"])
def test_an_endpoint_that_does_not_answer(ask: Ask, went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def every_second(stream_id: int, number: int) -> list[Event]:
        return grpc()(stream_id, number) if number % 2 else []

    run(compare({"action": "timeout: 0.1s"}, ask, every_second, monkeypatch))
    assert went["open_known"]


def test_a_caller_with_small_windows(went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    script = answer(body=b"x" * 5000, pieces=5)
    run(compare({}, Ask(), script, monkeypatch, at_once=False, initial_stream_window_size=1500))
    assert went["take_head"]
    assert went["take_data"]


def test_an_endpoint_that_is_not_there(went: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes away after some requests: the next ones are answered by us."""

    async def gone() -> list[object]:
        endpoint = Endpoint(answer())
        answers: list[object] = []
        async with upstream(endpoint.serve) as address:
            proxy_context = plane(web(endpoint=at(address), cluster=KIND))
            proxy = await proxy_context.__aenter__()
            caller = Caller(*await proxy.connect("web"))
            for _ in range(TIMES):
                answers.extend(await Ask().call(caller))
        for _ in range(2):
            answers.append([one[0] for one in await Ask().call(caller)])  # type: ignore[index]
        await until(lambda: idle(proxy))
        answers.append({(prefix, name): value for prefix, name, value in counted(proxy) if "cx_" not in name})
        caller.writer.close()
        await proxy_context.__aexit__(None, None, None)
        return answers

    async def body() -> None:
        one = await gone()
        with monkeypatch.context() as patch:
            patch.setattr(KnownRequests, "open_known", lambda *_: False)
            assert await gone() == one

    run(body())
    assert went["take_head"]


class Leaving(Endpoint):
    """Says GOAWAY instead of answering the seventh request of a connection, which it has not looked at."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        codec = Http2Codec(downstream=True)
        seen = 0
        while received := await reader.read(65536):
            for event in codec.receive_data(received):
                if isinstance(event, RequestHeaders):
                    seen += 1
                    self.ids.append(event.headers.first[b"x-request-id"])
                elif isinstance(event, Data) and seen <= 6:
                    self.got.append(event.data)
                if getattr(event, "end_stream", False):
                    if seen == 7:
                        writer.writelines([*codec.data_to_send(), goaway_frame(event.stream_id - 2, 0)])
                    elif seen < 7:
                        for one in self.script(event.stream_id, seen):
                            codec.send(one)
            if seen < 7:
                writer.writelines(codec.data_to_send())
        writer.close()


@pytest.mark.parametrize(
    "ask", [Ask(GRPC, MESSAGE), Ask(GRPC, MESSAGE, MESSAGE, apart=True), Ask(GRPC)], ids=["body", "two", "none"]
)
def test_requests_that_are_left_behind(ask: Ask, went: Counter[str]) -> None:
    """They go to another connection as they were."""

    async def body() -> None:
        endpoint = Leaving(grpc())
        async with upstream(endpoint.serve) as address, plane(web(endpoint=at(address), cluster=KIND)) as proxy:
            caller = Caller(*await proxy.connect("web"))
            for _ in range(20):
                (one,) = await ask.call(caller)
                assert isinstance(one, tuple)
                assert (one[0], one[2]) == (200, MESSAGE)
            caller.writer.close()
            await until(lambda: idle(proxy))
        assert len(endpoint.ids) == 23
        assert len(set(endpoint.ids)) == 20
        assert b"".join(one for one in endpoint.got if isinstance(one, bytes)) == b"".join(ask.pieces) * 20

    run(body())
    assert went["take_trailers"]


def test_credit_for_bodies_goes_back(went: Counter[str]) -> None:
    """Far more than the windows of either side take, in calls that are forwarded piece by piece."""

    async def body() -> None:
        endpoint = Endpoint(grpc(body=b"y" * 16_000, pieces=4))
        async with upstream(endpoint.serve) as address:
            cluster = options("explicit_http_config: {http2_protocol_options: {initial_connection_window_size: 65535}}")
            hcm = "http2_protocol_options: {initial_connection_window_size: 65535}"
            async with plane(web(endpoint=at(address), cluster=cluster, hcm=hcm)) as proxy:
                caller = Caller(*await proxy.connect("web"))
                for _ in range(40):
                    (one,) = await Ask(GRPC, b"x" * 12_000, b"x" * 4000, apart=True).call(caller)
                    assert isinstance(one, tuple)
                    assert len(one[2]) == 16_000
                caller.writer.close()
                await until(lambda: idle(proxy))

    run(body())
    assert went["take_request_data"] > 30
    assert went["take_data"] > 100
