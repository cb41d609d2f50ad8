"""The header map."""

from mesh_codecs.headers import Headers


def test_repeats_keep_their_order() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")])
    assert headers.get(b"a") == b"1"
    assert headers.get_all(b"a") == [b"1", b"3", b"4"]
    assert headers.get_joined(b"a") == b"1,3,4"
    assert len(headers) == 4
    assert list(headers) == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"4")]


def test_set_replaces_all_values_and_remove_removes_them() -> None:
    headers = Headers([(b"a", b"1"), (b"a", b"2"), (b"b", b"3"), (b"b", b"4")])
    headers.set(b"a", b"9")
    assert headers.get_all(b"a") == [b"9"]
    assert headers.remove(b"b") == b"3"
    assert b"b" not in headers
    assert headers.more is None
    assert headers.remove(b"b") is None


def test_add_and_setdefault() -> None:
    headers = Headers()
    headers.add(b"a", b"1")
    headers.add(b"a", b"2")
    headers.add(b"a", b"3")
    headers.setdefault(b"a", b"4")
    headers.setdefault(b"b", b"5")
    assert headers.get_all(b"a") == [b"1", b"2", b"3"]
    assert headers.get_joined(b"b") == b"5"
    assert headers.get_all(b"c") == []
    assert headers.get_joined(b"c") is None


def test_copy_is_independent() -> None:
    headers = Headers([(b"a", b"1"), (b"a", b"2")])
    other = headers.copy()
    assert other == headers
    other.add(b"a", b"3")
    other.set(b"c", b"4")
    assert headers == Headers([(b"a", b"1"), (b"a", b"2")])
    assert headers != other
    assert headers != 1
    assert "b'a'" in repr(headers)
