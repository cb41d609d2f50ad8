"""Views of a Dubbo message: what is decoded when, attachments found and edited by splices, arguments on demand."""

from __future__ import annotations

import pytest
from dubbo_vectors import CALL, GENERIC_BODY
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import Counters, DubboCodec, DubboMessage, HeadMemo, build_frame
from mesh_codecs.dubbo.body import AttachmentMemo
from mesh_codecs.dubbo.hessian2_body import MAX_ATTACHMENTS
from mesh_codecs.dubbo.invocation import count_arguments, supports_response_attachments
from mesh_codecs.dubbo.memo import MAX_HEAD_SIZE, MAX_HEADS
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.hessian2 import ClassDef, Date, Long, Map, Object, Reader, Ref, TypedList, dumps

PERSON = ClassDef("demo.Person", ("name", "friend"))


def receive(frame: bytes, memo: HeadMemo | None = None) -> DubboMessage:
    (message,) = DubboCodec(memo or HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    return message


def body(types: str, *rest: object, service: str = "demo.S", method: str = "m", version: object = "1.0.0") -> bytes:
    return dumps("2.0.2", service, version, method, types, *rest)


def call(types: str, *rest: object, tail: bytes = b"", **head: object) -> DubboMessage:
    return receive(build_frame(0xC2, 0, 1, body(types, *rest, **head) + tail))  # type: ignore[arg-type]


def all_values(message: DubboMessage) -> list[object]:
    """Every value of a request body, and the map of attachments last, as a Java peer would read them."""
    head = message.head
    assert head is not None
    reader = Reader(message.frame, head.arguments_at)
    values = [reader.read() for _ in range(head.argument_count)]
    if reader.pos < len(message.frame):
        values.append(reader.read())
    return values


def java_map(value: object) -> dict[object, object]:
    assert isinstance(value, Map)
    return dict(value.pairs)


def test_the_head_of_a_call() -> None:
    message = receive(CALL)
    assert message.service == b"demo.HelloService"
    assert message.service_version == b"1.0.0"
    assert message.method == message.real_method == b"sayHello"
    assert message.dubbo_version == b"2.0.2"
    assert message.parameter_types == b"Ljava/lang/String;"
    assert message.readable
    head = message.head
    assert head is not None
    assert (head.argument_count, head.generic, head.response_attachments) == (1, False, True)
    assert message.arguments() == ["world"]
    assert message.attachment(b"group") == message.group == b"g1"
    assert message.attachment(b"none") is None
    assert not message.has_callback
    assert not message.threw


def test_laziness_is_counted() -> None:
    counters = Counters()
    memo = HeadMemo(counters)
    for _ in range(5):
        message = receive(CALL, memo)
        assert (message.service, message.method, message.service_version) == (b"demo.HelloService", b"sayHello", b"1.0.0")
    assert repr(counters) == "<Counters heads_parsed=1 heads_from_memo=4 argument_skips=0 argument_reads=0 attachment_decodes=0>"
    assert message.attachment(b"path") == b"demo.HelloService"
    assert message.attachment(b"group") == b"g1"
    assert (counters.argument_skips, counters.attachment_decodes, counters.argument_reads) == (1, 1, 0)
    message.arguments(1)
    assert counters.argument_reads == 1
    assert repr(memo).startswith("<HeadMemo 1 heads")


def test_heads_are_shared_and_the_memo_is_bounded() -> None:
    memo = HeadMemo()
    heads = {id(receive(CALL, memo).head) for _ in range(3)}
    assert len(heads) == 1
    frames = [build_frame(0xC2, 0, 1, body("", method=f"m{n}")) for n in range(MAX_HEADS + 10)]
    for frame in frames:
        assert receive(frame, memo).method
    assert memo.size <= MAX_HEADS
    for frame in frames[-3:] * 2:
        assert receive(frame, memo).method == receive(frame).method
    long = build_frame(0xC2, 0, 1, body("", method="m" * MAX_HEAD_SIZE))
    before = memo.size
    assert receive(long, memo).method == b"m" * MAX_HEAD_SIZE
    assert memo.size == before


def test_heads_that_are_not_ascii_or_very_long_or_null() -> None:
    memo = HeadMemo()
    for service, version in (("演示.服务", "1"), ("s" * 40, None), ("s" * 2000, "2"), ("\U0001f923", "3"), ("a\0", "")):
        for _ in range(2):
            message = receive(build_frame(0xC2, 0, 1, body("I", 5, service=service, version=version)), memo)
            assert message.service == service.encode()
            assert message.service_version == (version or "").encode()
            assert message.arguments() == [5]


@pytest.mark.parametrize(
    "bad", [b"", b"\x05", b"\x05abc", b"\x90", b"NNNNN", b"\x01a\x01b\x01cN", b"\x01aN\x01c\x01dN", b"\x01\xf0"]
)
def test_a_malformed_head_is_one_documented_error(bad: bytes) -> None:
    message = receive(build_frame(0xC2, 0, 1, bad))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            _ = message.head
        with pytest.raises(RemoteProtocolError):
            _ = message.attachments


def test_opaque_serializations() -> None:
    message = receive(build_frame(0xC0 | 22, 0, 1, b"protobuf"))
    assert not message.readable
    assert (message.service, message.method, message.group, message.real_method) == (b"", b"", b"", b"")
    assert (message.service_version, message.dubbo_version, message.parameter_types) == (b"", b"", b"")
    assert message.attachments is None
    with pytest.raises(LocalProtocolError):
        message.arguments()
    with pytest.raises(LocalProtocolError):
        message.edit_attachments({b"a": b"b"})


def test_parameter_types() -> None:
    assert count_arguments(b"") == 0
    assert count_arguments(b"Ljava/lang/String;I[J[[Ljava/util/List;ZBCDFSV") == 11
    for bad in (b"Ljava/lang/String", b"x", b"[", b"I;", b"L;"):
        assert count_arguments(bad) == -1
    message = call("what", {"group": "g"})
    assert message.attachments is None
    with pytest.raises(LocalProtocolError):
        message.arguments()


def test_versions_that_understand_response_attachments() -> None:
    for version in (b"2.0.2", b"2.0.10", b"2.0.99"):
        assert supports_response_attachments(version)
    for version in (b"2.0.1", b"2.5.4", b"2.6.2", b"2.0.100", b"3.0.2", b"", b"x", b"2.0"):
        assert not supports_response_attachments(version)


# Generic calls


def test_generic_calls_name_the_real_method() -> None:
    message = receive(build_frame(0xC2, 0, 1, GENERIC_BODY))
    assert message.method == b"$invoke"
    assert message.real_method == b"sayHello"
    assert message.attachment(b"generic") == b"true"
    assert message.arguments(1) == ["sayHello"]
    types = "Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;"
    assert call(types, "async", None, None, {}, method="$invokeAsync").real_method == b"async"
    assert call(types, None, None, None, {}, method="$invoke").real_method == b"$invoke"
    assert call("Ljava/lang/String;", "x", {}, method="$invoke").real_method == b"$invoke"
    with pytest.raises(RemoteProtocolError):
        _ = call(types, 5, None, None, method="$invoke").real_method


# Attachments


def test_attachments_of_every_kind() -> None:
    values = {
        "s": "text",
        "i": 3000,
        "l": Long(-5),
        "d": 1.5,
        "t": True,
        "f": False,
        "n": None,
        "date": Date(5),
        "b": b"x",
        "list": ("a",),
        "中": "文\U0001f923",
        7: "seven",
    }
    found = call("", values).attachments
    assert found is not None
    assert found.values == {
        b"s": b"text",
        b"i": b"3000",
        b"l": b"-5",
        b"d": b"1.5",
        b"t": b"true",
        b"f": b"false",
        "中".encode(): "文\U0001f923".encode(),
        b"7": b"seven",
    }
    assert found.others == {b"date", b"b", b"list"}
    assert b"date" in found
    assert b"n" not in found
    assert found.get(b"s") == b"text"
    assert "text" in repr(found)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ((), {}),
        ((None,), {}),
        (({},), {}),
        ((Map("java.util.TreeMap", (("a", "b"),)),), {b"a": b"b"}),
        ((Map(None, (("a", "b"), ("a", "c"))),), {b"a": b"c"}),
        ((Map(None, (("a", "b"), ("a", None))),), {}),
        ((Map(None, (("a", (1,)), ("a", "x"))),), {b"a": b"x"}),
        ((Map(None, (((1, 2), "b"), (None, "x"), ("k", "v"))),), {b"k": b"v"}),
    ],
)
def test_forms_of_the_map(rest: tuple[object, ...], expected: dict[bytes, bytes]) -> None:
    for tail in (b"", b"N") if rest else (b"",):
        found = call("", *rest, tail=tail).attachments
        assert found is not None
        assert found.values == expected
        assert not found.others


