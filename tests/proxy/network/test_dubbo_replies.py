"""What a consumer gets when its call cannot be carried: valid responses, at once, and a connection that stays usable."""

from __future__ import annotations

import pytest
from dubbo_support import wire
from dubbo_support.endpoints import echo
from dubbo_support.plane import Provider, bootstrap, id_of, proxied, read_frame, route
from dubbo_vectors import IDS, recorded_bodies
from plane_support import plane, run, until

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, Refusal
from mesh_codecs.dubbo.frame import BAD_REQUEST, CLIENT_ERROR, SERVER_ERROR, SERVICE_NOT_FOUND
from mesh_codecs.events import ConnectionFailed
from mesh_proxy.stream.dubbo_replies import OUTCOMES

MIB = 1024 * 1024


def refused(frame: bytes) -> tuple[int, int, str]:
    """Id, status and text of an error; whole, in hessian2."""
    (message,) = DubboCodec(HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    assert frame[2] == 0x02
    body = frame[16:]
    size, start = (body[0], 1) if body[0] < 0x20 else (((body[0] - 0x30) << 8) + body[1], 2)
    assert len(body) == start + size
    return message.request_id, message.status, body[start:].decode()


def test_every_reason_has_its_row() -> None:
    assert set(OUTCOMES) == set(Refusal)


def test_no_route() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), interface="demo.Other") as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=-4) + wire.call(request_id=5, one_way=True))
            assert refused(await read_frame(reader)) == (-4, SERVICE_NOT_FOUND, "mesh-proxy: no route")
            assert one.stat("dubbo.d.", "request_no_route") == 2
            assert one.stat("dubbo.d.", "request_active") == 0

    run(test())


def test_no_endpoint() -> None:
    async def test() -> None:
        async with plane(bootstrap({"a": []})) as one:
            reader, writer = await one.connect("dubbo")
            writer.write(wire.call(request_id=1))
            assert refused(await read_frame(reader)) == (1, SERVER_ERROR, "mesh-proxy: no healthy upstream, cluster a")
            writer.close()

    run(test())


@pytest.mark.parametrize("body", [b"", b"\x05", b"\xff" * 40, b"NNNNN", wire.string("2.0.2") + b"N"])
def test_a_malformed_body_is_refused_and_the_connection_goes_on(body: bytes) -> None:
    async def test() -> None:
        async with proxied(Provider(echo)) as (one, [(reader, writer)]):
            writer.write(wire.frame(0xC2, 0, 9, body) + wire.call(request_id=10))
            request_id, status, text = refused(await read_frame(reader))
            assert (request_id, status) == (9, BAD_REQUEST)
            assert text.startswith("mesh-proxy: bad request")
            assert await read_frame(reader) == wire.answer(10)
            assert one.stat("dubbo.d.", "request_decoding_error") == 1

    run(test())


def test_a_request_over_the_limit_is_answered_before_its_body_comes_and_stepped_over() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider) as (one, [(reader, writer)]):
            size = 8 * MIB + 1
            writer.write(wire.frame(0xC2, 0, 1, b"")[:12] + size.to_bytes(4, "big"))
            request_id, status, text = refused(await read_frame(reader))
            assert (request_id, status) == (1, BAD_REQUEST)
            assert "8388609" in text
            for _ in range(8):
                writer.write(bytes(MIB))
                await writer.drain()
            (connection,) = one.data._listeners["dubbo"].connections
            assert connection.codec.pending == b""  # type: ignore[attr-defined]
            writer.write(b"\0" + wire.call(request_id=2))
            assert await read_frame(reader) == wire.answer(2)
            assert len(provider.frames) == 1
            assert one.stat("dubbo.d.", "request_too_large") == 1

    run(test())


def test_a_response_over_the_limit_becomes_an_error_of_its_call() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, cluster_options="max_body_bytes: 1000") as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=2))
            (first, upstream), (second, _) = await provider.next(), await provider.next()
            upstream.write(wire.answer(id_of(first), "x" * 1000) + wire.answer(id_of(second)))
            request_id, status, text = refused(await read_frame(reader))
            assert (request_id, status) == (1, CLIENT_ERROR)
            assert "too large" in text
            assert await read_frame(reader) == wire.answer(2)
            assert one.stat("dubbo.d.", "response_too_large") == 1
            assert one.stat("cluster.a.", "upstream_rq_active") == 0

    run(test())


