"""Bodies as Dubbo's own serializers wrote them: heads, attachments, edits, results, in every serialization that we can read;
and what the walkers make of bytes that are none of these."""

from __future__ import annotations

import tracemalloc

import pytest
from dubbo_support.messages import BODIES, SERIALIZATIONS, receive, request, response, values
from dubbo_vectors import IDS
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.dubbo import DubboMessage, HeadMemo, build_frame
from mesh_codecs.dubbo import frame as wire
from mesh_codecs.dubbo.message import HEARTBEAT, READONLY
from mesh_codecs.dubbo.replies import MAX_TEXT, Refusal, error_response, exception_response, null_response, refuse
from mesh_codecs.errors import LocalProtocolError, MeshError, RemoteProtocolError
from mesh_codecs.hessian2 import Long, Reader

JAVA_KINDS = ["java", "compactedjava", "nativejava"]


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_a_call(serialization: str) -> None:
    memo = HeadMemo()
    for _ in range(3):
        message = request(serialization, BODIES[serialization, "hello"], memo)
        assert message.readable
        assert message.service == b"demo.HelloService"
        assert message.service_version == b"1.0.0"
        assert message.dubbo_version == b"2.0.2"
        assert message.method == message.real_method == b"sayHello"
        assert message.parameter_types == b"Ljava/lang/String;"
        assert values(message) == {b"path": b"demo.HelloService", b"group": b"g1"}
        assert message.arguments() == ["world"]
    assert (memo.counters.heads_parsed, memo.counters.heads_from_memo) == (1, 2)


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_a_generic_call(serialization: str) -> None:
    message = request(serialization, BODIES[serialization, "generic"])
    assert (message.method, message.real_method) == (b"$invoke", b"sayHello")
    assert values(message) == {b"generic": b"true"}
    assert message.arguments(1) == ["sayHello"]


@pytest.mark.parametrize("serialization", ["hessian2", "fastjson2", "java", "nativejava"])
def test_arguments_of_many_kinds_are_stepped_over(serialization: str) -> None:
    message = request(serialization, BODIES[serialization, "mixed"])
    found = message.attachments
    assert found is not None
    expected = {b"group": b"g1", b"same": b"g1", b"_TO": b"3000", b"tag": "灰".encode(), b"emo": "\U0001f923".encode()}
    assert {k: v for k, v in found.values.items() if k != b"flag"} == expected
    assert b"p" in found.others
    assert b"nul" not in found
    assert message.arguments(2) == [5, Long(7)]
    assert len(message.arguments()) == 6


def test_compactedjava_hides_what_is_behind_a_class_of_the_application() -> None:
    message = request("compactedjava", BODIES["compactedjava", "mixed"])
    assert message.method == b"mixed"
    assert message.attachments is None
    assert message.group == b""
    with pytest.raises(LocalProtocolError):
        message.edit_attachments({b"a": b"b"})
    with pytest.raises(RemoteProtocolError, match="unknown_class"):
        message.arguments()


@pytest.mark.parametrize(("serialization", "name"), [k for k in BODIES if k[1] in ("empty", "nullver", "uni", "long", "linked")])
def test_rarer_heads_and_maps(serialization: str, name: str) -> None:
    body = BODIES[serialization, name]
    memo = HeadMemo()
    for _ in range(2):
        message = request(serialization, body, memo)
        assert values(message) == {"long": {b"k": b"v"}, "linked": {b"group": b"g1"}}.get(name, {})
        assert message.method == {"empty": b"ping", "uni": "\U0001f923\0".encode(), "long": b"m"}.get(name, b"x")
        if name == "uni":
            assert message.service == "演示.服务".encode()
            assert message.arguments() == [5]
        if name == "nullver":
            assert message.service_version == b""
        if name == "long":
            assert len(message.service) == 2000


EDITS: list[dict[bytes, bytes | None]] = [
    {b"dubbo.tag": b"gray"},
    {b"group": b"other", b"path": None},
    {b"group": None, b"absent": None},
    {"键".encode(): "值\U0001f923\0".encode() * 50, b"dubbo.tag": b"x" * 300},
    {b"p": b"plain", b"flag": None, b"nul": b"1"},
    {b"latin": b"\xff"},
]


EDITABLE = [k for k in BODIES if k[1] in ("hello", "mixed", "empty", "nullver") and k != ("compactedjava", "mixed")]


