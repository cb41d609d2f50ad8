"""What a head of ours says: start line, the fields of the event, and those that only the codec may write.

All functions are pure, and raise before anything is written. Rules: RFC 9112 section 6, RFC 9110 sections 7.6, 8.6 and 9.3.6.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Final

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import InformationalHeaders, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1.fields import CHUNKS, LENGTH, NO_BODY, RAW
from mesh_codecs.http1.grammar import OWN
from mesh_codecs.http1.serialise import render_fields, status_line
from mesh_codecs.http1.settings import MAX_CONTENT_LENGTH_DIGITS

# Without a body these say nothing about its length; the others say `content-length: 0` (RFC 9110, 8.6).
_BODILESS_METHODS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"))
# Written from other parts of an event, or not at all; `host` would be a second one.
_NOT_SENT: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings", b"host")
)
# Octets that a request line of ours may hold between its spaces.
_VISIBLE: Final = bytes((*range(0x21, 0x7F), *range(0x80, 0x100)))

KNOWN_HEADS: Final = 256
"""request heads kept for those that are like them, and as many that are traced"""
_ID: Final = b"x-request-id"
_TRACES: Final = OWN - {_ID}
_known_heads: Final[dict[tuple[object, bool], tuple[bytes, bytes, bytes, int, int]]] = {}
"""likeness of the event and whether it is all -> the head up to the value of its request id, what follows (empty if it has no
id), method, how the body ends and its length"""
_traced_heads: Final[dict[object, tuple[bytes, tuple[bytes, ...]]]] = {}
"""the same for heads that are all and have more fields of their own: the head with gaps, and the names that belong there"""


def request_head(event: RequestHeaders) -> tuple[bytes, bytes, int, int]:
    """The head, its method, how the body ends (RAW for an upgrade or CONNECT), and its length.

    Raises:
        LocalProtocolError: it cannot be written.
    """
    likeness = event.likeness
    if likeness is not None:
        known = _known_heads.get((likeness, event.end_stream))
        if known is not None:
            before, after, method, mode, length = known
            if not after:
                return before, method, mode, length
            request_id = event.headers.first[_ID]
            if not request_id.translate(None, _VISIBLE):
                return before + request_id + after, method, mode, length
    method = event.method
    target = event.path
    headers = event.headers
    protocol = event.protocol
    if not _NOT_SENT.isdisjoint(headers.first):
        headers = _without(headers, _NOT_SENT)
    mode = NO_BODY
    length = 0
    extra = b""
    if protocol or method == b"CONNECT":
        mode = RAW
        headers = _without(headers, (b"content-length",))
        if not protocol:
            target = event.authority
        else:
            extra = b"\r\nconnection: upgrade\r\nupgrade: " + protocol
            if method == b"CONNECT":  # extended CONNECT of HTTP/2 (RFC 8441, 5)
                method = b"GET"
                if protocol == b"websocket":
                    # Opened over HTTP/2 it has no key, and over HTTP/1.1 it must have one (RFC 6455, 4.1).
                    headers.setdefault(b"sec-websocket-key", base64.b64encode(os.urandom(16)))
    else:
        length = declared_length(headers)
        if not event.end_stream:
            if length >= 0:
                mode = LENGTH
            else:
                mode = CHUNKS
                extra = b"\r\ntransfer-encoding: chunked"
        elif length > 0:
            raise LocalProtocolError("http1.body_length", 500, "content-length of a request without a body")
        elif length < 0 and method not in _BODILESS_METHODS:
            extra = b"\r\ncontent-length: 0"
    start = b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, event.authority)
    # The parts may hold neither space nor control: what the format put in must be all there is.
    if start.translate(None, _VISIBLE) != b"  \r\n " or protocol.translate(None, _VISIBLE) or not method or not target:
        raise LocalProtocolError("http1.invalid_characters", 500, "malformed method, target, authority or protocol")
    head = _head(start, headers, extra)
    if likeness is not None:
        _remember(event, head, method, mode, length)
    return head, method, mode, length


def known_head(event: RequestHeaders) -> bytes | None:
    """The head of a request without a body that is like one before it; None: ask `request_head`."""
    known = _known_heads.get((event.likeness, True))
    if known is None:
        return _traced_head(event)
    if known[3] != NO_BODY:
        return None
    after = known[1]
    if not after:
        return known[0]
    request_id = event.headers.first[_ID]
    return known[0] + request_id + after if not request_id.translate(None, _VISIBLE) else None


def _traced_head(event: RequestHeaders) -> bytes | None:
    found = _traced_heads.get(event.likeness)
    if found is None:
        return None
    gaps, names = found
    first = event.headers.first
    values = tuple([first[name] for name in names])
    return gaps % values if not b"".join(values).translate(None, _VISIBLE) else None


def _remember_traced(event: RequestHeaders, head: bytes) -> None:
    first = event.headers.first
    gaps = head.replace(b"%", b"%%")
    names = tuple([name for name in first if name in OWN])
    for name in names:
        start = b"\r\n" + name + b": "
        line = start + first[name].replace(b"%", b"%%") + b"\r\n"
        if gaps.count(start) != 1 or line not in gaps:
            return
        gaps = gaps.replace(line, start + b"%b\r\n")
    if len(_traced_heads) >= KNOWN_HEADS:
        _traced_heads.clear()
    _traced_heads[event.likeness] = gaps, names


def _remember(event: RequestHeaders, head: bytes, method: bytes, mode: int, length: int) -> None:
    """Keep a head for those that are like it but for the values that are their own."""
    after = b""
    request_id = event.headers.first.get(_ID)
    if not _TRACES.isdisjoint(event.headers.first):
        if mode == NO_BODY and event.end_stream:
            _remember_traced(event, head)
        return
    if request_id is not None:
        line = b"\r\n" + _ID + b": " + request_id + b"\r\n"
        if head.count(line) != 1:
            return
        place = head.find(line) + len(line) - 2
        head, after = head[: place - len(request_id)], head[place:]
    if len(_known_heads) >= KNOWN_HEADS:
        _known_heads.clear()
    _known_heads[event.likeness, event.end_stream] = head, after, method, mode, length


def response_head(
    event: ResponseHeaders, method: bytes, minor: int, keep: bool, request_open: bool
) -> tuple[bytes, int, int, bool]:
    """The head, how the body ends, its length, and whether the connection persists.

    Args:
        method: of the request
        minor: version of the request
        keep: the connection would persist
        request_open: the request has not ended yet

    Raises:
        LocalProtocolError: it cannot be written.
    """
    status = event.status
    headers = event.headers
    if status < 200:
        raise LocalProtocolError("http1.invalid_status", 500, f"{status} ends no request here")
    if not _NOT_SENT.isdisjoint(headers.first):
        # Codecs take these away on receipt. A filter or a local reply may have put `connection: close` back: so it asks for it.
        if b"close" in (headers.get_joined(b"connection") or b"").lower():
            keep = False
        headers = _without(headers, _NOT_SENT)
    mode = NO_BODY
    length = 0
    extra = b""
    if method == b"HEAD" or status == 204 or status == 304:
        if status == 204:
            headers = _without(headers, (b"content-length",))
    else:
        length = declared_length(headers)
        if event.end_stream:
            if length < 0:
                extra = b"\r\ncontent-length: 0"
            elif length:
                raise LocalProtocolError("http1.body_length", 500, "content-length of a response without a body")
        elif length >= 0:
            mode = LENGTH
        elif minor:
            mode = CHUNKS
            extra = b"\r\ntransfer-encoding: chunked"
        else:
            mode = RAW
            keep = False
    if not keep or (event.end_stream and request_open):
        keep = False
        extra += b"\r\nconnection: close"
    elif not minor:
        extra += b"\r\nconnection: keep-alive"
    return _head(status_line(status, minor), headers, extra), mode, length, keep


def plain_response_head(event: ResponseHeaders) -> bytes:
    """The head of a response with a body and its length to an HTTP/1.1 request other than HEAD and CONNECT, on a connection that
    persists.

    Raises:
        LocalProtocolError: it cannot be written, or it is no such response.
    """
    head, mode, _, keep = response_head(event, b"GET", 1, True, False)
    if mode != LENGTH or not keep:
        raise LocalProtocolError("http1.wrong_state", 500, "not a plain response")
    return head


def tunnel_head(event: ResponseHeaders, protocol: bytes, minor: int) -> bytes:
    """The head that makes a tunnel of the connection: 101 to an upgrade, 2xx to CONNECT, for which `protocol` is empty.

    Raises:
        LocalProtocolError: it cannot be written.
    """
    extra = b"\r\nconnection: upgrade\r\nupgrade: " + protocol if protocol else b""
    headers = _without(event.headers, (*_NOT_SENT, b"content-length"))
    return _head(status_line(event.status, minor), headers, extra)


def informational_head(event: InformationalHeaders) -> bytes:
    """A 1xx other than 101.

    Raises:
        LocalProtocolError: it is another status, or cannot be written.
    """
    if not 100 <= event.status < 200 or event.status == 101:
        raise LocalProtocolError("http1.invalid_status", 500, f"{event.status} is not informational")
    return _head(status_line(event.status, 1), _without(event.headers, _NOT_SENT), b"")


def farewell(status: int, text: bytes, fields: bytes, with_body: bool) -> bytes:
    """The last answer on a connection, laid out as Envoy does it; `fields` are further header lines, each with its CR LF."""
    return b"%b\r\ncontent-length: %d\r\ncontent-type: text/plain\r\n%bconnection: close\r\n\r\n%b" % (
        status_line(status, 1),
        len(text),
        fields,
        text if with_body else b"",
    )


def declared_length(headers: Headers) -> int:
    """What content-length says of a message of ours, or -1.

    Raises:
        LocalProtocolError: it says nothing clear.
    """
    value = headers.first.get(b"content-length")
    if value is None:
        return -1
    if not value.isdigit() or len(value) > MAX_CONTENT_LENGTH_DIGITS:
        raise LocalProtocolError("http1.body_length", 500, "malformed content-length")
    if headers.more is not None and len(headers.get_all(b"content-length")) != 1:
        raise LocalProtocolError("http1.body_length", 500, "more than one content-length")
    return int(value)


def _head(start: bytes, headers: Headers, extra: bytes) -> bytes:
    block = render_fields(headers)
    return b"%b\r\n%b%b\r\n\r\n" % (start, block, extra) if block else b"%b%b\r\n\r\n" % (start, extra)


def _without(headers: Headers, names: Iterable[bytes]) -> Headers:
    """A copy: the event may be written elsewhere as well."""
    rest = headers.copy()
    for name in names:
        rest.remove(name)
    return rest
