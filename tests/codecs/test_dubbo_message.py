"""Views of a Dubbo message: what is decoded when, the head, generic calls, arguments on demand."""

from __future__ import annotations

import pytest
from dubbo_support.messages import body, call, receive
from dubbo_vectors import CALL, GENERIC_BODY
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import Counters, HeadMemo, build_frame
from mesh_codecs.dubbo.invocation import count_arguments, supports_response_attachments
from mesh_codecs.dubbo.memo import MAX_HEAD_SIZE, MAX_HEADS
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.hessian2 import Long


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
