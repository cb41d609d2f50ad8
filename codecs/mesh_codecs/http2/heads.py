"""From decoded pairs to message heads: the rules of RFC 9113, 8.2 and 8.3, checked by a few searches over the joined block.

A head is immutable and may be kept: the connection memoises it under the bytes of its header block.
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.events import KnownHead
from mesh_codecs.headers import Headers, Pairs

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"

# `text.translate(None, allowed)` leaves what is not allowed: the quickest check there is.
_VALUE_BYTES: Final = bytes(byte for byte in range(256) if (byte >= 0x20 and byte != 0x7F) or byte == 0x09)
_NAME_JOINED: Final = _TOKEN + b"\n"
_VALUE_JOINED: Final = _VALUE_BYTES + b"\n"
_METHOD_BYTES: Final = _TOKEN + _UPPER
_SCHEME_BYTES: Final = b"+-.0123456789abcdefghijklmnopqrstuvwxyz" + _UPPER
_PATH_BYTES: Final = bytes(byte for byte in range(0x21, 256) if byte != 0x7F and byte != 0x23)
_AUTHORITY_BYTES: Final = b"-._~!$&'()*+,;=:[]%0123456789abcdefghijklmnopqrstuvwxyz" + _UPPER
_PROTOCOL_BYTES: Final = _METHOD_BYTES + b"/"
_JOIN_FROM: Final = 4
"""more fields than this are checked faster joined than one by one"""
_length_ok = re.compile(rb"[0-9]{1,18}").fullmatch
_status_ok = re.compile(rb"[1-5][0-9][0-9]").fullmatch

CONNECTION_SPECIFIC: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""what HTTP/2 says by other means (RFC 9113, 8.2.2); `te` may say `trailers` only"""
NOT_IN_TRAILERS: Final = frozenset({b"content-length", b"host", b"te", b"trailer"})
"""framing and routing fields that make no sense after the body (RFC 9110, 6.5.1): dropped"""