def test_eight_megabytes_pass_both_ways() -> None:
    async def test() -> None:
        payload = "x" * 32768
        big = wire.frame(0xC2, 0, 1, wire.call_body(types=wire.STRING * 250, arguments=(payload,) * 250))
        assert 7.8 * MIB < len(big) < 8 * MIB
        answer = wire.frame(0x02, 20, 0, b"\x94" + b"".join(map(wire.value, [[payload] * 250])) + wire.value({}))
        provider = Provider(lambda frame: answer[:4] + frame[4:12] + answer[12:])
        async with proxied(provider, consumers=2) as (_, consumers):
            for reader, writer in consumers:
                writer.write(big)
                received = await read_frame(reader)
                assert received == answer[:4] + big[4:12] + answer[12:]
            assert all(frame[:4] + frame[12:] == big[:4] + big[12:] for frame in provider.frames)

    run(test())


@pytest.mark.parametrize(
    "garbage", [b"\xda\xbc" + bytes(14), b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"ls\r\n"]
)
def test_garbage_ends_its_connection_and_no_other(garbage: bytes) -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=2) as (one, [(reader, writer), (other_reader, other_writer)]):
            other_writer.write(wire.call(request_id=1))
            _, upstream = await provider.next()
            writer.write(wire.call(request_id=7) + garbage + wire.call(request_id=8))
            frame, _ = await provider.next()
            upstream.write(wire.answer(id_of(frame), "seven"))
            # What was asked before the garbage is still answered; what came behind it is not looked at.
            assert await read_frame(reader) == wire.answer(7, "seven")
            assert await reader.read() == b""
            upstream.write(wire.answer(id_of(provider.frames[0])))
            assert await read_frame(other_reader) == wire.answer(1)
            assert len(provider.frames) == 2
            assert one.stat("dubbo.d.", "cx_protocol_error") == 1

    run(test())


def test_people_are_told_in_words() -> None:
    async def test() -> None:
        async with proxied(Provider(echo)) as (_, [(reader, writer)]):
            writer.write(b"help\r\n")
            assert await reader.read() == b"mesh-proxy: telnet commands are not served here\r\n"

    run(test())


def test_a_negative_length_ends_the_connection() -> None:
    async def test() -> None:
        async with proxied(Provider(echo)) as (one, [(reader, writer)]):
            writer.write(wire.frame(0xC2, 0, 1, b"")[:12] + b"\x80\0\0\0")
            assert await reader.read() == b""
            assert one.stat("dubbo.d.", "cx_protocol_error") == 1

    run(test())


def test_garbage_from_a_provider_ends_its_connection_with_answers() -> None:
    async def test() -> None:
        provider = Provider()
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1) + wire.call(request_id=2))
            (frame, upstream), _ = await provider.next(), await provider.next()
            upstream.write(wire.answer(id_of(frame)) + b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert await read_frame(reader) == wire.answer(1)
            request_id, status, _ = refused(await read_frame(reader))
            assert (request_id, status) == (2, SERVER_ERROR)
            assert one.stat("cluster.a.", "upstream_cx_protocol_error") == 1
            provider.answer = echo
            writer.write(wire.call(request_id=3))
            assert await read_frame(reader) == wire.answer(3)

    run(test())


@pytest.mark.parametrize("status", [25, 30, 31, 35, 40, 50, 60, 70, 80, 90, 100, 77])
def test_every_status_of_a_provider_passes(status: int) -> None:
    async def test() -> None:
        async with proxied(Provider(lambda frame: wire.error(id_of(frame), status, "why"))) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.error(1, status, "why")
            assert one.stat("dubbo.d.", "response_error") == 1

    run(test())


@pytest.mark.parametrize("serialization", sorted(IDS))
def test_readable_serializations_are_routed_by_service_and_method(serialization: str) -> None:
    async def test() -> None:
        number = IDS[serialization]
        bodies = {name: body for (kind, name), body in recorded_bodies().items() if kind == serialization}
        call = wire.frame(0xC0 | number, 0, -3, next(body for name, body in bodies.items() if b"sayHello" in body))
        service = DubboCodec(HeadMemo()).receive_data(call)[0].service.decode()  # type: ignore[union-attr]
        provider = Provider(lambda frame: wire.frame(number, 20, id_of(frame), b"anything"))
        fields = {"interface": service, "routes": route(match="{method: {name: {exact: sayHello}}}")}
        async with proxied(provider, **fields) as (_, [(reader, writer)]):
            writer.write(call)
            assert await read_frame(reader) == wire.frame(number, 20, -3, b"anything")
            assert provider.frames[0][16:] == call[16:]

    run(test())


@pytest.mark.parametrize("number", [0, 1, 8, 9, 12, 21, 31])
def test_other_serializations_pass_on_the_default_route(number: int) -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.frame(number, 20, id_of(frame), b"\x00\xff"))
        async with proxied(provider) as (one, [(reader, writer)]):
            writer.write(wire.frame(0xC0 | number, 0, 4, b"\xff\x00\x01"))
            assert await read_frame(reader) == wire.frame(number, 20, 4, b"\x00\xff")
            assert provider.frames[0][2:4] + provider.frames[0][12:] == wire.frame(0xC0 | number, 0, 4, b"\xff\x00\x01")[2:4] + (
                b"\0\0\0\x03\xff\x00\x01"
            )
            assert one.stat("dubbo.d.", "cx_protocol_error") == 0
            assert one.stat("dubbo.d.", "request_opaque") == 1

    run(test())


