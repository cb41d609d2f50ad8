"""Hessian 2: the vectors are stepped over, read and written again; what is no Hessian is refused by both walks alike."""

from __future__ import annotations

import math
import random
import tracemalloc

import pytest
from hessian_vectors import CAR, REJECTED, VECTORS, Vector
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError
from mesh_codecs.hessian2 import MAX_DEPTH, ClassDef, Date, Long, Map, Object, Reader, Ref, Tables, TypedList, Writer, dumps, skip
from mesh_codecs.hessian2.skip import MAX_CLASSES, MAX_FIELDS, find_ref
from mesh_codecs.hessian2.text import from_str, raw_string, string_end, to_str, to_utf8, units_end


def read_all(data: bytes, count: int) -> list[object]:
    reader = Reader(data)
    return [reader.read() for _ in range(count)]


def same(left: object, right: object) -> bool:
    """Equal in value and in type, all the way down."""
    return repr(left) == repr(right)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.hex[:40])
def test_vectors(vector: Vector) -> None:
    data = vector.data
    assert skip(data, 0, 1, Tables()) == len(data)
    reader = Reader(data)
    assert same(reader.read(), vector.value)
    assert reader.pos == len(data)
    if vector.canonical:
        assert dumps(vector.value).hex() == vector.hex
    assert same(Reader(dumps(vector.value)).read(), vector.value)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.hex[:40])
