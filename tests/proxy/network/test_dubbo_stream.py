"""Dubbo calls that filters and access logs watch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import echo
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route, served
from plane_support import Plane, plane, run, until

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_filters.filter import FAULT_INJECTED, Filter, FilterStatus, Stream
from mesh_proxy.stream.dubbo_view import AttachmentHeaders, request_view
from mesh_proxy.stream.filter_chain import FilterChains


def message(frame: bytes) -> DubboMessage:
    (one,) = DubboCodec(HeadMemo()).receive_data(frame)
    assert isinstance(one, DubboMessage)
    return one


def log_line(format_: str, path: Path) -> str:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    return (
        f"access_log: [{{name: f, typed_config: {{'@type': {kind}, "
        f'path: "{path}", log_format: {{text_format_source: {{inline_string: "{format_}\\n"}}}}}}}}]'
    )


def test_the_view() -> None:
    one = message(wire.call(attachments={"Dubbo.Tag": "gray", "timeout": 3000, "deep": ["x"]}))
    view = request_view(one)
    assert (view.method, view.path, view.authority) == (b"POST", b"/demo.HelloService/sayHello", b"demo.HelloService")
    assert dict(view.headers.items()) == {b"path": b"demo.HelloService", b"dubbo.tag": b"gray", b"timeout": b"3000"}
    assert view.headers.get(b"dubbo.tag") == b"gray"
    assert request_view(message(wire.generic_call("hello"))).path == b"/demo.HelloService/hello"
    assert request_view(message(wire.frame(0xC8, 0, 1, b"xx"))).path == b"/"


def test_reading_the_view_decodes_nothing_that_nobody_asks_for() -> None:
    memo = HeadMemo()
    (one,) = DubboCodec(memo).receive_data(wire.call())
    assert isinstance(one, DubboMessage)
    headers = request_view(one).headers
    assert memo.counters.attachment_decodes == 0
    assert isinstance(headers, AttachmentHeaders)
    assert headers.apply()
    assert memo.counters.attachment_decodes == 0
    assert headers.get(b"path") == b"demo.HelloService"
    assert memo.counters.attachment_decodes == 1


def test_changes_become_one_splice() -> None:
    original = wire.call(types=wire.STRING, arguments=("world",), attachments={"Dubbo.Tag": "gray", "n": 5, "gone": "x"})
    one = message(original)
    headers = request_view(one).headers
    assert isinstance(headers, AttachmentHeaders)
    headers.set(b"dubbo.tag", b"blue")
    headers.add(b"new", b"1")
    headers.add(b"new", b"2")
    headers.remove(b"gone")
    assert headers.apply()
    after = one.attachments
    assert after is not None
    assert after.values == {b"path": b"demo.HelloService", b"Dubbo.Tag": b"blue", b"n": b"5", b"new": b"1,2"}
    assert one.frame[16:].startswith(original[16:].split(b"H\x04path")[0])
    assert one.arguments() == ["world"]
    assert not AttachmentHeaders(message(wire.frame(0xC8, 0, 1, b"xx"))).first
    opaque = AttachmentHeaders(message(wire.frame(0xC8, 0, 1, b"xx")))
    opaque.set(b"a", b"b")
    assert not opaque.apply()


@pytest.mark.parametrize("watched", [False, True])
def test_without_watchers_there_is_no_stream(watched: bool, tmp_path: Path) -> None:
    async def test() -> None:
        provider = Provider()
        manager = log_line("x", tmp_path / "log") if watched else ""
        async with proxied(provider, manager=manager) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            (connection,) = one.data._listeners["dubbo"].connections
            (call,) = connection.calls.values()  # type: ignore[attr-defined]
            assert (call.stream is not None) is watched
            upstream.write(wire.answer(id_of(frame)))
            await read_frame(reader)

    run(test())


FORMAT = (
    "%PROTOCOL% %REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(DUBBO.TAG)% %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %BYTES_RECEIVED%"
)


def test_requests_that_are_refused_unread_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = "%DUBBO_REQUEST_ID% %DUBBO_KIND% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DUBBO_STATUS%"
    large = (2000).to_bytes(4, "big") + bytes(2000)

    async def test() -> None:
        provider = Provider()
        manager = f"max_body_bytes: 1000, {log_line(line, path)}"
        async with proxied(provider, manager=manager) as (one, [(reader, writer)]):
            writer.write(wire.frame(0xC2, 0, 1, b"")[:12] + large + wire.frame(0x82, 0, 2, b"")[:12] + large)
            assert (await read_frame(reader))[3] == 40
            writer.write(wire.call(request_id=3))
            frame, upstream = await provider.next()
            writer.write(wire.call(request_id=3))
            await until(lambda: one.stat("dubbo.d.", "cx_protocol_error") == 1)
            upstream.write(wire.answer(id_of(frame)))
            assert await read_frame(reader) == wire.answer(3)
            assert await reader.read() == b""
            assert one.stat("dubbo.d.", "request") == 4
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())
    assert path.read_text().splitlines() == [
        "1 two-way - 400 DPE request_payload_too_large 40",
        "2 one-way - 400 DPE request_payload_too_large -",
        "3 two-way /demo.HelloService/sayHello 0 DPE dubbo.duplicate_id -",
        "3 two-way /demo.HelloService/sayHello 200 - via_upstream 20",
    ]


def test_access_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    good = wire.call(request_id=1, attachments={"dubbo.tag": "gray"})

    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, manager=log_line(FORMAT, path), interface="demo.HelloService") as (one, [(reader, writer)]):
            writer.write(good)
            await read_frame(reader)
            writer.write(wire.call(service="other.S", request_id=2))
            await read_frame(reader)
            writer.write(wire.frame(0xC2, 0, 3, b"\xff"))
            await read_frame(reader)
            writer.write(wire.call(request_id=4, one_way=True))
            await provider.next()
            await provider.next()
            provider.answer = None
            writer.write(wire.call(request_id=5))
            await provider.next()
            writer.close()
            await until(lambda: one.stat("dubbo.d.", "request_active") == 0)

    run(test())
    size = len(good)
    plain = len(wire.call())
    other = len(wire.call(service="other.S"))
    assert path.read_text().splitlines() == [
        f"Dubbo POST /demo.HelloService/sayHello demo.HelloService gray 200 - via_upstream a {size}",
        f"Dubbo POST /other.S/sayHello other.S - 404 NR route_not_found - {other}",
        "Dubbo - - - - 400 DPE hessian2.bad_tag - 17",
        f"Dubbo POST /demo.HelloService/sayHello demo.HelloService - 0 - - a {plain}",
        f"Dubbo POST /demo.HelloService/sayHello demo.HelloService - 0 DC downstream_remote_disconnect a {plain}",
    ]


def use(one: Plane, *filters: type[Filter]) -> None:
    """Put filters before the route of the next calls."""
    (connection,) = one.data._listeners["dubbo"].connections
    manager: Any = connection.manager  # type: ignore[attr-defined]
    manager.filter_chains = FilterChains([(kind.__name__, kind, False) for kind in filters])
    manager.watched = True


seen: list[object] = []


class Tagger(Filter):
    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        seen.append(event.path)
        event.headers.set(b"dubbo.tag", b"set")
        return FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        seen.append((event.status, event.headers.get(b"dubbo")))
        event.headers.set(b"served-by", b"mesh")
        return FilterStatus.CONTINUE

    def on_complete(self, stream: Stream) -> None:
        seen.append("complete")


class Later(Filter):
    __slots__ = ("task",)

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        async def work() -> None:
            await asyncio.sleep(0)
            stream.continue_request(self)

        self.task = stream.start_task(work(), "later")
        return FilterStatus.STOP

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        async def work() -> None:
            await asyncio.sleep(0)
            stream.continue_response(self)

        self.task = stream.start_task(work(), "later")
        return FilterStatus.STOP


class Limit(Filter):
    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        kind = event.headers.get(b"kind") or b""
        if not kind.isdigit():
            return FilterStatus.CONTINUE
        flag = FAULT_INJECTED if kind == b"555" else 0
        stream.send_local_reply(int(kind), b"not now", details="limited", flag=flag)
        return FilterStatus.STOP


class Never(Filter):
    __slots__ = ()

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        return FilterStatus.STOP


def test_filters_change_attachments_both_ways() -> None:
    seen.clear()

    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            use(one, Tagger, Later)
            for number in range(3):
                writer.write(wire.call(request_id=number, attachments={"dubbo.tag": "gray"}))
                answer = message(await read_frame(reader))
                assert (answer.request_id, answer.status) == (number, 20)
                assert answer.attachment(b"served-by") == b"mesh"
                assert answer.attachment(b"dubbo") == b"2.0.2"
            assert {message(frame).attachment(b"dubbo.tag") for frame in provider.frames} == {b"set"}

    run(test())
    assert seen == [b"/demo.HelloService/sayHello", (200, b"2.0.2"), "complete"] * 3


@pytest.mark.parametrize(
    ("http", "dubbo"), [(403, 80), (429, 100), (503, 80), (504, 31), (400, 40), (404, 60), (555, 70), (200, 20)]
)
def test_filters_answer(http: int, dubbo: int) -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            use(one, Tagger, Limit)
            seen.clear()
            writer.write(wire.call(request_id=1, attachments={"kind": str(http)}))
            frame = await read_frame(reader)
            assert (id_of(frame), frame[3]) == (1, dubbo)
            assert frame[16:] == (b"\x92" if dubbo == 20 else wire.string("not now"))
            assert seen[1:] == [(http, None), "complete"]
            writer.write(wire.call(request_id=2, attachments={"kind": str(http)}, one_way=True) + wire.call(request_id=3))
            assert message(await read_frame(reader)).request_id == 3
            assert len(provider.frames) == 1
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_a_held_call_ends_with_its_consumer() -> None:
    async def test() -> None:
        async with proxied(Provider(echo)) as (one, [(_, writer)]):
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            use(one, Tagger, Never)
            seen.clear()
            writer.write(wire.call(request_id=1))
            await until(lambda: one.stat("dubbo.d.", "request_active") == 1)
            writer.close()
            await until(lambda: one.stat("dubbo.d.", "request_active") == 0)
            assert seen[-1] == "complete"

    run(test())


def test_our_own_errors_pass_the_response_filters() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), interface="demo.HelloService") as (one, [(reader, writer)]):
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            use(one, Tagger, Later)
            seen.clear()
            writer.write(wire.call(service="demo.Unknown", request_id=1))
            frame = await read_frame(reader)
            assert (id_of(frame), frame[3]) == (1, 60)
            assert seen == [b"/demo.Unknown/sayHello", (404, None), "complete"]

    run(test())


HTTP = "type.googleapis.com/envoy.extensions.filters.http"
MUTATION = (
    f"{{name: mutate, config: {{'@type': {HTTP}.header_mutation.v3.HeaderMutation, mutations: {{request_mutations: ["
    "{append: {header: {key: dubbo.tag, value: blue}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}, {remove: path}]}}}"
)
ABORT = "{http_status: 503, percentage: {numerator: 100}}"
FAULT = f"{{name: fault, config: {{'@type': {HTTP}.fault.v3.HTTPFault, abort: {ABORT}}}}}"


def test_filters_of_http_by_configuration() -> None:
    async def test() -> None:
        provider, blue = Provider(echo), Provider(lambda frame: wire.answer(id_of(frame), "blue"))
        tagged = route("b", "{headers: [{name: dubbo.tag, string_match: {exact: blue}}]}")
        async with (
            served(provider, blue) as (first, second),
            plane(bootstrap({"a": [first], "b": [second]}, routes=f"{tagged}, {route()}", dubbo_filters=MUTATION)) as one,
        ):
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1, attachments={"dubbo.tag": "gray"}))
            # The route is looked up by what the filters left.
            assert await read_frame(reader) == wire.answer(1, "blue")
            found = message(blue.frames[0]).attachments
            assert found is not None
            assert found.values == {b"dubbo.tag": b"blue"}
            writer.close()

    run(test())


def test_an_injected_fault() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), dubbo_filters=FAULT) as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.error(1, 70, "fault filter abort")

    run(test())