_PSEUDO_NAMES: Final = frozenset({b":method", b":scheme", b":path", b":authority", b":protocol", b":status"})
_COMMON_METHODS: Final = frozenset({b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"})
_COMMON_SCHEMES: Final = frozenset({b"http", b"https"})

_new_headers = Headers.__new__  # its parts are at hand: __init__ would look for repeats again


class Malformed(Exception):
    """The message breaks a rule of HTTP (RFC 9113, 8.1.1); `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Head(KnownHead):
    """A checked header block: of a request, a response, or trailers."""

    __slots__ = ("authority", "brief", "content_length", "first", "method", "more", "path", "protocol", "scheme", "status")

    def __init__(self) -> None:
        self.note = None
        self.method = b""
        self.scheme = b""
        self.authority = b""
        self.path = b""
        self.protocol = b""
        self.status = 0
        self.content_length = -1
        """bytes announced, -1 when absent"""
        self.first: dict[bytes, bytes] = {}
        self.more: Pairs | None = None
        self.brief = 0
        """of a request, for its receiver: how many calls with this head were answered at one go, see `HeldResponses`"""

    def headers(self) -> Headers:
        """A header map of its own for one message."""
        headers = _new_headers(Headers)
        headers.first = self.first.copy()
        headers.more = None if self.more is None else self.more.copy()
        return headers


def request_head(pairs: Pairs, fresh: Pairs, allow_connect: bool) -> Head:
    """The head of a request. `fresh` are those pairs whose bytes were not checked before; the rest came from a table.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    pseudo, count = _pseudo(pairs)
    method = pseudo.get(b":method")
    scheme = pseudo.get(b":scheme")
    path = pseudo.get(b":path")
    authority = pseudo.get(b":authority", b"")
    protocol = pseudo.get(b":protocol")
    if b":status" in pseudo:
        raise Malformed("http2.unknown_pseudo_header")
    if method not in _COMMON_METHODS and (not method or method.translate(None, _METHOD_BYTES)):
        raise Malformed("http2.invalid_method")
    if method == b"CONNECT" and protocol is None:
        if scheme is not None or path is not None or not authority:
            raise Malformed("http2.invalid_connect")
        scheme = path = b""
    else:
        if scheme not in _COMMON_SCHEMES and (not scheme or scheme.translate(None, _SCHEME_BYTES) or not scheme[:1].isalpha()):
            raise Malformed("http2.invalid_scheme")
        if not path or path.translate(None, _PATH_BYTES) or not (path[:1] == b"/" or path == b"*"):
            raise Malformed("http2.invalid_path")
        if path == b"*" and method != b"OPTIONS":
            raise Malformed("http2.invalid_path")
        if protocol is not None:
            if not allow_connect or method != b"CONNECT" or not protocol or protocol.translate(None, _PROTOCOL_BYTES):
                raise Malformed("http2.invalid_connect")
            # As Envoy does, an extended CONNECT goes through the proxy as the upgrade that it stands for.
            method = b"GET"
            head.protocol = protocol.lower()
    _fields(head, pairs[count:], fresh)
    first = head.first
    if b"host" in first:
        if head.more is not None and any(name == b"host" for name, _ in head.more):
            raise Malformed("http2.repeated_host")
        host = first.pop(b"host")
        authority = authority or host  # the pseudo header wins, and a differing Host goes no further: as Envoy does
    if authority.translate(None, _AUTHORITY_BYTES):
        raise Malformed("http2.invalid_authority")
    head.method = method
    head.scheme = scheme
    head.authority = authority
    head.path = path
    if b"content-length" in first:
        head.content_length = _content_length(head)
    return head


def response_head(pairs: Pairs, fresh: Pairs) -> Head:
    """The head of a response; `fresh` as for requests.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    pseudo, count = _pseudo(pairs)
    status = pseudo.get(b":status")
    if count > 1:
        raise Malformed("http2.unknown_pseudo_header")
    if status is None or _status_ok(status) is None or status == b"101":
        raise Malformed("http2.invalid_status")
    head.status = int(status)
    _fields(head, pairs[count:], fresh)
    if b"content-length" in head.first:
        head.content_length = _content_length(head)
    return head


def trailers_head(pairs: Pairs, fresh: Pairs) -> Head:
    """A trailer section; `fresh` as for requests.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    _fields(head, pairs, fresh)
    first = head.first
    if not NOT_IN_TRAILERS.isdisjoint(first):
        for name in NOT_IN_TRAILERS:
            first.pop(name, None)
        if head.more is not None:
            head.more = [pair for pair in head.more if pair[0] not in NOT_IN_TRAILERS] or None
    return head


def _pseudo(pairs: Pairs) -> tuple[dict[bytes, bytes], int]:
    """The pseudo header fields at the start and how many there are."""
    count = 0
    for pair in pairs:
        if pair[0] not in _PSEUDO_NAMES:
            break
        count += 1
    pseudo = dict(pairs[:count])
    if len(pseudo) != count:
        raise Malformed("http2.repeated_pseudo_header")
    return pseudo, count


def _fields(head: Head, pairs: Pairs, fresh: Pairs) -> None:
    """Check the fields and split them into first values and repeats."""
    if fresh:
        # Pseudo header fields have rules of their own; one among the fields is found below, an unknown one is a bad name here.
        fault = field_fault([pair for pair in fresh if pair[0] not in _PSEUDO_NAMES])
        if fault is not None:
            raise Malformed(fault)
    if not pairs:
        return
    first = dict(pairs)
    if len(first) != len(pairs):
        first = _repeats(head, pairs)
    if not _PSEUDO_NAMES.isdisjoint(first):
        raise Malformed("http2.pseudo_header_after_fields")
    if not CONNECTION_SPECIFIC.isdisjoint(first):
        raise Malformed("http2.connection_specific_header")
    if b"te" in first and (first[b"te"] != b"trailers" or (head.more is not None and any(n == b"te" for n, _ in head.more))):
        raise Malformed("http2.invalid_te")
    head.first = first


def _repeats(head: Head, pairs: Pairs) -> dict[bytes, bytes]:
    first: dict[bytes, bytes] = {}
    more: Pairs = []
    crumbs: list[bytes] = []
    for pair in pairs:
        name = pair[0]
        if name == b"cookie":
            crumbs.append(pair[1])
            first.setdefault(name, b"")
        elif name in first:
            more.append(pair)
        else:
            first[name] = pair[1]
    if crumbs:
        first[b"cookie"] = b"; ".join(crumbs)  # RFC 9113, 8.2.3
    head.more = more or None
    return first


def _content_length(head: Head) -> int:
    value = head.first[b"content-length"]
    if _length_ok(value) is None or (head.more is not None and any(name == b"content-length" for name, _ in head.more)):
        raise Malformed("http2.invalid_content_length")
    return int(value)


def value_is_clean(value: bytes) -> bool:
    """No control bytes, no blank at either end (RFC 9113, 8.2.1)."""
    return not value.translate(None, _VALUE_BYTES) and len(value.strip(b" \t")) == len(value)


def field_fault(pairs: Pairs) -> str | None:
    """What is wrong with the bytes of names and values, if anything."""
    if len(pairs) > _JOIN_FROM:
        return _fault_of_many(pairs)
    for name, value in pairs:
        if not name or name.translate(None, _TOKEN):
            return "http2.invalid_header_name"
        if not value_is_clean(value):
            return "http2.invalid_header_value"
    return None


def _fault_of_many(pairs: Pairs) -> str | None:
    """The same for a whole block at once, joined by newlines, which neither names nor values may hold; counting them shows
    whether one inside passes for a joint."""
    names = [name for name, _ in pairs]
    joined = b"\n".join(names)
    if joined.count(b"\n") != len(pairs) - 1 or joined.translate(None, _NAME_JOINED) or b"" in names:
        return "http2.invalid_header_name"
    joined = b"\n".join([value for _, value in pairs])
    if joined.count(b"\n") != len(pairs) - 1 or joined.translate(None, _VALUE_JOINED):
        return "http2.invalid_header_value"
    if b"\n " in joined or b" \n" in joined or b"\t" in joined or len(joined.strip(b" ")) != len(joined):
        # A blank at an end, or a tab somewhere, or an empty value at an end with a blank after it: look closer.
        for _, value in pairs:
            if not value_is_clean(value):
                return "http2.invalid_header_value"
    return None