def test_a_map_that_is_a_reference_into_the_arguments() -> None:
    shared = Map("java.util.HashMap", (("k", "v"), ("self", Ref(1)), ("p", Object(PERSON, ("x", None)))))
    message = call("Ljava/util/List;", ((), shared), Ref(2))
    with pytest.raises(RemoteProtocolError):  # the list itself is 0, the empty list 1, the map 2
        _ = call("Ljava/util/List;", ((), shared), Ref(1)).attachments
    found = message.attachments
    assert found is not None
    assert found.values == {b"k": b"v"}
    assert found.others == {b"self", b"p"}
    message.edit_attachments({b"k": b"w", b"new": b"1"})
    assert message.attachments is not None
    assert message.attachments.values == {b"k": b"w", b"new": b"1"}
    arguments, attachments = all_values(message)
    assert repr(arguments) == repr(((), shared))
    assert java_map(attachments)["p"] == Object(PERSON, ("x", None))


@pytest.mark.parametrize("bad", [b"H\x01a", b"H\x01a\x01", b"\x90", b"Q\x90", b"H\x01aZ", b"M\x90Z", b"C", b"H\x90"])
def test_malformed_attachments(bad: bytes) -> None:
    message = call("", tail=bad)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            _ = message.attachments
    assert message.method == b"m"