def test_no_default_route_for_an_unreadable_call() -> None:
    async def test() -> None:
        async with proxied(Provider(echo), interface="demo.HelloService") as (_, [(reader, writer)]):
            writer.write(wire.frame(0xC8, 0, 4, b"\xff"))
            assert refused(await read_frame(reader))[:2] == (4, SERVICE_NOT_FOUND)
            writer.write(wire.call(request_id=5))
            assert await read_frame(reader) == wire.answer(5)

    run(test())


def test_a_consumer_that_ends_within_a_frame() -> None:
    async def test() -> None:
        provider = Provider(echo)
        async with proxied(provider, consumers=2) as (one, [(_, gone), (reader, writer)]):
            gone.write(wire.call()[:30])
            gone.close()
            await until(lambda: one.stat("dubbo.d.", "cx_active") == 1)
            writer.write(wire.call(request_id=1))
            assert await read_frame(reader) == wire.answer(1)
            assert len(provider.frames) == 1

    run(test())


def test_a_frame_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh_proxy.network.dubbo_manager.FRAME_TIMEOUT_S", 0.2)

    async def test() -> None:
        provider = Provider()
        async with proxied(provider, consumers=2) as (one, [(reader, writer), (other_reader, other_writer)]):
            other_writer.write(wire.call(request_id=1))
            frame, upstream = await provider.next()
            writer.write(wire.call()[:40])
            assert await reader.read() == b""
            assert one.stat("dubbo.d.", "cx_protocol_error") == 1
            # Who waits for an answer has all the time.
            upstream.write(wire.answer(id_of(frame)))
            assert await read_frame(other_reader) == wire.answer(1)

    run(test())


def test_frames_that_are_always_cut_are_no_reason() -> None:
    async def test() -> None:
        async with proxied(Provider(echo)) as (one, [(reader, writer)]):
            writer.write(wire.call(request_id=0)[:50])
            for number in range(3):
                writer.write(wire.call(request_id=number)[50:] + wire.call(request_id=number + 1)[:50])
                assert await read_frame(reader) == wire.answer(number)
            (connection,) = one.data._listeners["dubbo"].connections
            queue = connection.manager.frame_queue  # type: ignore[attr-defined]
            assert connection in queue.entries
            connection.on_deadline(queue, connection.last_call + queue.duration_s / 2)  # type: ignore[attr-defined]
            assert connection in queue.entries
            writer.write(wire.call(request_id=3)[50:])
            assert await read_frame(reader) == wire.answer(3)
            assert connection not in queue.entries
            assert one.stat("dubbo.d.", "cx_protocol_error") == 0

    run(test())


def test_the_connection_failure_of_the_codec_is_what_ends_it() -> None:
    codec = DubboCodec(HeadMemo())
    events = codec.receive_data(wire.call() + b"xx")
    assert isinstance(events[-1], ConnectionFailed)
