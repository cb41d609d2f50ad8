"""JSONB, the binary form of fastjson2: the walk over it and the reading agree, values, depth and memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.fastjson2 import jsonb
from mesh_codecs.hessian2 import Long, Map


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"\xa6", b"\xa5", b"\x92Ja\x00", b"\x7fJa\x01", b"\x95", b"\xa4\x02", b"\x01"])).map(b"".join)
)
def test_both_jsonb_walks_agree(data: bytes) -> None:
    try:
        end: int | None = jsonb.skip(data, 0)
    except RemoteProtocolError:
        end = None
    try:
        found: int | None = jsonb.read(data)[1]
    except RemoteProtocolError:
        found = None
    if found is not None:
        assert found == end


def test_jsonb_values() -> None:
    cases: dict[str, object] = {
        "00": 0, "2f": 47, "f0": -16, "ff": -1, "3830": 48, "30ff": -1793, "440800": 2048, "4800040000": 262144, "48ffffffff": -1,
        "bdff": -1, "bc0100": 256, "e0": Long(0), "d8": Long(-8), "ef": Long(15), "d0ff": Long(255), "c40800": Long(2048),
        "be0000000100000000": Long(2**32), "bfffffffff": Long(-1), "af": None, "b0": False, "b1": True, "b2": 0.0, "b3": 1.0,
        "b53ff8000000000000": 1.5, "b73fc00000": 1.5, "b605": 5.0, "49": "", "4b6869": "hi", "4be9e8": "éè", "79026869": "hi",
        "7a03e4b8ad": "中", "7c022d4e": "中", "7d024e2d": "中", "7e02d6d0": "中", "7b02fffe": "", "9102ffff": b"\xff\xff",
        "94": (), "950a": (10,), "a4020102": (1, 2), "a6a5": Map(None, ()), "a64a6101a5": Map(None, (("a", 1),)),
        "924a6100a67f4a6201057f0106a5": Map("a", (("b", 5), ("b", 6))),
    }  # fmt: skip
    for hex_, expected in cases.items():
        data = bytes.fromhex(hex_)
        value, end = jsonb.read(data)
        assert (repr(value), end) == (repr(expected), len(data)), hex_
        assert jsonb.skip(data + b"\x00", 0) == len(data)
        for cut in range(len(data)):
            with pytest.raises(RemoteProtocolError):
                jsonb.read(data[:cut])
            with pytest.raises(RemoteProtocolError):
                jsonb.skip(data[:cut], 0)
    for opaque in (
        "9341",
        "90 05",
        "b4 05",
        "b8 05",
        "b9 01 05",
        "ba 05",
        "bb 01 05",
        "a7 010203 05",
        "a9 01020304",
        "ad 01020304",
    ):
        data = bytes.fromhex(opaque.replace("9341", "934a61"))
        assert jsonb.read(data) == (data, len(data))
    for opaque in ("a8 01020304050607 05", "ae 0102030405060708 05", "aa 01020304050607 05 4a5a"):
        data = bytes.fromhex(opaque)
        assert jsonb.skip(data, 0) == len(data)
    for bad in ("a5", "a8", "7e0181", "7a01ff", "a448ffffffff", "9148ffffffff", "92afa6a5", "7f94", "a6 7f 94 a5"):
        with pytest.raises(RemoteProtocolError):
            jsonb.read(bytes.fromhex(bad))


@pytest.mark.parametrize("unit", ["95", "a64a61", "924a6100", "b4", "b9 01", "a6 95", "93 95"])
def test_jsonb_depth(unit: str) -> None:
    data = bytes.fromhex(unit) * 100_000
    with pytest.raises(RemoteProtocolError):
        jsonb.skip(data, 0)
    with pytest.raises(RemoteProtocolError):
        jsonb.read(data)


@pytest.mark.parametrize("unit", ["94", "a6a5", "00", "49", "4a61", "af", "e0", "c80a", "9500", "934a61"])
def test_memory_of_a_jsonb_read_stays_in_proportion(unit: str) -> None:
    piece = bytes.fromhex(unit)
    count = 60_000 // len(piece)
    data = b"\xa4\x48" + count.to_bytes(4, "big") + piece * count
    tracemalloc.start()
    try:
        jsonb.read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 64 * len(data) + 256 * 1024