def test_attachments_of_responses() -> None:
    def response(body: bytes, status: int = 20) -> DubboMessage:
        return receive(build_frame(0x02, status, 1, body))

    for body_ in (
        b"\x94\x02hiH\x05dubbo\x052.0.2ZN",
        b"\x95H\x05dubbo\x052.0.2Z",
        b"\x93" + dumps(("e",)) + b"H\x05dubbo\x052.0.2Z",
    ):
        message = response(body_)
        assert message.attachment(b"dubbo") == b"2.0.2"
        message.edit_attachments({b"x": b"y"})
        assert message.attachment(b"x") == b"y"
        assert message.head is None
    for body_ in (b"\x91\x02hi", b"\x92N", b"\x90" + dumps(("e",))):
        assert response(body_).attachments is None
    assert response(b"\x02no", 70).attachments is None
    assert [response(dumps(kind, None)).threw for kind in range(7)] == [True, False, False, True, False, False, False]
    assert not response(b"\x02no", 70).threw
    for bad in (b"", b"\x94\x05", b"\x94\x02hi\x02hi"):
        with pytest.raises(RemoteProtocolError):
            _ = response(bad).attachments


def test_the_memo_of_attachments_rests_where_every_call_differs() -> None:
    memo = HeadMemo()
    same = body("I", 5, {"group": "g1"})
    for _ in range(600):
        assert receive(build_frame(0xC2, 0, 1, same), memo).group == b"g1"
    first = receive(build_frame(0xC2, 0, 1, same), memo).attachments
    second = receive(build_frame(0xC2, 0, 1, body("J", Long(6), {"group": "g1"})), memo).attachments
    assert first is not None
    assert second is not None
    assert first.values is second.values
    for n in range(2000):
        traced = receive(build_frame(0xC2, 0, 1, body("I", 5, {"group": "g1", "trace": str(n)})), memo)
        assert traced.attachment(b"trace") == str(n).encode()
    third = receive(build_frame(0xC2, 0, 1, same), memo).attachments
    assert third is not None
    assert third.values is not first.values
    assert third.values == first.values
    edited = receive(build_frame(0xC2, 0, 1, same), memo)
    edited.edit_attachments({b"group": b"g2"})
    assert receive(build_frame(0xC2, 0, 1, same), memo).group == b"g1"


def test_a_memo_of_attachments_is_bounded() -> None:
    memo = AttachmentMemo()
    for n in range(1000):
        memo.put(b"%d" % n, 1, {})
        found = memo.get(b"%d" % n)
        assert found is not None
        assert (found.end, found.values) == (1, {})
    assert memo.get(b"0") is None
    memo.put(b"x" * 2000, 1, {})
    assert memo.get(b"x" * 2000) is None


