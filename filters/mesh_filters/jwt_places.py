"""Where tokens stand in a request: headers (attachments of a Dubbo call), query parameters, cookies; and taking them out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from mesh_codecs.events import RequestHeaders
from mesh_filters.values import cookie

_TOKEN: Final = re.compile(rb"[-_.0-9A-Za-z]")
HEADER: Final = "header"
PARAMETER: Final = "parameter"
COOKIE: Final = "cookie"


@dataclass(frozen=True, slots=True)
class Place:
    """One place."""

    kind: str
    name: bytes
    prefix: bytes = b""
    """what stands before the token in a header"""


DEFAULT: Final = (Place(HEADER, b"authorization", b"Bearer "), Place(PARAMETER, b"access_token"))
"""RFC 6750, 2.1 and 2.3; for providers that name no place"""


def find(request: RequestHeaders, places: tuple[Place, ...]) -> Iterator[tuple[Place, bytes]]:
    """Every place that has something, in the order of headers, parameters, cookies."""
    for kind in (HEADER, PARAMETER, COOKIE):
        for place in places:
            if place.kind == kind:
                found = _look(request, place)
                if found:
                    yield place, found


def _look(request: RequestHeaders, place: Place) -> bytes | None:
    if place.kind == COOKIE:
        return cookie(request.headers.get_all(b"cookie"), place.name)
    if place.kind == PARAMETER:
        for pair in request.path.partition(b"?")[2].split(b"&"):
            name, _, value = pair.partition(b"=")
            if name == place.name:
                return unquote_to_bytes(value)
        return None
    joined = request.headers.get_joined(place.name)
    if joined is None or not place.prefix:
        return joined
    at = joined.find(place.prefix)
    if at < 0:
        return None
    # What stands before the token, a quote perhaps, is not part of it; what stands behind it makes it a bad one.
    found = _TOKEN.search(joined, at + len(place.prefix))
    return joined[found.start() :] if found is not None else joined


def remove(request: RequestHeaders, place: Place) -> None:
    """Take the token out, so that it goes no further. Cookies stay as they are, as with Envoy."""
    if place.kind == HEADER:
        request.headers.remove(place.name)
    elif place.kind == PARAMETER:
        path, _, query = request.path.partition(b"?")
        kept = [pair for pair in query.split(b"&") if pair.partition(b"=")[0] != place.name]
        request.path = path + (b"?" + b"&".join(kept) if kept else b"")
