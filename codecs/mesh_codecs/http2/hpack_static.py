"""The static table of HPACK (RFC 7541, appendix A) and what both directions derive from it."""

from __future__ import annotations

from typing import Final

_TEXT: Final = """
:authority
:method=GET
:method=POST
:path=/
:path=/index.html
:scheme=http
:scheme=https
:status=200
:status=204
:status=206
:status=304
:status=400
:status=404
:status=500
accept-charset
accept-encoding=gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""

STATIC_COUNT: Final = 61


def _read() -> list[tuple[bytes, bytes]]:
    pairs = []
    for line in _TEXT.strip().split("\n"):
        name, _, value = line.partition("=")
        pairs.append((name.encode(), value.encode()))
    return pairs


STATIC: Final[list[tuple[bytes, bytes]]] = [(b"", b""), *_read()]
"""index -> (name, value); index 0 is not used"""
STATIC_FIELD: Final[dict[tuple[bytes, bytes], bytes]] = {
    pair: bytes((0x80 | index,)) for index, pair in enumerate(STATIC) if index and pair[1]
}
"""(name, value) -> its whole encoding as an indexed field"""
STATIC_NAME: Final[dict[bytes, int]] = {pair[0]: index for index, pair in reversed(list(enumerate(STATIC))) if index}
"""name -> its lowest index"""
