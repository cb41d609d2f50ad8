"""From decoded pairs to message heads: the rules of RFC 9113, 8.2 and 8.3, checked by a few searches over the joined block.

A head is immutable and may be kept: the connection memoises it under the bytes of its header block.
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.headers import Headers, Pairs

# Joined by newlines, which neither a name nor a value may hold, a whole block is checked by one search each (and by counting
# the newlines, lest one inside a name or value pass for a joint).
_names_ok = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9a-z]+\n)*[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_value_fault = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\n[ \t]|[ \t]\n|\A[ \t]|[ \t]\Z").search
_method_ok = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_scheme_ok = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*").fullmatch
_path_ok = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*|\*").fullmatch
_authority_ok = re.compile(rb"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]%]*").fullmatch
_protocol_ok = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z/]+").fullmatch
_length_ok = re.compile(rb"[0-9]{1,18}").fullmatch
_status_ok = re.compile(rb"[1-5][0-9][0-9]").fullmatch

CONNECTION_SPECIFIC: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
"""what HTTP/2 says by other means (RFC 9113, 8.2.2); `te` may say `trailers` only"""
NOT_IN_TRAILERS: Final = frozenset({b"content-length", b"host", b"te", b"trailer"})
"""framing and routing fields that make no sense after the body (RFC 9110, 6.5.1): dropped"""


_new_headers = Headers.__new__  # its parts are at hand: __init__ would look for repeats again


class Malformed(Exception):
    """The message breaks a rule of HTTP (RFC 9113, 8.1.1); `code` says which."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Head:
    """A checked header block: of a request, a response, or trailers."""

    __slots__ = ("authority", "content_length", "first", "method", "more", "path", "protocol", "scheme", "status")

    def __init__(self) -> None:
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

    def headers(self) -> Headers:
        """A header map of its own for one message."""
        headers = _new_headers(Headers)
        headers.first = self.first.copy()
        headers.more = None if self.more is None else self.more.copy()
        return headers


def request_head(pairs: Pairs, allow_connect: bool) -> Head:
    """The head of a request.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    pseudo, count = _pseudo(pairs)
    method = pseudo.pop(b":method", None)
    scheme = pseudo.pop(b":scheme", None)
    path = pseudo.pop(b":path", None)
    authority = pseudo.pop(b":authority", b"")
    protocol = pseudo.pop(b":protocol", None)
    if pseudo:
        raise Malformed("http2.unknown_pseudo_header")
    if method is None or _method_ok(method) is None:
        raise Malformed("http2.invalid_method")
    if method == b"CONNECT" and protocol is None:
        if scheme is not None or path is not None or not authority:
            raise Malformed("http2.invalid_connect")
        scheme = path = b""
    else:
        if scheme is None or _scheme_ok(scheme) is None:
            raise Malformed("http2.invalid_scheme")
        if path is None or _path_ok(path) is None:
            raise Malformed("http2.invalid_path")
        if path == b"*" and method != b"OPTIONS":
            raise Malformed("http2.invalid_path")
        if protocol is not None:
            if not allow_connect or method != b"CONNECT" or _protocol_ok(protocol) is None:
                raise Malformed("http2.invalid_connect")
            # As Envoy does, an extended CONNECT goes through the proxy as the upgrade that it stands for.
            method = b"GET"
            head.protocol = protocol.lower()
    _fields(head, pairs[count:] if count else pairs)
    first = head.first
    if b"host" in first:
        if head.more is not None and any(name == b"host" for name, _ in head.more):
            raise Malformed("http2.repeated_host")
        host = first.pop(b"host")
        if not authority:
            authority = host
        elif authority != host and authority.lower() != host.lower():
            raise Malformed("http2.host_differs_from_authority")
    if _authority_ok(authority) is None:
        raise Malformed("http2.invalid_authority")
    head.method = method
    head.scheme = scheme
    head.authority = authority
    head.path = path
    if b"content-length" in first:
        head.content_length = _content_length(head)
    return head


def response_head(pairs: Pairs) -> Head:
    """The head of a response.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    pseudo, count = _pseudo(pairs)
    status = pseudo.pop(b":status", None)
    if pseudo:
        raise Malformed("http2.unknown_pseudo_header")
    if status is None or _status_ok(status) is None or status == b"101":
        raise Malformed("http2.invalid_status")
    head.status = int(status)
    _fields(head, pairs[count:])
    if b"content-length" in head.first:
        head.content_length = _content_length(head)
    return head


def trailers_head(pairs: Pairs) -> Head:
    """A trailer section.

    Raises:
        Malformed: it breaks a rule.
    """
    head = Head()
    if _pseudo(pairs)[1]:
        raise Malformed("http2.pseudo_header_in_trailers")
    _fields(head, pairs)
    first = head.first
    if not NOT_IN_TRAILERS.isdisjoint(first):
        for name in NOT_IN_TRAILERS:
            first.pop(name, None)
        if head.more is not None:
            head.more = [pair for pair in head.more if pair[0] not in NOT_IN_TRAILERS] or None
    return head


def _pseudo(pairs: Pairs) -> tuple[dict[bytes, bytes], int]:
    """The pseudo header fields at the start and how many there are; later ones fail as illegal names."""
    count = 0
    for pair in pairs:
        if pair[0][:1] != b":":
            break
        count += 1
    pseudo = dict(pairs[:count])
    if len(pseudo) != count:
        raise Malformed("http2.repeated_pseudo_header")
    return pseudo, count


def _fields(head: Head, pairs: Pairs) -> None:
    """Check the fields and split them into first values and repeats."""
    if not pairs:
        return
    first = dict(pairs)
    values: list[bytes]
    if len(first) == len(pairs):
        values = list(first.values())
    else:
        values = [value for _, value in pairs]
        first = _repeats(head, pairs)
    names = b"\n".join(first)
    if _names_ok(names) is None or names.count(b"\n") >= len(first):
        raise Malformed("http2.invalid_header_name")
    joined = b"\n".join(values)
    if _value_fault(joined) is not None or joined.count(b"\n") >= len(values):
        raise Malformed("http2.invalid_header_value")
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


def check_outgoing(pairs: Pairs) -> str | None:
    """What is wrong with fields that we are about to send, if anything. Empty values and names are judged as for the peer."""
    if not pairs:
        return None
    names = b"\n".join([name for name, _ in pairs])
    if _names_ok(names) is None or names.count(b"\n") >= len(pairs):
        return "http2.invalid_header_name"
    joined = b"\n".join([value for _, value in pairs])
    if _value_fault(joined) is not None or joined.count(b"\n") >= len(pairs):
        return "http2.invalid_header_value"
    return None
