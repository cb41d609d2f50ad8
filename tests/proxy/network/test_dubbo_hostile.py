"""Bodies made to hurt whoever decodes them: each passes as it came, for they are the provider's to refuse, and hurts nobody here.

A route asks for an attachment, so that every argument has to be stepped over; what cannot be is counted, and the call takes the
route that does not ask.
"""

from __future__ import annotations

from struct import pack

import pytest
from dubbo_support import wire
from dubbo_support.plane import Provider, bootstrap, id_of, read_frame, route, served
from plane_support import plane, run

OBJECT = "Ljava/lang/Object;"
MANY = pack(">i", 0x7FFFFFFF)
HEAD = b"".join(map(wire.string, ("2.0.2", "demo.HelloService", "1.0.0", "sayHello", OBJECT)))
GENERIC = b"".join(map(wire.string, ("2.0.2", "demo.HelloService", "1.0.0", "$invoke", wire.GENERIC)))
TAGGED = wire.value({"dubbo.tag": "gray"})

HOSTILE = {
    "lists in lists": b"W" * 100_000,
    "short lists in lists": b"\x79" * 100_000 + b"N",
    "maps in maps": b"H\x01a" * 50_000,
    "objects in objects": b"C\x01a\x91\x01b" + b"\x60" * 100_000,
    "a list of two thousand million": b"XI" + MANY + b"N" * 10,
    "a list of fewer than none": b"XI" + pack(">i", -1) + b"N",
    "a typed list of two thousand million": b"V\x04[intI" + MANY + b"\x90" * 10,
    "an array of objects of two thousand million": b"\x70\x07[object" + b"V\x90I" + MANY,
    "a string longer than the body": b"S\xff\xffabc",
    "a chunked string without an end": b"R\x00\x01a" * 30_000,
    "binary longer than the body": b"B\xff\xff\x00",
    "binary chunks without an end": b"A\x00\x01a" * 30_000,
    "four bytes of UTF-8": b"\x02\xf0\x9f\x9a\x80",
    "half a character": b"\x02\xe4",
    "a reference to nothing": b"QI" + MANY,
    "a reference before the first": b"QI" + pack(">i", -1),
    "a class without a definition": b"OI" + MANY,
    "a class with two thousand million fields": b"C\x01aI" + MANY + b"\x01b",
    "sixty thousand classes": b"".join(b"C\x05" + b"%05d" % n + b"\x90" for n in range(60_000)),
    "a type that is a reference to nothing": b"VI" + MANY + b"\x91N",
    "references that double": b"\x7a" + b"\x7aQ\x90Q\x90" * 2,
    "a list as a key": b"H\x78\x01aZ",
    "an unused tag": b"\x40",
    "the end of nothing": b"Z" * 100,
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["argument", "attachments", "name of the method"])
def test_hostile(name: str, where: str) -> None:
    evil = HOSTILE[name]
    if where == "argument":
        body = HEAD + evil + TAGGED
    elif where == "attachments":
        body = HEAD + b"N" + (b"H" + wire.string("x") + evil + b"Z" if name != "nothing" else b"")
    else:
        body = GENERIC + evil + TAGGED

    async def test() -> None:
        gray, plain = (
            Provider(lambda frame: wire.answer(id_of(frame), "gray")),
            Provider(lambda f: wire.answer(id_of(f), "plain")),
        )
        routes = ", ".join(
            (
                route("g", "{headers: [{name: dubbo.tag, string_match: {exact: gray}}]}"),
                route("g", "{method: {name: {exact: special}}}"),
                route("p"),
            )
        )
        async with (
            served(gray, plain) as (first, second),
            plane(bootstrap({"g": [first], "p": [second]}, routes=routes)) as one,
        ):
            reader, writer = await one.connect("dubbo")
            frame = wire.frame(0xC2, 0, 5, body)
            writer.write(frame + wire.call(request_id=6, attachments={"dubbo.tag": "gray"}) + wire.call(request_id=7))
            answers = {id_of(answer): answer for answer in [await read_frame(reader) for _ in range(3)]}
            assert answers[6] == wire.answer(6, "gray")
            assert answers[7] == wire.answer(7, "plain")
            assert answers[5][3] == 20
            passed = [received for received in (*gray.frames, *plain.frames) if len(received) == len(frame)]
            assert any(received[:4] + received[12:] == frame[:4] + frame[12:] for received in passed)
            assert one.stat("dubbo.d.", "cx_protocol_error") == 0
            writer.close()

    run(test())


@pytest.mark.parametrize(
    "head", [b"S\xff\xff", b"\x05abc", b"R\x00\x01a" * 1000, b"\x01\xff" * 5, wire.string("2.0.2") * 2, b"N" * 5, b"W" * 50_000]
)
def test_a_hostile_head_is_refused_and_the_connection_goes_on(head: bytes) -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(id_of(frame)))
        async with served(provider) as (address,), plane(bootstrap({"a": [address]})) as one:
            reader, writer = await one.connect("dubbo")
            writer.write(wire.frame(0xC2, 0, 5, head) + wire.call(request_id=6))
            answers = [await read_frame(reader), await read_frame(reader)]
            assert sorted((id_of(answer), answer[3]) for answer in answers) == [(5, 40), (6, 20)]
            writer.close()

    run(test())
