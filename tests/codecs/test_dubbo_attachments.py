"""Attachments of a Dubbo message in Hessian 2: found in every form, remembered, edited by splices that disturb nothing else."""

from __future__ import annotations

import pytest
from dubbo_support.messages import body, call, receive
from dubbo_vectors import CALL
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import DubboMessage, HeadMemo, build_frame
from mesh_codecs.dubbo.body import AttachmentMemo
from mesh_codecs.dubbo.hessian2_body import MAX_ATTACHMENTS
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2 import ClassDef, Date, Long, Map, Object, Reader, Ref, TypedList, dumps

PERSON = ClassDef("demo.Person", ("name", "friend"))


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


def test_attachments_behind_too_many_values_are_out_of_reach() -> None:
    frame = build_frame(0xC2, 0, 1, body("Ljava/lang/Object;", [[]] * 100, {"k": "v"}))
    assert receive(frame, HeadMemo(max_values=300)).attachment(b"k") == b"v"
    message = receive(frame, HeadMemo(max_values=99))
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="too_many_values"):
            _ = message.attachments
    with pytest.raises(RemoteProtocolError, match="too_many_attachments"):
        _ = receive(build_frame(0xC2, 0, 1, body("", {str(i): "" for i in range(MAX_ATTACHMENTS + 1)}))).attachments
