"""A request to the admin interface and its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TEXT: Final = "text/plain; charset=UTF-8"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=UTF-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """One request, read whole."""

    method: str
    path: str
    """without the query"""
    query: Mapping[str, str] = field(default_factory=dict)
    """decoded; the last value of a name; a form's fields too"""
    host: str = ""
    origin: str | None = None
    peer: str = ""
    """IP address of the caller; empty on a unix socket"""
    body: bytes = b""

    def flag(self, name: str) -> bool:
        """Present, with any value (`?usedonly`)."""
        return name in self.query


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminResponse:
    """Its answer."""

    status: int = 200
    body: bytes | Iterator[bytes] = b""
    """an iterator is sent in pieces while it is made; the loop turns between two of them"""
    content_type: str = TEXT
    then: Callable[[], None] | None = None
    """to do when the answer is written"""


def text(body: str, status: int = 200, *, content_type: str = TEXT, then: Callable[[], None] | None = None) -> AdminResponse:
    """Plain text."""
    return AdminResponse(status=status, body=body.encode(), content_type=content_type, then=then)


def to_json(value: Any) -> AdminResponse:
    """JSON, indented by one blank as Envoy does."""
    return AdminResponse(body=json.dumps(value, indent=1, ensure_ascii=False).encode(), content_type=JSON)


OK: Final = text("OK\n")
