"""Hessian 2 vectors: bytes, the value they mean, and whether hessian-lite itself writes that value so (`canonical`)."""

from __future__ import annotations

from typing import NamedTuple

from mesh_codecs.hessian2 import ClassDef, Date, Long, Map, Object, Ref, TypedList


class Vector(NamedTuple):
    hex: str
    value: object
    canonical: bool = True

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


def _hex(raw: bytes) -> str:
    return raw.hex()


CAR = ClassDef("Gen$Car", ("next", "year", "color"))
CAR_HEX = "430747656e2443617293046e657874047965617205636f6c6f72"
HELLO = ClassDef("hello", ("color", "model"))

SCALARS = [
    Vector("4e", None),
    Vector("54", True),
    Vector("46", False),
    Vector("90", 0),
    Vector("91", 1),
    Vector("bf", 47),
    Vector("80", -16),
    Vector("c830", 48),
    Vector("cfff", 2047),
    Vector("c7ef", -17),
    Vector("c700", -256),
    Vector("c000", -2048),
    Vector("d40800", 2048),
    Vector("d7ffff", 262143),
    Vector("d3f7ff", -2049),
    Vector("d00000", -262144),
    Vector("4900040000", 262144),
    Vector("497fffffff", 2147483647),
    Vector("49fffbffff", -262145),
    Vector("4980000000", -2147483648),
    Vector("490000012c", 300, False),
    Vector("c800", 0, False),
    Vector("d40000", 0, False),
    Vector("4900000000", 0, False),
    Vector("e0", Long(0)),
    Vector("e1", Long(1)),
    Vector("ef", Long(15)),
    Vector("d8", Long(-8)),
    Vector("f810", Long(16)),
    Vector("ffff", Long(2047)),
    Vector("f7f7", Long(-9)),
    Vector("f000", Long(-2048)),
    Vector("3c0800", Long(2048)),
    Vector("3fffff", Long(262143)),
    Vector("3bf7ff", Long(-2049)),
    Vector("380000", Long(-262144)),
    Vector("5900040000", Long(262144)),
    Vector("597fffffff", Long(2147483647)),
    Vector("5980000000", Long(-2147483648)),
    Vector("4c0000000080000000", Long(2147483648)),
    Vector("4cffffffff7fffffff", Long(-2147483649)),
    Vector("590000012c", Long(300), False),
    Vector("4c000000000000012c", Long(300), False),
    Vector("5b", 0.0),
    Vector("5c", 1.0),
    Vector("5d02", 2.0),
    Vector("5d7f", 127.0),
    Vector("5d80", -128.0),
    Vector("5d00", 0.0, False),
    Vector("5e0080", 128.0),
    Vector("5eff7f", -129.0),
    Vector("5e7fff", 32767.0),
    Vector("5e8000", -32768.0),
    Vector("5f00000001", 0.001),
    Vector("5fffffffff", -0.001),
    Vector("5f00010000", 65.536),
    Vector("5f00002fda", 12.25),
    Vector("5f01f40000", 32768.0),
    Vector("5f0000044c", 1.1),
    Vector("44400921f9f01b866e", 3.14159),
    Vector("444028800000000000", 12.25, False),
    Vector("44c029000000000000", -12.5, False),
    Vector("447ff0000000000000", float("inf")),
    Vector("4b00000000", Date(0)),
    Vector("4a000000d04b9284b8", Date(894621091000)),
    Vector("4b00e3838f", Date(894621060000)),
    Vector("4bffffffff", Date(-60000)),
]

STRINGS = [
    Vector("00", ""),
    Vector("0130", "0"),
    Vector("0568656c6c6f", "hello"),
    Vector("53000568656c6c6f", "hello", False),
    Vector("52000768656c6c6f2c2005776f726c64", "hello, world", False),
    Vector("02e4b8ade69687", "中文"),
    Vector("01c3a9", "é"),
    Vector("01c383", "Ã"),
    Vector("0100", "\0"),
    Vector("02eda0beedb4a3", "\U0001f923"),
    Vector("02edafbfedbfbf", "\U0010ffff"),
    Vector("0361eda0be62", "a\ud83eb"),
    Vector("14746573745f676f5f6865737369616e32eda0bd2e2e2e", "test_go_hessian2\ud83d..."),
    Vector("1f" + _hex(b"0" * 31), "0" * 31),
    Vector("3020" + _hex(b"0" * 32), "0" * 32),
    Vector("33ff" + _hex(b"a" * 1023), "a" * 1023),
    Vector("530400" + _hex(b"a" * 1024), "a" * 1024),
    Vector("538000" + _hex(b"a" * 32768), "a" * 32768),
    Vector("528000" + _hex(b"a" * 32768) + "0161", "a" * 32769),
    Vector("528000" + _hex(b"t" * 32768) + "538000" + _hex(b"t" * 32768), "t" * 65536),
    Vector("527fff" + _hex(b"a" * 32767) + "02eda0beedb4a3", "a" * 32767 + "\U0001f923"),
]

