"""RE2 patterns and substitution (`mesh_proxy.routing.regex`)."""

import pytest

from mesh_proxy.routing.regex import RegexRewrite, compile_full_match


def test_a_full_match_is_wanted_on_bytes_of_any_kind() -> None:
    matches = compile_full_match("/v[0-9]+/.*")
    assert matches(b"/v12/\xc3\xa9")
    assert not matches(b"/v12")
    assert not matches(b"x/v12/")
    assert not matches(b"/v1/\xff")  # no UTF-8, which `.` would need


@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "expected"),
    [
        ("^/service/([^/]+)(/.*)$", r"\2/instance/\1", b"/service/foo/v1/api", b"/v1/api/instance/foo"),
        ("one", "two", b"/xxx/one/yyy/one/zzz", b"/xxx/two/yyy/two/zzz"),
        ("^(.*?)one(.*)$", r"\1two\2", b"/xxx/one/yyy/one/zzz", b"/xxx/two/yyy/one/zzz"),
        ("(?i)/xxx/", "/yyy/", b"/aaa/XxX/bbb", b"/aaa/yyy/bbb"),
        ("b*", "x", b"abc", b"xaxcx"),  # RE2 takes no empty match right behind a match
        ("a", r"\\\0", b"ba", b"b\\a"),
        ("(a)|b", r"[\1]", b"ab", b"[a][]"),
        ("z", "y", b"abc", b"abc"),
        ("^a", "b", b"aaa", b"baa"),
        ("x", r"\g<1>".replace("\\", ""), b"x", b"g<1>"),
    ],
)
def test_substitution(pattern: str, substitution: str, text: bytes, expected: bytes) -> None:
    assert RegexRewrite(pattern, substitution).replace(text) == expected


@pytest.mark.parametrize(
    ("pattern", "substitution", "why"),
    [
        ("(a)", r"\2", "no group 2"),
        ("a", r"\x", "backslash"),
        ("a", "\\", "backslash"),
        ("(a", "b", "missing"),
        ("a(?=b)", "", "invalid"),
    ],
)
def test_what_is_refused(pattern: str, substitution: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        RegexRewrite(pattern, substitution)