def test_an_edit_that_changes_nothing_leaves_the_frame_alone() -> None:
    message = receive(CALL)
    before = message.frame
    message.edit_attachments({b"group": b"g1", b"absent": None})
    assert message.frame is before


def test_an_edit_keeps_every_other_byte() -> None:
    message = receive(CALL)
    message.edit_attachments({b"dubbo.tag": b"gray"})
    assert message.frame == CALL[:12] + (0x62 + 15).to_bytes(4, "big") + CALL[16:-1] + b"\x09dubbo.tag\x04grayZ"
    message.edit_attachments({b"dubbo.tag": None})
    assert message.frame == CALL
    message.edit_attachments({b"absent": None})
    assert message.frame == CALL
    message.edit_attachments({b"group": b"g2", b"path": None})
    assert message.frame[16:] == CALL[16 : CALL.index(b"H\x04path")] + b"H\x05group\x02g2Z"
    assert message.frame[:12] == CALL[:12]


def test_edits_where_there_is_no_map_yet() -> None:
    for rest, tail in (((), b""), ((None,), b""), ((None,), b"N")):
        message = call("", *rest, tail=tail)
        before = message.frame
        message.edit_attachments({b"a": None})
        assert message.frame == before
        message.edit_attachments({b"a": "中\U0001f923".encode(), b"l": b"\xff"})
        assert message.attachments is not None
        assert message.attachments.values == {b"a": "中\U0001f923".encode(), b"l": "ÿ".encode()}
        assert message.frame.endswith(b"Z" + tail)


def test_an_edit_never_disturbs_references() -> None:
    friend = Object(PERSON, ("f", None))
    attachments = Map(
        None,
        (
            ("list", ((), friend, TypedList("t.List", (1,)))),
            ("gone", "x"),
            ("ref", Ref(3)),
            ("typed", TypedList("t.List", (Ref(1), Object(PERSON, ("g", Ref(4)))))),
            ("gone", 5),
        ),
    )
    for changes in (
        {b"gone": None},
        {b"gone": b"y", b"new": b"z"},
        {b"list": None},
        {b"list": b"plain"},
        {b"ref": None, b"typed": None},
        {b"ref": b"1", b"typed": b"2", b"list": b"3", b"gone": b"4"},
    ):
        message = call("Ljava/util/List;", ((1,), friend), attachments)
        before = java_map(all_values(message)[1])
        message.edit_attachments(changes)
        arguments, after = all_values(message)
        assert repr(arguments) == repr(((1,), friend))
        expected = before | {k.decode(): None if v is None else v.decode() for k, v in changes.items()}
        got = java_map(after)
        assert {k: v for k, v in got.items() if v is not None} == {k: v for k, v in expected.items() if v is not None}


NAMES = st.sampled_from(["a", "b", "c", "dubbo.tag", "中"])
PLAIN = st.text(max_size=40) | st.none() | st.integers(-9, 9) | st.booleans()
VALUES = PLAIN | st.lists(PLAIN, max_size=2).map(tuple) | st.builds(lambda n: Object(PERSON, (n, None)), PLAIN) | st.just(Ref(0))


