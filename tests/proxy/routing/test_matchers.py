"""String, header, query and share matchers (`mesh_proxy.routing.matchers`)."""

import pytest

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model.common import (
    FractionConfig,
    HeaderMatcherConfig,
    HeaderMatchKind,
    QueryParameterMatcherConfig,
    StringMatcherConfig,
    StringMatchKind,
)
from mesh_proxy.routing import matchers


def request(path: bytes = b"/", *pairs: tuple[bytes, bytes], authority: bytes = b"a.example") -> RequestHeaders:
    return RequestHeaders(1, b"GET", b"http", authority, path, Headers(pairs), True)


def string(kind: str, value: str, ignore_case: bool = False) -> StringMatcherConfig:
    return StringMatcherConfig(kind=StringMatchKind[kind], value=value, ignore_case=ignore_case)


@pytest.mark.parametrize(
    ("config", "yes", "no"),
    [
        (string("EXACT", "abc"), [b"abc"], [b"Abc", b"abcd", b""]),
        (string("EXACT", "aBc", True), [b"abc", b"ABC"], [b"abcd"]),
        (string("PREFIX", "ab"), [b"ab", b"abc"], [b"Ab", b"a"]),
        (string("PREFIX", "ab", True), [b"AB", b"aBc"], [b"a", b"xab"]),
        (string("SUFFIX", "bc"), [b"bc", b"abc"], [b"aBC", b"c"]),
        (string("SUFFIX", "bc", True), [b"aBC"], [b"bcd"]),
        (string("CONTAINS", "b"), [b"abc"], [b"aBc"]),
        (string("CONTAINS", "B", True), [b"abc"], [b"ac"]),
        (string("REGEX", "a.c|x"), [b"abc", b"x"], [b"abcd", b"xx", b"ABC"]),
    ],
)
def test_string_matcher(config: StringMatcherConfig, yes: list[bytes], no: list[bytes]) -> None:
    matches = matchers.compile_string_matcher(config)
    assert [value for value in yes + no if matches(value)] == yes


def test_an_invalid_regex_is_refused_with_its_text() -> None:
    with pytest.raises(ValueError, match=r"'a\(b'.*missing"):
        matchers.compile_string_matcher(string("REGEX", "a(b"))


def header(kind: str = "STRING", name: str = "x", value: str = "v", **more: object) -> HeaderMatcherConfig:
    text = string("EXACT", value) if kind == "STRING" else None
    return HeaderMatcherConfig(name=name, kind=HeaderMatchKind[kind], string=text, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "present", "other", "missing"),
    [
        # expected for x: v, for x: w, and without x
        (header(), True, False, False),
        (header(invert=True), False, True, False),
        (header(treat_missing_as_empty=True), True, False, False),
        (header(invert=True, treat_missing_as_empty=True), False, True, True),
        (header(value="", treat_missing_as_empty=True), False, False, True),
        (header("PRESENT"), True, True, False),
        (header("PRESENT", present=False), False, False, True),
        (header("PRESENT", invert=True), False, False, True),
        (header("PRESENT", present=False, invert=True), True, True, False),
        (header("PRESENT", treat_missing_as_empty=True), True, True, True),
    ],
)
def test_header_matcher_and_missing_headers(config: HeaderMatcherConfig, present: bool, other: bool, missing: bool) -> None:
    blocks = [Headers([(b"x", b"v")]), Headers([(b"x", b"w")]), Headers()]
    on_headers = matchers.compile_headers_matcher(config)
    on_request = matchers.compile_header_matcher(config)
    on_response = matchers.compile_response_matcher(config)
    expected = [present, other, missing]
    assert [on_headers(block) for block in blocks] == expected
    assert [on_request(RequestHeaders(1, b"GET", b"", b"", b"/", block, True)) for block in blocks] == expected
    assert [on_response(ResponseHeaders(1, 200, block, True)) for block in blocks] == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (header(value="a"), True),
        (header(value="b"), True),
        (header(value="a,b"), False),
        (header(value="b", invert=True), False),
        (header(value="c", invert=True), True),
        (header(value="", treat_missing_as_empty=True), False),
        (header("PRESENT"), True),
        (header("PRESENT", invert=True), False),
        (header("PRESENT", treat_missing_as_empty=True), True),
    ],
)
def test_one_value_of_a_repeated_header_is_enough(config: HeaderMatcherConfig, expected: bool) -> None:
    repeated = Headers([(b"x", b"a"), (b"y", b"1"), (b"x", b"b")])
    assert matchers.compile_headers_matcher(config)(repeated) is expected
    assert matchers.compile_header_matcher(config)(RequestHeaders(1, b"GET", b"", b"", b"/", repeated, True)) is expected


