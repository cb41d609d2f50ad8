"""Fields that the codec itself obeys: the hop-by-hop ones, the length of the body, and who is asked for what.

Rules: RFC 9110 section 7.6.1 (Connection), RFC 9112 sections 3.2 (request target), 6 (message body), RFC 9110 section 7.2 (Host).
"""

from __future__ import annotations

import re
from typing import Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.headers import Headers
from mesh_codecs.http1.grammar import CODEC_ERROR, Pair
from mesh_codecs.http1.settings import MAX_CONTENT_LENGTH_DIGITS, UnderscoreAction

# How the end of a body is known. Plain ints: they are compared for every read.
NO_BODY: Final = 0
LENGTH: Final = 1
"""Content-Length"""
CHUNKS: Final = 2
"""chunked transfer coding"""
RAW: Final = 3
"""until the connection ends: a response without a length, or a tunnel"""

# What a connection field asks of this hop; bits of the result of `take_hop_by_hop`.
CLOSE: Final = 1
KEEP_ALIVE: Final = 2
UPGRADE: Final = 4
CHUNKED: Final = 8

INVALID_URL: Final = "http1.invalid_url"
INVALID_SCHEME: Final = "http1.invalid_scheme"
INVALID_AUTHORITY: Final = "http.invalid_authority"
INVALID_TRANSFER_ENCODING: Final = "http1.invalid_transfer_encoding"
CONNECTION_HEADER_REJECTED: Final = "http1.connection_header_rejected"
BOTH_LENGTHS: Final = "http1.content_length_and_chunked_not_allowed"

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"te", b"http2-settings")
)