BINARY = [
    Vector("20", b""),
    Vector("23010203", b"\1\2\3"),
    Vector("2f" + _hex(b"x" * 15), b"x" * 15),
    Vector("3410" + _hex(b"x" * 16), b"x" * 16),
    Vector("37ff" + _hex(b"x" * 1023), b"x" * 1023),
    Vector("420400" + _hex(b"x" * 1024), b"x" * 1024),
    Vector("421000" + _hex(b"x" * 4096), b"x" * 4096),
    Vector("411ffd" + _hex(b"x" * 0x1FFD) + "23010203", b"x" * 0x1FFD + b"\1\2\3", False),
    Vector("340161", b"a", False),
]

CONTAINERS = [
    Vector("78", ()),
    Vector("790131", ("1",)),
    Vector("7f0131013201330134013501360137", tuple("1234567")),
    Vector("589801310132013301340135013601370138", tuple("12345678")),
    Vector("7a9091", (0, 1)),
    Vector("5790915a", (0, 1), False),
    Vector("70075b737472696e67", TypedList("[string", ())),
    Vector("71075b737472696e670131", TypedList("[string", ("1",))),
    Vector("73045b696e74919293", TypedList("[int", (1, 2, 3))),
    Vector("72045b696e749091", TypedList("[int", (0, 1))),
    Vector("56045b696e74929091", TypedList("[int", (0, 1)), False),
    Vector("55045b696e7490915a", TypedList("[int", (0, 1)), False),
    Vector("56045b696e74989090909090909090", TypedList("[int", (0,) * 8)),
    Vector("72075b6f626a656374016191", TypedList("[object", ("a", 1))),
    Vector("71146a6176612e7574696c2e4c696e6b65644c6973740161", TypedList("java.util.LinkedList", ("a",))),
    Vector("485a", Map(None, ())),
    Vector("480161905a", Map(None, (("a", 0),))),
    Vector("4805636f6c6f720568656c6c6f5a", Map(None, (("color", "hello"),))),
    Vector("4d116a6176612e7574696c2e547265654d61700161905a", Map("java.util.TreeMap", (("a", 0),))),
    Vector("4d03636f6d05636f6c6f720568656c6c6f5a", Map("com", (("color", "hello"),))),
    Vector("48035f544fd40bb85a", Map(None, (("_TO", 3000),))),
    Vector("430568656c6c6f9205636f6c6f72056d6f64656c6005677265656e056369766963", Object(HELLO, ("green", "civic"))),
    Vector(CAR_HEX + "604ecfe403726564", Object(CAR, (None, 2020, "red"))),
    Vector("7a" + CAR_HEX + "604e9103726564604e9204626c7565", (Object(CAR, (None, 1, "red")), Object(CAR, (None, 2, "blue")))),
    Vector("7a" + CAR_HEX + "604e91037265645191", (Object(CAR, (None, 1, "red")), Ref(1))),
    Vector(CAR_HEX + "605190910178", Object(CAR, (Ref(0), 1, "x"))),
    Vector("7a7901615191", (("a",), Ref(1))),
    Vector("7a71045b696e7491719092", (TypedList("[int", (1,)), TypedList("[int", (2,)))),
    Vector("7c210921097901615191", (b"\t", b"\t", ("a",), Ref(1))),
    Vector("7c4b000000004b000000007901615191", (Date(0), Date(0), ("a",), Ref(1))),
    Vector("430947656e24436f6c6f7291046e616d656003524544", Object(ClassDef("Gen$Color", ("name",)), ("RED",))),
    Vector(
        "43146a6176612e6d6174682e426967446563696d616c910576616c75656003312e35",
        Object(ClassDef("java.math.BigDecimal", ("value",)), ("1.5",)),
    ),
    Vector(
        "43126a6176612e73716c2e54696d657374616d70910576616c7565604b00000000",
        Object(ClassDef("java.sql.Timestamp", ("value",)), (Date(0),)),
    ),
]

VECTORS = SCALARS + STRINGS + BINARY + CONTAINERS

REJECTED = [
    "01f09fa4a3",
    "04f09f9a80",
    "01c1a1",
    "01e08080",
    "02e4b8",
    "01a0",
    "03e4b8ad80",
    "0280bf80bf80",
    "40",
    "45",
    "47",
    "50",
    "5a",
    "5190",
    "60",
    "4f90",
    "430161900178",
    "41",
    "58497fffffff",
    "5849ffffffff",
    "56045b696e74497fffffff",
    "719091",
    "48905a",
    "4890",
    "57",
    "5290",
    "5300",
    "4100024141",
    "410002414190",
    "7a90",
    "4390",
    "430161497fffffff",
    "",
]
"""Not Hessian 2 as we take it: four-byte UTF-8, overlong forms, reserved tags, references to nothing, lengths without bytes."""