def test_a_header_that_is_single_beside_a_repeated_one() -> None:
    block = Headers([(b"x", b"v"), (b"y", b"1"), (b"y", b"2")])
    assert matchers.compile_headers_matcher(header())(block)
    assert matchers.compile_header_matcher(header())(RequestHeaders(1, b"GET", b"", b"", b"/", block, True))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"5", True),
        (b"-3", True),
        (b"+7", True),
        (b" 9 ", True),
        (b"10", False),
        (b"-4", False),
        (b"5x", False),
        (b"", False),
        (b"1_0", False),
        (b"9" * 30, False),
        (b"5.0", False),
    ],
)
def test_range(value: bytes, expected: bool) -> None:
    config = header("RANGE", range_start=-3, range_end=10)
    assert matchers.compile_headers_matcher(config)(Headers([(b"x", value)])) is expected


def test_pseudo_headers() -> None:
    for name, value in [(":method", "GET"), (":path", "/p?q"), (":authority", "h"), ("host", "h"), (":scheme", "http")]:
        matches = matchers.compile_header_matcher(header(name=name, value=value))
        assert matches(request(b"/p?q", authority=b"h"))
    absent = matchers.compile_header_matcher(header("PRESENT", name=":authority"))
    assert not absent(request(authority=b""))
    assert matchers.compile_response_matcher(header(name=":status", value="204"))(ResponseHeaders(1, 204, Headers(), True))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/?a=1", True),
        (b"/?b=0&a=1", True),
        (b"/?a=1&a=2", True),
        (b"/?a=2&a=1", False),
        (b"/?a", False),
        (b"/", False),
        (b"/a=1", False),
        (b"/?A=1", False),
        (b"/?a=%31", False),
    ],
)
def test_query_parameter(path: bytes, expected: bool) -> None:
    config = QueryParameterMatcherConfig(name="a", string=string("EXACT", "1"))
    assert matchers.compile_query_matcher(config)(request(path)) is expected


def test_query_parameter_present() -> None:
    present = matchers.compile_query_matcher(QueryParameterMatcherConfig(name="a"))
    absent = matchers.compile_query_matcher(QueryParameterMatcherConfig(name="a", present=False))
    for path, expected in [(b"/?a", True), (b"/?a=", True), (b"/?b", False), (b"/", False)]:
        assert present(request(path)) is expected
        assert absent(request(path)) is not expected


@pytest.mark.parametrize(
    ("runtime", "share"),
    [
        ({}, 0.25),
        ({"k": 10}, 0.1),
        ({"k": 0}, 0.0),
        ({"k": "100"}, 1.0),
        ({"k": True}, 0.25),
        ({"k": "x"}, 0.25),
        ({"k": -1}, 0.25),
        ({"k": {"numerator": 5000, "denominator": "TEN_THOUSAND"}}, 0.5),
        ({"other": 1}, 0.25),
    ],
)
def test_fraction(runtime: dict[str, object], share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    wins = matchers.compile_fraction(FractionConfig(numerator=2500, denominator=10_000, runtime_key="k"), runtime)
    numbers = iter(range(10_000))
    monkeypatch.setattr(matchers, "random_bits", lambda bits: next(numbers))
    assert sum(wins() for _ in range(10_000)) == share * 10_000


def test_a_runtime_value_counts_from_the_moment_it_changes() -> None:
    runtime: dict[str, object] = {}
    wins = matchers.compile_fraction(FractionConfig(numerator=0, runtime_key="k"), runtime)
    assert not wins()
    runtime["k"] = 100
    assert wins()