def test_vectors_cut_short(vector: Vector) -> None:
    data = vector.data
    cuts = range(len(data)) if len(data) < 200 else (1, 3, len(data) // 2, len(data) - 1)
    for cut in cuts:
        with pytest.raises(RemoteProtocolError, match=r"truncated|bad_length"):
            skip(data[:cut], 0, 1, Tables())
        with pytest.raises(RemoteProtocolError, match=r"truncated|bad_length"):
            Reader(data[:cut]).read()


def test_all_vectors_in_one_stream() -> None:
    data = b"".join(v.data for v in VECTORS if "51" not in v.hex and "60" not in v.hex and "71" not in v.hex)
    count = sum("51" not in v.hex and "60" not in v.hex and "71" not in v.hex for v in VECTORS)
    tables = Tables()
    assert skip(data, 0, count, tables) == len(data)
    reader = Reader(data)
    for _ in range(count):
        reader.read()
    assert reader.pos == len(data)
    assert reader.refs == tables.refs


@pytest.mark.parametrize("hex_", REJECTED)
def test_rejected(hex_: str) -> None:
    data = bytes.fromhex(hex_)
    with pytest.raises(RemoteProtocolError):
        skip(data, 0, 1, Tables())
    with pytest.raises(RemoteProtocolError):
        Reader(data).read()


def test_nan_and_the_lost_sign_of_zero() -> None:
    assert dumps(math.nan).hex() == "447ff8000000000000"
    assert math.isnan(Reader(dumps(math.nan)).read())  # type: ignore[arg-type]
    assert dumps(-0.0) == b"\x5b"


def test_class_index_over_15_and_type_numbers() -> None:
    objects = tuple(Object(ClassDef(f"C{n}", ("f",)), (n,)) for n in range(20)) * 2
    lists = tuple(TypedList(f"T{n}", ()) for n in range(60)) * 2
    data = dumps(objects + lists)
    assert skip(data, 0, 1, tables := Tables()) == len(data)
    assert (tables.classes, tables.types, tables.refs) == ([1] * 20, 60, 161)
    assert same(Reader(data).read(), objects + lists)
    assert repr(tables).startswith("<Tables refs=161")


def test_definitions_may_stand_inside_other_objects_and_in_a_row() -> None:
    inner = ClassDef("B", ("x",))
    value = Object(ClassDef("A", ("b", "c")), (Object(inner, (1,)), Object(inner, (Ref(0),))))
    data = dumps(value)
    assert skip(data, 0, 1, Tables()) == len(data)
    assert same(Reader(data).read(), value)
    twice = bytes.fromhex("430141904301429061")
    assert skip(twice, 0, 1, Tables()) == len(twice)
    assert same(Reader(twice).read(), Object(ClassDef("B", ()), ()))


def test_limits_of_classes() -> None:
    fields = dumps(Object(ClassDef("A", tuple("f" * (MAX_FIELDS + 1))), (None,) * (MAX_FIELDS + 1)))
    classes = dumps(tuple(Object(ClassDef(f"C{n}", ()), ()) for n in range(MAX_CLASSES + 1)))
    for data in (fields, classes):
        with pytest.raises(RemoteProtocolError, match="class_limit"):
            skip(data, 0, 1, Tables())
        with pytest.raises(RemoteProtocolError, match="class_limit"):
            Reader(data).read()


@pytest.mark.parametrize("opening", ["79", "57", "4890", "710161", "5590", "4d016190"])
def test_depth(opening: str) -> None:
    data = bytes.fromhex(opening) * 100_000
    with pytest.raises(RemoteProtocolError, match=r"too_deep|bad_|truncated"):
        skip(data, 0, 1, Tables())
    with pytest.raises(RemoteProtocolError, match=r"too_deep|bad_|truncated"):
        Reader(data).read()


def test_depth_at_the_limit() -> None:
    good = b"\x79" * MAX_DEPTH + b"N"
    assert skip(good, 0, 1, Tables()) == len(good)
    Reader(good).read()
    for data in (b"\x79" * (MAX_DEPTH + 1) + b"N", b"W" * (MAX_DEPTH + 1) + b"Z" * (MAX_DEPTH + 1)):
        with pytest.raises(RemoteProtocolError, match="too_deep"):
            skip(data, 0, 1, Tables())
        with pytest.raises(RemoteProtocolError, match="too_deep"):
            Reader(data).read()
    assert skip(b"\x79" * 300 + b"N", 0, 1, Tables(), max_depth=300) == 301


def test_long_arrays_take_the_quick_way_and_end_in_the_right_place() -> None:
    chooser = random.Random(7)
    for size in (31, 32, 33, 64, 95, 1000):
        values = tuple(chooser.choice([1, 300, -5, Long(9), Long(2**40), 2.5, "word", "", "中", None, True]) for _ in range(size))
        data = dumps(values)
        assert skip(data, 0, 1, Tables()) == len(data)
        with pytest.raises(RemoteProtocolError):
            skip(data[:-1], 0, 1, Tables())


def test_find_ref() -> None:
    data = dumps("x", (1, Map(None, (("a", ("b",)),))), Object(CAR, (None, TypedList("t", (3,)), "c")))
    offsets = [find_ref(data, 0, 3, n) for n in range(5)]
    assert [data[o] for o in offsets] == [0x7A, 0x48, 0x79, 0x60, 0x71]
    for missing in (5, -1):
        with pytest.raises(RemoteProtocolError, match="bad_reference"):
            find_ref(data, 0, 3, missing)
    with pytest.raises(RemoteProtocolError, match="truncated"):
        find_ref(data[:3], 0, 3, 9)


def test_map_get_and_object_get() -> None:
    value = Map(None, (("a", 1), (True, 5), (1, 2), ((), 3), ("a", 4)))
    assert value.get("a") == 4
    assert value.get(1) == 2
    assert value.get("b", 9) == 9
    car = Object(CAR, (None, 2020, "red"))
    assert car.get("year") == 2020
    assert car.get("none") is None


def test_writer_refuses_what_hessian_has_not() -> None:
    for value in (object(), {1, 2}, 2**31, -(2**31) - 1, Long(2**63), {"a": {3}}):
        with pytest.raises(LocalProtocolError):
            Writer().write(value)


# Strings


@settings(deadline=None)
@given(st.text(st.characters(codec=None, categories=None), max_size=80))
def test_text_of_any_kind(text: str) -> None:
    wide = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    raw, units = from_str(text)
    assert units == len(text.encode("utf-16-le", "surrogatepass")) // 2
    assert units_end(raw, 0, units) == len(raw)
    for after in (b"N", b"\x80\xbf", b"\xe4"):
        assert units_end(b"\xe4\xb8\xad" + raw + after, 3, units) == len(raw) + 3
    assert to_str(raw) == wide
    assert to_utf8(raw) == wide.encode("utf-8", "surrogatepass")
    data = dumps(text)
    assert string_end(data, 0) == len(data)
    assert Reader(data).read() == wide


def java_string_end(data: bytes, pos: int, units: int) -> int | None:
    """The end as a plain loop finds it; None when not well-formed."""
    for _ in range(units):
        if pos >= len(data):
            return None
        lead = data[pos]
        size = 1 if lead < 0x80 else 2 if 0xC0 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 0
        tail = data[pos + 1 : pos + size]
        if not size or len(tail) != size - 1 or any(b & 0xC0 != 0x80 for b in tail):
            return None
        if (lead in (0xC0, 0xC1) and data[pos : pos + 2] != b"\xc0\x80") or (lead == 0xE0 and tail[0] < 0xA0):
            return None
        pos += size
    return pos


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [b"a", b"\xc3\xa9", b"\xe4\xb8\xad", b"\xed\xa0\xbd", b"\xc0\x80", b"\x80", b"\xbf", b"\xf0", b"\xc1\xa1", b"\xe4"]
        )
    ),
    st.integers(0, 40),
)
def test_the_stepwise_search_agrees_with_a_plain_loop(parts: list[bytes], units: int) -> None:
    data = b"".join(parts)
    expected = java_string_end(data, 0, units)
    try:
        found: int | None = units_end(data, 0, units)
    except RemoteProtocolError:
        found = None
    assert found == expected