@pytest.mark.parametrize(("serialization", "name"), EDITABLE)
@pytest.mark.parametrize("changes", EDITS)
def test_edits(serialization: str, name: str, changes: dict[bytes, bytes | None]) -> None:
    message = request(serialization, BODIES[serialization, name])
    before = dict(values(message))
    arguments = message.arguments()
    header = message.frame[:12]
    message.edit_attachments(changes)
    after = values(message)
    expected = before | {k: "ÿ".encode() if v == b"\xff" else v for k, v in changes.items()}
    assert after == {k: v for k, v in expected.items() if v is not None}
    assert repr(message.arguments()) == repr(arguments)
    found = message.attachments
    assert found is not None
    assert not found.others & set(changes)
    assert message.frame[:12] == header
    again = receive(message.frame)
    assert values(again) == after
    again.edit_attachments(changes)
    assert values(again) == after


@pytest.mark.parametrize("serialization", JAVA_KINDS)
def test_a_sorted_java_map_is_read_but_not_edited(serialization: str) -> None:
    message = request(serialization, BODIES[serialization, "linked"])
    with pytest.raises(LocalProtocolError):
        message.edit_attachments({b"a": b"b"})
    message.edit_attachments({b"absent": None})


def test_java_bodies_without_attachments_get_a_map() -> None:
    for serialization in JAVA_KINDS:
        hello = BODIES[serialization, "hello"]
        cut = hello.index(b"world") + 5
        message = request(serialization, hello[:cut])
        assert values(message) == {}
        message.edit_attachments({b"a": b"b"})
        assert values(message) == {b"a": b"b"}
    native = request("nativejava", BODIES["nativejava", "hello"][:cut] + b"\x70")
    native.edit_attachments({b"a": b"b"})
    assert values(native) == {b"a": b"b"}
    odd = request("java", BODIES["java", "nullver"].replace(b"\x77\x34", b"\x77\x35") + b"\x00")
    with pytest.raises(LocalProtocolError):
        odd.edit_attachments({b"a": b"b"})


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_results(serialization: str) -> None:
    for name, threw in (("exc", True), ("val", False), ("val4", False), ("nul2", False), ("nul5", False)):
        message = response(serialization, BODIES[serialization, name])
        assert message.threw == threw
        assert not message.is_event
        if name in ("val4", "nul5"):
            assert values(message) == {b"dubbo": b"2.0.2"}
            message.edit_attachments({b"a": b"b"})
            assert values(message) == {b"dubbo": b"2.0.2", b"a": b"b"}
        else:
            assert message.attachments is None
    if serialization not in ("compactedjava", "hessian2"):
        assert values(response(serialization, BODIES[serialization, "exc3"])) == {b"dubbo": b"2.0.2"}


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_events(serialization: str) -> None:
    def event(body: bytes) -> DubboMessage:
        return receive(build_frame(0xA0 | IDS[serialization], 0, 1, body))

    assert BODIES[serialization, "null"] == wire.NULL_BODIES[IDS[serialization]]
    assert event(BODIES[serialization, "null"]).event_kind == HEARTBEAT
    assert event(BODIES[serialization, "event_R"]).event_kind == READONLY


# Replies of our own


def test_errors_are_a_string_in_hessian2() -> None:
    assert error_response(1, wire.SERVICE_ERROR, b"no").hex() == "dabb0246000000000000000100000003026e6f"
    assert error_response(1, 70, "中\U0001f923".encode())[16:] == BODIES["hessian2", "error_uni"]
    long = receive(error_response(-1, 80, "中".encode() * 5000))
    text = Reader(long.frame, 16).read()
    assert text == "中" * (MAX_TEXT // 3)


@pytest.mark.parametrize("reason", Refusal)
def test_refusals(reason: Refusal) -> None:
    message = receive(refuse(request("fastjson2", BODIES["fastjson2", "hello"]), reason))
    assert (message.request_id, message.status, message.serialization_id) == (7, reason.status, 2)
    assert not message.is_request
    assert reason.status in wire.STATUS_NAMES
    assert Reader(message.frame, 16).read() == reason.text
    named = receive(refuse(request("java", b""), reason, b"because"))
    assert Reader(named.frame, 16).read() == "because"


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_an_exception_as_a_result_is_what_java_writes(serialization: str) -> None:
    call = request(serialization, b"")
    made = exception_response(call, b"boom")
    assert made == build_frame(IDS[serialization], 20, 7, BODIES[serialization, "exc"])
    for text in ("", "中\U0001f923\0", "x" * 5000):
        other = exception_response(call, text.encode())
        assert other is not None
        assert receive(other).threw
    assert null_response(call) == build_frame(IDS[serialization], 20, 7, BODIES[serialization, "nul2"])


def test_no_result_in_a_serialization_that_we_do_not_write() -> None:
    call = receive(build_frame(0xC0 | 22, 0, 1, b"protobuf"))
    assert exception_response(call, b"boom") is None
    assert null_response(call) is None


# Hostile bytes

VIEWS = ("head", "attachments", "real_method", "group", "threw")


def look(message: DubboMessage) -> list[object]:
    """Everything that can be asked of a message; only the documented errors may come out."""
    seen: list[object] = []
    for view in VIEWS:
        try:
            seen.append(repr(getattr(message, view)))
        except RemoteProtocolError as error:
            seen.append(error.code)
    try:
        seen.append(repr(message.arguments()))
    except (RemoteProtocolError, LocalProtocolError) as error:
        seen.append(error.code)
    try:
        message.edit_attachments({b"a": b"b", b"group": None})
        assert message.attachment(b"a") == b"b"
        assert message.attachment(b"group") is None
    except MeshError:
        pass
    return seen


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_bodies_end_in_the_documented_errors(data: st.DataObject) -> None:
    serialization, name = data.draw(st.sampled_from(sorted(key for key in BODIES if key[1] != "long")))
    body = bytearray(BODIES[serialization, name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))] + data.draw(st.binary(max_size=5))
    for flags, status in ((0xC0, 0), (0x00, 20)):
        frame = build_frame(flags | IDS[serialization], status, 1, bytes(body))
        assert look(receive(frame)) == look(receive(frame))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(SERIALIZATIONS), st.binary(max_size=80))