@settings(deadline=None)
@example([], (("中", 0),), {"中": "0"}, None, b"")
@given(
    st.lists(VALUES, max_size=3),
    st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple),
    st.dictionaries(NAMES, st.none() | st.text(max_size=40), max_size=4),
    st.sampled_from([None, "java.util.TreeMap"]),
    st.sampled_from([b"", b"N"]),
)
def test_edits_mean_what_they_say(
    arguments: list[object], pairs: tuple[tuple[str, object], ...], changes: dict[str, str | None], kind: str | None, tail: bytes
) -> None:
    message = call("Ljava/lang/Object;" * (len(arguments) + 1), (), *arguments, Map(kind, pairs), tail=tail)
    before = all_values(message)
    clean = {
        k: v if v is None else v.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        for k, v in changes.items()
    }
    said = message.attachments
    assert said is not None
    kept = {k for k, v in changes.items() if v is not None and said.values.get(k.encode()) == v.encode()}  # 0 says "0" already
    message.edit_attachments({k.encode(): None if v is None else v.encode("utf-8", "surrogatepass") for k, v in clean.items()})
    after = all_values(message)
    assert repr(after[:-1]) == repr(before[:-1])
    expected = java_map(before[-1]) | {k: v for k, v in changes.items() if k not in kept}
    got = java_map(after[-1])
    assert {k: repr(v) for k, v in got.items() if v is not None} == {k: repr(v) for k, v in expected.items() if v is not None}
    assert message.frame.endswith(b"Z" + tail)
    found = message.attachments
    assert found is not None
    for key, value in changes.items():
        assert found.get(key.encode()) == (None if value is None else value.encode())


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["", "I", "Ljava/lang/Object;[I"]))
def test_any_body_gives_values_or_the_documented_error(junk: bytes, types: str) -> None:
    for frame in (build_frame(0xC2, 0, 1, body(types) + junk), build_frame(0xC2, 0, 1, junk), build_frame(2, 20, 1, junk)):
        message = receive(frame)
        for view in ("head", "attachments", "group", "real_method", "threw"):
            try:
                getattr(message, view)
            except RemoteProtocolError:
                pass
        try:
            message.edit_attachments({b"a": b"b"})
        except (RemoteProtocolError, LocalProtocolError):
            continue
        assert message.attachment(b"a") == b"b"


@pytest.mark.parametrize(
    ("argument", "text"),
    [("gray", b"gray"), (7, b"7"), (Long(-7), b"-7"), (True, b"true"), (1.5, b"1.5"), (None, None), ([1], None), ({}, None)],
)
def test_one_plain_argument_as_text(argument: object, text: bytes | None) -> None:
    message = call("Ljava/lang/Object;" * 2, [1, [2]], argument, {})
    assert message.plain_argument(1) == text
    assert message.plain_argument(2) is None


def test_arguments_in_front_of_the_wanted_one_are_not_made() -> None:
    counters = Counters()
    frame = build_frame(0xC2, 0, 1, body("Ljava/lang/Object;" * 2, [1, [2]], "x", {}))
    assert receive(frame, HeadMemo(counters)).plain_argument(1) == b"x"
    assert (counters.argument_skips, counters.argument_reads) == (1, 1)


def test_attachments_behind_too_many_values_are_out_of_reach() -> None:
    frame = build_frame(0xC2, 0, 1, body("Ljava/lang/Object;", [[]] * 100, {"k": "v"}))
    assert receive(frame, HeadMemo(max_values=300)).attachment(b"k") == b"v"
    message = receive(frame, HeadMemo(max_values=99))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="too_many_values"):
            _ = message.attachments
    with pytest.raises(RemoteProtocolError, match="too_many_attachments"):
        _ = receive(build_frame(0xC2, 0, 1, body("", {str(i): "" for i in range(MAX_ATTACHMENTS + 1)}))).attachments


@given(
    st.lists(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**31), 2**31 - 1), st.floats(allow_nan=False), st.text(max_size=40),
            st.binary(max_size=20), st.lists(st.booleans(), max_size=2), st.just("x" * 700),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_the_tail_of_a_call_begins_where_its_attachments_do(arguments: list[object]) -> None:
    message = call("Ljava/lang/Object;" * len(arguments), *arguments, {"k": "v"})
    head = message.head
    found = message.attachments
    assert head is not None
    assert found is not None
    tail = message.tail(head)
    assert tail in (None, message.frame[found.at :])
    plain = all(value.isascii() if isinstance(value, str) else not isinstance(value, list | bytes) for value in arguments)
    assert tail is not None or not plain


def test_a_tail_that_is_not_found_at_once() -> None:
    for message in (
        call("Ljava/util/List;", [1], {"k": "v"}),
        call("Ljava/lang/String;", "\u00e9", {"k": "v"}),
        call("?", "x", {"k": "v"}),
        call("Ljava/lang/String;I", "x"),
        receive(build_frame(0xC2, 0, 1, body("Ljava/lang/String;", "x") + b"\x3f")),
    ):
        head = message.head
        assert head is not None
        assert message.tail(head) in (None, b"?")
    java = receive(build_frame(0xC3, 0, 1, b""))
    assert java.is_request
    memo = HeadMemo()
    known = receive(CALL, memo).head
    assert known is not None
    known.serialization = 3
    assert receive(CALL, memo).tail(known) is None