def test_chunks_may_end_in_any_form() -> None:
    data = bytes.fromhex("520001e4b8ad520001eda0bd5300 01 edb4a3".replace(" ", ""))
    raw, end = raw_string(data, 0)
    assert end == len(data) == string_end(data, 0)
    assert to_str(raw) == "中\U0001f523"
    assert raw_string(bytes.fromhex("52000161300162"), 0) == (b"ab", 7)
    assert raw_string(bytes.fromhex("5200016100"), 0) == (b"a", 5)
    with pytest.raises(RemoteProtocolError):
        raw_string(bytes.fromhex("5200016190"), 0)


def test_long_hostile_strings_cost_little() -> None:
    for data in (b"a" * 65534 + b"\x80" * 200_000, b"\x80" * 300_000, b"\xe4" * 300_000):
        with pytest.raises(RemoteProtocolError):
            units_end(data, 0, 65535)


# Anything at all

DEPTH_3 = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.integers(-(2**63), 2**63 - 1).map(Long)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.binary(max_size=40)
    | st.integers(-(2**45), 2**45).map(Date),
    lambda inner: (
        st.lists(inner, max_size=10).map(tuple)
        | st.builds(TypedList, st.sampled_from(["[int", "java.util.ArrayList"]), st.lists(inner, max_size=10).map(tuple))
        | st.builds(Map, st.sampled_from([None, "java.util.TreeMap"]), st.lists(st.tuples(inner, inner), max_size=4).map(tuple))
        | st.builds(lambda a, b: Object(ClassDef("demo.Pair", ("a", "b")), (a, b)), inner, inner)
        | st.builds(lambda a: Object(ClassDef("demo.Box", ("a",)), (a,)), inner)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(st.lists(DEPTH_3, min_size=1, max_size=4), st.binary(max_size=4))
def test_what_is_written_is_stepped_over_and_read_back(values: list[object], rest: bytes) -> None:
    data = dumps(*values)
    assert skip(data + rest, 0, len(values), Tables()) == len(data)
    reader = Reader(data + rest)
    for value in values:
        assert same(reader.read(), value if value != 0.0 or isinstance(value, int) else 0.0) or "-0.0" in repr(value)
    assert reader.pos == len(data)


TAGS = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [v.data for v in VECTORS if len(v.data) < 50] + [bytes([b]) for b in b"CHMOQUVWXYZ\x60\x61\x71\x79\x7a\x90\x91"]
    )
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(TAGS)
def test_both_walks_agree_on_any_bytes(data: bytes) -> None:
    try:
        end: int | str = skip(data, 0, 1, tables := Tables())
    except RemoteProtocolError as error:
        end = error.code
    reader = Reader(data)
    try:
        reader.read()
        found: int | str = reader.pos
    except RemoteProtocolError as error:
        found = error.code
    assert isinstance(end, int) == isinstance(found, int)
    if isinstance(end, int):
        assert end == found
        assert tables.refs == reader.refs
        assert tables.classes == [len(c.fields) for c in reader.classes]


@pytest.mark.parametrize(
    "unit",
    [
        "78",
        "80",
        "00",
        "d8",
        "5b",
        "485a",
        "575a",
        "700161",
        "4e",
        "5d02",
        "f810",
        "21ff",
        "7978",
        "5190",
        "60",
        "614e",
        "01c3a9",
    ],
)
def test_memory_of_a_read_stays_in_proportion(unit: str) -> None:
    """At most 64 bytes for each byte of input, plus 256 KiB."""
    piece = bytes.fromhex(unit)
    count = 60_000 // len(piece)
    definitions = dumps(Object(ClassDef("A", ()), ()), Object(ClassDef("B", ("x",)), (None,)), Ref(0))
    data = definitions + b"X" + b"I" + count.to_bytes(4, "big") + piece * count
    for walk in (lambda: read_all(data, 4), lambda: skip(data, 0, 4, Tables())):
        tracemalloc.start()
        try:
            walk()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= 64 * len(data) + 256 * 1024