def test_any_body_ends_in_the_documented_errors(serialization: str, junk: bytes) -> None:
    look(request(serialization, junk))
    look(response(serialization, junk))
    look(request(serialization, b"\xac\xed\x00\x05" + junk))


def test_a_symbol_from_elsewhere_is_refused_as_a_key() -> None:
    """The provider knows its name and we do not: it must not be a way around a rule on attachments."""
    hello = BODIES["fastjson2", "empty"]
    item = bytes.fromhex("a6 4a61 a6 7f 52") + b"dubbo.tag" + bytes.fromhex("05 00 a5 7f 05 4a62 a5")
    message = request("fastjson2", hello[:-6] + len(item).to_bytes(4, "big") + item)
    with pytest.raises(RemoteProtocolError):
        _ = message.attachments
    own = bytes.fromhex("a6 7f 52") + b"dubbo.tag" + bytes.fromhex("05 4a61 7f 05 4a62 4a67 94 a5")
    message = request("fastjson2", hello[:-6] + len(own).to_bytes(4, "big") + own)
    assert values(message) == {b"dubbo.tag": b"b"}
    message.edit_attachments({b"dubbo.tag": None})
    assert values(message) == {}
    message.edit_attachments({b"dubbo.tag": b"c", b"g": b"h"})
    assert values(message) == {b"dubbo.tag": b"c", b"g": b"h"}


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_memory_of_attachments_stays_in_proportion(serialization: str) -> None:
    keys = [bytes((a, b)) for a in range(32, 127) for b in range(32, 127)]
    if serialization == "hessian2":
        entries = b"".join(b"\x02" + key + b"\x00" for key in keys)
        body = BODIES[serialization, "empty"][:-1] + entries + b"Z"
    elif serialization == "fastjson2":
        item = b"\xa6" + b"".join(b"\x4b" + key + b"\x49" for key in keys) + b"\xa5"
        body = BODIES[serialization, "empty"][:-6] + len(item).to_bytes(4, "big") + item
    else:
        entries = b"".join(b"\x74\x00\x02" + key + b"\x74\x00\x00" for key in keys)
        body = BODIES[serialization, "empty"][:-5] + len(keys).to_bytes(4, "big") + entries + b"\x78"
    frame = build_frame(0xC0 | IDS[serialization], 0, 1, body)
    tracemalloc.start()
    try:
        found = receive(frame).attachments
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is not None
    assert len(found.values) == len(keys)
    assert peak <= 64 * len(frame) + 256 * 1024


@pytest.mark.parametrize("serialization", SERIALIZATIONS)
def test_one_plain_argument_as_text(serialization: str) -> None:
    assert request(serialization, BODIES[serialization, "hello"]).plain_argument(0) == b"world"
    mixed = request(serialization, BODIES[serialization, "mixed"])
    assert [mixed.plain_argument(index) for index in (0, 1, 9)] == [b"5", b"7", None]


@pytest.mark.parametrize("serialization", ["hessian2", "fastjson2", "java", "nativejava"])
def test_attachments_behind_too_many_values_are_out_of_reach(serialization: str) -> None:
    body = BODIES[serialization, "mixed"]
    message = request(serialization, body, HeadMemo(max_values=3))
    with pytest.raises(RemoteProtocolError, match="too_many"):
        _ = message.attachments
    assert request(serialization, body, HeadMemo(max_values=1000)).attachments is not None