# Nominating these is an attack, not a wish: a forwarding field that disappears at this hop changes who the next one believes to
# have been called by, and without Host the message changes its meaning. Envoy answers 400 to all but the last two; those tell who
# the caller is.
_NEVER_NOMINATED: Final = frozenset(
    (b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-client-cert", b"forwarded")
)
# Nominating these is ignored. RFC 9110 forbids it for fields meant for all recipients; removing them would change the framing,
# the route, or the credentials. A client with an over-long Connection field is still served.
_KEPT: Final = frozenset(
    (b"content-length", b"authorization", b"proxy-authorization", b"cookie", b"set-cookie", b"cache-control", b"te")
)

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PROTOCOL: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?")
_CODING_LIST: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*")
# RFC 3986 host and port, without userinfo: that part is not for Host (RFC 9110, 4.2.4).
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+(?:%25[0-9A-Za-z\-._~]+)?\]|[0-9A-Za-z\-._~%!$&'()*+,;=]*)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+\-.]*)://([^/?#]*)([^#]*)")

_TABLE_ENTRIES: Final = 512
_TABLE_BYTES: Final = 128
known_authorities: set[bytes] = {b""}
"""looked into before `check_authority` is called"""
_connection_table: dict[bytes, tuple[int, tuple[bytes, ...]]] = {b"close": (CLOSE, ()), b"keep-alive": (KEEP_ALIVE, ())}


def take_hop_by_hop(headers: Headers) -> int:
    """Remove what concerns this connection only, and say what it asked: CLOSE, KEEP_ALIVE, UPGRADE and CHUNKED bits.

    With UPGRADE, `upgrade` is left for the caller to take. `te` is left as `trailers`, if it said so.

    Raises:
        RemoteProtocolError: a transfer coding that is wrong or unknown, or a nomination that no honest peer makes.
    """
    first = headers.first
    flags = 0
    if headers.more is None:
        # The common case: one plain `connection: keep-alive` or `close`.
        value = first.get(b"connection")
        known = None if value is None else _connection_table.get(value)
        if known is not None and not known[1]:
            del first[b"connection"]
            flags = known[0]
            if HOP_BY_HOP.isdisjoint(first):
                return flags
    # Connection first, then the fields by name: a nomination can only remove, never keep.
    value = headers.get_joined(b"connection")
    if value is not None:
        headers.remove(b"connection")
        options, nominated = _connection_table.get(value) or _parse_connection(value)
        flags |= options
        for name in nominated:
            headers.remove(name)
    if b"transfer-encoding" in first:
        _check_transfer_encoding(headers.get_all(b"transfer-encoding"))
        headers.remove(b"transfer-encoding")
        flags |= CHUNKED
    if b"proxy-connection" in first:
        # Never standardised, yet sent; Envoy obeys it as if it were Connection, as far as persistence goes.
        value = b",".join(headers.get_all(b"proxy-connection")).lower()
        headers.remove(b"proxy-connection")
        if b"close" in value:
            flags |= CLOSE
    headers.remove(b"keep-alive")
    headers.remove(b"http2-settings")
    if not flags & UPGRADE:
        headers.remove(b"upgrade")
    if b"te" in first:
        asked = b",".join(headers.get_all(b"te")).lower()
        headers.remove(b"te")
        if b"trailers" in [coding.partition(b";")[0].strip(b" \t") for coding in asked.split(b",")]:
            first[b"te"] = b"trailers"
    return flags


def take_upgrade(headers: Headers) -> bytes:
    """Remove `upgrade` and name the protocol asked for, in lower case; empty when it is none that is passed on.

    An upgrade to HTTP/2 concerns this hop, not the application (RFC 9113, 3.1 has dropped it): it is ignored, which every
    client must bear with. Of several protocols the first counts, so that both sides of the proxy mean the same one."""
    value = headers.get_joined(b"upgrade") or b""
    headers.remove(b"upgrade")
    for offer in value.lower().split(b","):
        protocol = offer.strip(b" \t")
        if _PROTOCOL.fullmatch(protocol) is not None and not protocol.startswith((b"h2", b"http/", b"tls/")):
            return protocol
    return b""


def _parse_connection(value: bytes) -> tuple[int, tuple[bytes, ...]]:
    flags = 0
    nominated: list[bytes] = []
    for option in value.lower().split(b","):
        name = option.strip(b" \t")
        if name == b"close":
            flags |= CLOSE
        elif name == b"keep-alive":
            flags |= KEEP_ALIVE
        elif name == b"upgrade":
            flags |= UPGRADE
        elif name in _NEVER_NOMINATED or (name and _TOKEN.fullmatch(name) is None):
            raise RemoteProtocolError(CONNECTION_HEADER_REJECTED, 400, "connection option that may not be one")
        elif name and name not in _KEPT and name not in HOP_BY_HOP:
            nominated.append(name)
    parsed = (flags, tuple(nominated))
    if len(value) <= _TABLE_BYTES:
        if len(_connection_table) >= _TABLE_ENTRIES:
            _connection_table.clear()
        _connection_table[value] = parsed
    return parsed


def _check_transfer_encoding(values: list[bytes]) -> None:
    """Accept `chunked`, once, and nothing else (RFC 9112, 6.1).

    501 says "a coding we do not know"; what is not even a list of codings, or says chunked twice, is a 400.
    """
    if len(values) == 1:
        value = values[0].lower()
        if value == b"chunked":
            return
        if _CODING_LIST.fullmatch(value) is not None and value.replace(b" ", b"").split(b",").count(b"chunked") < 2:
            raise RemoteProtocolError(INVALID_TRANSFER_ENCODING, 501, "unknown transfer coding")
    raise RemoteProtocolError(INVALID_TRANSFER_ENCODING, 400, "malformed Transfer-Encoding")


def parse_content_length(value: bytes) -> int:
    """One to eighteen ASCII digits, nothing else: `int()` alone would take `+1`, `1_0` and Arabic digits.

    Raises:
        RemoteProtocolError: it is anything else.
    """
    # bytes.isdigit() is true for ASCII digits only, and false for the empty string.
    if value.isdigit() and len(value) <= MAX_CONTENT_LENGTH_DIGITS:
        return int(value)
    raise RemoteProtocolError(CODEC_ERROR, 400, "malformed Content-Length")


def check_repeats(headers: Headers) -> None:
    """Refuse a second Host or Content-Length, also when it says the same.

    Raises:
        RemoteProtocolError: there is one.
    """
    assert headers.more is not None
    for name, _ in headers.more:
        if name == b"content-length" or name == b"host":
            raise RemoteProtocolError(CODEC_ERROR, 400, f"more than one {name.decode('ascii')}")


def check_authority(authority: bytes) -> None:
    """Refuse what cannot be a host with an optional port.

    Raises:
        RemoteProtocolError: it cannot.
    """
    if _AUTHORITY.fullmatch(authority) is None:
        raise RemoteProtocolError(INVALID_AUTHORITY, 400, "malformed authority")
    if len(authority) <= _TABLE_BYTES:
        if len(known_authorities) >= _TABLE_ENTRIES:
            known_authorities.clear()
        known_authorities.add(authority)


def check_connect(target: bytes, headers: Headers, mode: int) -> None:
    """CONNECT names a host and a port, nothing else (RFC 9112, 3.2.3).

    What follows its head is the tunnel's: a length or a coding would have two hops disagree on that. The codes are Envoy's.

    Raises:
        RemoteProtocolError: another target, or the head declares a body.
    """
    host, _, port = target.rpartition(b":")
    if not host or not port.isdigit() or len(port) > 5 or _AUTHORITY.fullmatch(target) is None:
        raise RemoteProtocolError(INVALID_URL, 400, "CONNECT target is not host:port")
    if mode == CHUNKS:
        raise RemoteProtocolError(INVALID_TRANSFER_ENCODING, 501, "CONNECT with Transfer-Encoding")
    if mode == LENGTH:
        raise RemoteProtocolError("http1.body_disallowed", 400, "CONNECT with a body")
    headers.remove(b"content-length")


def split_absolute(target: bytes, host: bytes | None) -> tuple[bytes, bytes, bytes]:
    """Scheme, authority and path of an absolute-form target (RFC 9112, 3.2.2).

    RFC 9112 lets the target win over a Host that differs. Whoever sends two different names hopes that two hops disagree on
    which one counts, so that is refused.

    Raises:
        RemoteProtocolError: it is malformed, of a scheme that is not ours, or disagrees with Host.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise RemoteProtocolError(CODEC_ERROR, 400, "malformed request target")
    scheme, authority, path = match.groups()
    scheme = scheme.lower()
    if scheme not in (b"http", b"https"):
        raise RemoteProtocolError(INVALID_SCHEME, 400, "scheme is neither http nor https")
    if not authority or authority[0] == 58 or _AUTHORITY.fullmatch(authority) is None:
        raise RemoteProtocolError(INVALID_URL, 400, "malformed authority in the request target")
    if host is not None and _plain_authority(host, scheme) != _plain_authority(authority, scheme):
        raise RemoteProtocolError("http1.authority_mismatch", 400, "Host differs from the request target")
    if not path:
        path = b"/"
    elif path[0] == 63:  # `?`
        path = b"/" + path
    return scheme, authority, path


def _plain_authority(authority: bytes, scheme: bytes) -> bytes:
    """For comparing: lower-case, without the default port."""
    authority = authority.lower()
    return authority.removesuffix(b":80" if scheme == b"http" else b":443")


def apply_underscore_action(pairs: list[Pair], action: UnderscoreAction) -> list[Pair]:
    """Let through, refuse or drop fields whose name holds an underscore, which CGI and its heirs cannot tell from a hyphen.

    Raises:
        RemoteProtocolError: there is one, and they are refused.
    """
    if action is UnderscoreAction.ALLOW:
        return pairs
    kept = [pair for pair in pairs if b"_" not in pair[0]]
    if len(kept) != len(pairs) and action is UnderscoreAction.REJECT_REQUEST:
        raise RemoteProtocolError("http1.unexpected_underscore", 400, "underscore in a header name")
    return kept
