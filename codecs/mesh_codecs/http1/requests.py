"""A request head as an event: the rules that need more than one line.

Every line is known to be good before the first of them is applied, so that the verdict does not depend on how the bytes were cut.
"""

from __future__ import annotations

from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.events import KnownHead, RequestHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import fields
from mesh_codecs.http1.fields import CHUNKED, CHUNKS, CLOSE, HOP_BY_HOP, KEEP_ALIVE, LENGTH, NO_BODY, UPGRADE
from mesh_codecs.http1.grammar import LOW_VERSION, NOT_KEPT, OWN, check_count, parse_fields, parse_request_line
from mesh_codecs.http1.head_table import Cut, HeadTable, cut, cut_all, own_fields
from mesh_codecs.http1.settings import Http1Settings, UnderscoreAction

_ID: Final = b"x-request-id"
_ID_LINE: Final = b"\r\nx-request-id: "
_ID_OCTETS: Final = bytes(range(0x21, 0x7F))
_ONLY_ID: Final = (_ID,)
_UNIQUE: Final = NOT_KEPT - OWN
_own_fields: Final = own_fields(OWN)


class KnownRequest(KnownHead):
    """A request head that came before, with what it says: HTTP/1.1, no upgrade, no CONNECT. If it has a request id, as another
    sidecar sends it, or is traced, those values differ."""

    __slots__ = ("authority", "count", "first", "id_at", "keep", "length", "method", "mode", "own", "path", "size")

    def __init__(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        first: dict[bytes, bytes],
        mode: int,
        length: int,
        keep: bool,
        count: int,
        own: Cut,
        parts: Cut | None,
    ) -> None:
        super().__init__()
        self.method = method
        self.authority = authority
        self.path = path
        self.first = first
        """the fields; to be copied, not changed. Those of `own` only hold their place"""
        self.mode = mode
        """how the body ends"""
        self.length = length
        """of the body, if the mode is LENGTH"""
        self.keep = keep
        """whether the connection persists"""
        self.count = count
        """number of fields"""
        self.own = own
        """names of the fields whose value is another one each time"""
        self.id_at = 0
        """where the request id begins, if there is no other such field"""
        self.size = 0
        """bytes without it and without the empty line"""
        if parts is not None and len(parts) == 2:
            self.id_at = len(parts[0])
            self.size = len(parts[0]) + len(parts[1])
        for name in own:
            first[name] = b""

    def take(self, first: dict[bytes, bytes], names: Cut, data: bytes, size: int) -> None:
        """Give these fields, of those in `own`, the values of a head of this kind, which has `size` bytes and begins `data`."""
        if self.id_at:
            first[_ID] = data[self.id_at : self.id_at + size - self.size]
        else:
            values: dict[bytes, bytes] = dict(_own_fields.findall(data, 0, size))
            for name in names:
                first[name] = values[name]


_table: Final = HeadTable[KnownRequest]()
_traced: Final = HeadTable[KnownRequest]()
"""of heads with more than a request id that is their own"""


def known_request(head: bytes, settings: Http1Settings) -> KnownRequest | None:
    """What a head without a body says, if it came before."""
    known = _table.entries.get(head)
    if known is None:
        known = _known_but_for_own(head)
        if known is None:
            return None
    if known.mode != NO_BODY or known.count > settings.max_header_count:
        return None
    _table.hits += 1
    return known


def _known_but_for_own(head: bytes) -> KnownRequest | None:
    parts = cut(head, _ID_LINE, _ID_OCTETS)
    known = None if parts is None else _table.entries.get(parts)
    if known is None and _traced.entries:
        known = _traced.entries.get(cut_all(head, _own_fields))
        if known is not None:
            _traced.hits += 1
    return known


def known_event(stream: int, known: KnownRequest, data: bytes, size: int) -> RequestHeaders:
    """The event of a known head, which has `size` bytes and begins `data`."""
    first = known.first.copy()
    if known.own:
        known.take(first, known.own, data, size)
    headers = Headers((), first)
    no_body = known.mode == NO_BODY
    return RequestHeaders(stream, known.method, b"", known.authority, known.path, headers, no_body, b"", b"HTTP/1.1", known)


