"""What the first bytes of a connection are taken for."""

from __future__ import annotations

import pytest

from mesh_codecs.http2 import PREFACE
from mesh_proxy.listener.inspection import MAX_INSPECTED, inspect

KNOWN = [
    (PREFACE, "h2c"),
    (PREFACE + b"\0\0\0\4\0\0\0\0\0", "h2c"),
    (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "http/1.1"),
    (b"POST /a.B/c HTTP/1.1\n", "http/1.1"),
    (b"PRI /x HTTP/1.1\r\n", "http/1.1"),
    (b"m-search * HTTP/1.0\r\n", "http/1.0"),
    (b"\xda\xbb\xc2\x00" + bytes(12), ""),
    (b"\x16\x03\x01\x02\x00", ""),
    (b"GET / HTTP/2.0\r\n", ""),
    (b"GET /\r\n", ""),
    (b"GET  / HTTP/1.1\r\n", ""),
    (b"*1\r\n$4\r\nPING\r\n", ""),
    (b"\r\nGET / HTTP/1.1\r\n", ""),
    (b"G" * MAX_INSPECTED, ""),
]


@pytest.mark.parametrize(("data", "found"), KNOWN)
def test_inspect(data: bytes, found: str) -> None:
    """The same in every cutting: once known, it stays so; before that more is asked for."""
    answers = [inspect(data[:size]) for size in range(1, len(data) + 1)] if len(data) < 200 else [inspect(data)]
    assert answers[-1] == found
    known = [answer for answer in answers if answer is not None]
    assert set(known) == {found}
    assert answers == [None] * (len(answers) - len(known)) + known


def test_dubbo_is_known_by_its_first_byte() -> None:
    assert inspect(b"\xda") == ""
