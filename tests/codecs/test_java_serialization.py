"""Java object streams: primitive data in blocks, stepping over objects, values; bad and hostile streams."""

from __future__ import annotations

import tracemalloc

import pytest
from dubbo_support.messages import BODIES, request
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.hessian2 import Long
from mesh_codecs.hessian2.values import Opaque
from mesh_codecs.java_serialization import ObjectReader, PrimitiveReader, Walker
from mesh_codecs.java_serialization.primitives import utf_bytes, utf_to_utf8


def test_primitive_data_in_blocks() -> None:
    reader = PrimitiveReader(b"\x77\x02ab\x77\x00\x7a\x00\x00\x00\x03cde", 0)
    assert reader.take(1) == b"a"
    assert reader.take(3) == b"bcd"
    with pytest.raises(RemoteProtocolError):
        reader.take(2)
    for bad in (b"", b"\x77", b"\x77\x05a", b"\x7a\x00", b"\x7a\xff\xff\xff\xff", b"\x70\x70"):
        with pytest.raises(RemoteProtocolError):
            PrimitiveReader(bad, 0).take(1)


@settings(deadline=None)
@given(st.text())
def test_modified_utf8(text: str) -> None:
    raw = utf_bytes(text.encode())
    assert b"\x00" not in raw
    assert utf_to_utf8(raw) == text.encode()


def test_modified_utf8_that_is_none() -> None:
    for bad in (b"\xf0\x9f\xa4\xa3", b"\xc1\xa1", b"\x80", b"\xe4\xb8"):
        with pytest.raises(RemoteProtocolError):
            utf_to_utf8(bad)
    assert utf_bytes(b"\xff") == "ÿ".encode()


def test_java_values() -> None:
    walker = ObjectReader(bytes.fromhex("70 740001 61 71007e0000 7c0000000000000001 62 76 71007e0009"), 0)
    assert [walker.value(), walker.value(), walker.value(), walker.value()] == [None, "a", "a", "b"]
    with pytest.raises(RemoteProtocolError):
        walker.value()
    mixed = request("nativejava", BODIES["nativejava", "mixed"]).arguments()
    assert [type(v) for v in mixed] == [int, Long, Opaque, Opaque, Opaque, bool]


BAD_STREAMS = [
    "79", "7b", "00", "71007e0000", "7170000000", "73", "7370", "7570", "7e70", "7200", "720000" + "00" * 8 + "02ffff",
    "7371007e0000", "7571007e000000", "7501", "7a7fffffff", "7c7fffffffffffffff", "77", "7702ff", "7d7fffffff",
    "720000" + "00" * 8 + "02000158", "720000" + "00" * 8 + "0200014c000070", "720000" + "00" * 8 + "0200024c0000740000490000",
    "73720000" + "00" * 8 + "0400007870", "740001f0", "73720000" + "00" * 8 + "030000787001",
]  # fmt: skip


@pytest.mark.parametrize("hex_", BAD_STREAMS)
def test_bad_java_streams(hex_: str) -> None:
    for compact in (False, True):
        with pytest.raises(RemoteProtocolError):
            Walker(bytes.fromhex(hex_), 0, compact).skip()


def test_java_depth_and_superclasses() -> None:
    desc = "720000" + "00" * 8
    deep = bytes.fromhex(f"73{desc}0200014c0000740000" + "7870" + "7371007e0000" * 5000)
    with pytest.raises(RemoteProtocolError, match="too_deep"):
        Walker(deep, 0).skip()
    chain = bytes.fromhex("73" + f"{desc}02000078" * 5000 + "70")
    with pytest.raises(RemoteProtocolError, match="class_limit"):
        Walker(chain, 0).skip()
    own_parent = bytes.fromhex(f"73{desc}02000078" + "71007e0000")
    with pytest.raises(RemoteProtocolError, match="class_limit"):
        Walker(own_parent, 0).skip()
    annotations = bytes.fromhex(f"76{desc}020000" * 5000)
    with pytest.raises(RemoteProtocolError, match="too_deep"):
        Walker(annotations, 0).skip()


@pytest.mark.parametrize("unit", ["70", "740000", "71007e0001", "7371007e0000", "76720000" + "00" * 8 + "0200007870"])
def test_memory_of_a_java_walk_stays_in_proportion(unit: str) -> None:
    piece = bytes.fromhex(unit)
    count = 60_000 // len(piece)
    head = bytes.fromhex("76720000" + "00" * 8 + "0200007870" + "7572" + "00025b4c" + "00" * 8 + "0200007870")
    stream = head + count.to_bytes(4, "big") + piece * count
    tracemalloc.start()
    try:
        walker = Walker(stream, 0)
        walker.skip()
        walker.skip()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert walker.pos == len(stream)
    assert peak <= 64 * len(stream) + 256 * 1024