def read_request_head(stream: int, head: bytes, settings: Http1Settings) -> tuple[RequestHeaders, int, int, bool]:
    """The event, how the body ends, its length, and whether the connection may persist.

    Args:
        stream: id for the event
        head: from the request line to before the CR LF that ends the last line
        settings: what is allowed

    Raises:
        RemoteProtocolError: the request must be refused.
    """
    known = _table.entries.get(head) or _known_but_for_own(head)
    if known is not None and known.count <= settings.max_header_count:
        _table.hits += 1
        return known_event(stream, known, head, len(head)), known.mode, known.length, known.keep
    lines = head.split(b"\r\n")
    method, target, minor = parse_request_line(lines.pop(0))
    if len(lines) > settings.max_header_count:
        check_count(lines, settings.max_header_count)
    pairs = parse_fields(lines)
    if not minor and not settings.accept_http_10:
        raise RemoteProtocolError(LOW_VERSION, 426, "HTTP/1.0")
    if settings.headers_with_underscores_action is not UnderscoreAction.ALLOW:
        pairs = fields.apply_underscore_action(pairs, settings.headers_with_underscores_action)
    headers = Headers(pairs)
    first = headers.first
    if headers.more is not None:
        fields.check_repeats(headers)
    flags = 0 if HOP_BY_HOP.isdisjoint(first) else fields.take_hop_by_hop(headers)
    mode = NO_BODY
    length = 0
    if flags & CHUNKED:
        if b"content-length" in first:
            raise RemoteProtocolError(fields.BOTH_LENGTHS, 400, "Content-Length and Transfer-Encoding")
        if not minor:
            raise RemoteProtocolError(fields.INVALID_TRANSFER_ENCODING, 400, "Transfer-Encoding in HTTP/1.0")
        mode = CHUNKS
    elif b"content-length" in first:
        length = fields.parse_content_length(first[b"content-length"])
        if length:
            mode = LENGTH
    scheme = protocol = b""
    host = first.pop(b"host", None)
    if host is None:
        authority = b"" if minor else settings.default_host_for_http_10
    else:
        if host not in fields.known_authorities:
            fields.check_authority(host)
        authority = host
        if not host:
            # Not the same as none (RFC 9112, 3.2): the manager above refuses a request without one.
            first[b"host"] = b""
    path = target
    end_stream = mode == NO_BODY
    if method == b"CONNECT":
        fields.check_connect(target, headers, mode)
        authority = target
        path = b""
        end_stream = False
    elif target[0] != 47:  # `/`
        scheme, authority, path = _special_target(method, target, host, authority, settings.allow_absolute_url)
    if flags & UPGRADE:
        # With a body, or in HTTP/1.0, an upgrade is ignored (RFC 9110, 7.8 allows that always).
        protocol = fields.take_upgrade(headers)
        if not end_stream or not minor:
            protocol = b""
        elif protocol:
            end_stream = False
    keep = not flags & CLOSE and (minor == 1 or flags & KEEP_ALIVE != 0)
    version = b"HTTP/1.1" if minor else b"HTTP/1.0"
    # A head in which nothing depends on the settings, save the number of fields.
    plain = minor and not scheme and not protocol and method != b"CONNECT" and authority and headers.more is None
    if plain and b"?" not in path and b"_" not in head and _UNIQUE.isdisjoint(first):
        table = _table
        parts: Cut | None = None
        own: Cut = ()
        found = OWN.intersection(first)
        if found == {_ID}:
            parts = cut(head, _ID_LINE, _ID_OCTETS)
            own = _ONLY_ID if parts is not None else ()
        elif found:
            parts = cut_all(head, _own_fields)
            own = parts[1::2]
            table = _traced
        if found == set(own):  # else one of them is spelt in another way
            known = KnownRequest(method, authority, path, first.copy(), mode, length, keep, len(lines), own, parts)
            table.store(head, known, parts)
    event = RequestHeaders(stream, method, scheme, authority, path, headers, end_stream, protocol, version)
    return event, mode, length, keep


def _special_target(
    method: bytes, target: bytes, host: bytes | None, authority: bytes, allow_absolute_url: bool
) -> tuple[bytes, bytes, bytes]:
    """Scheme, authority and path where the target does not begin with a slash."""
    if target == b"*":
        if method != b"OPTIONS":
            raise RemoteProtocolError(fields.INVALID_URL, 400, "`*` is for OPTIONS only")
        return b"", authority, target
    if not allow_absolute_url:
        fields.split_absolute(target, None)
        return b"", authority, target
    return fields.split_absolute(target, host)
