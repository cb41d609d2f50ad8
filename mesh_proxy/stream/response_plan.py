"""What the connection manager makes of a response head that the codec knows, ready to be written: the counterpart of
`request_plan.py`.

Services answer with the same few heads, and what comes of one differs by nothing but `x-envoy-upstream-service-time`: ours, or
that of another sidecar where the router adds none. So the bytes on its two sides are kept, with the known head, under the
connection manager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http1.heads import plain_response_head

if TYPE_CHECKING:
    from mesh_codecs.http1.upstream import KnownResponse
    from mesh_proxy.network.http_manager import HttpManager

PLACES: Final = 64
"""kept for one head"""
TIME: Final = b"x-envoy-upstream-service-time"
_MARK: Final = b"<milliseconds>"
"""holds the place of the time"""


class ResponsePlan:
    """The bytes of one head."""

    __slots__ = ("after", "before", "date", "passes")

    def __init__(self, before: bytes, after: bytes, passes: bytes, date: bytes | None) -> None:
        self.before = before
        """up to the value of the time; the whole head if it has none"""
        self.after = after
        """from there to the end if the time is ours, else empty"""
        self.passes = passes
        """the same if it is the one that came"""
        self.date = date
        """the `date` of ours that is in it: the plan holds for that second; None: it has the endpoint's"""


def plan_of(known: KnownResponse, manager: HttpManager) -> ResponsePlan | None:
    """The plan for a known head; None when it has none and `encode_headers` is to see it."""
    notes = known.note
    if notes is None:
        notes = known.note = {}
    plan: ResponsePlan | Literal[False] | None = notes.get(manager)
    if plan is None or (plan and plan.date is not None and plan.date is not manager.context.date()):
        if len(notes) >= PLACES:
            notes.clear()
        plan = notes[manager] = _make(known, manager) or False
    return plan or None


def sent_fields(known: KnownResponse, manager: HttpManager, took: bytes) -> dict[bytes, bytes]:
    """What `UpstreamStream.on_upstream_headers` and `DownstreamStream.encode_headers` make of the head, in their order."""
    first = known.first.copy()
    if known.time_at or not manager.suppress_envoy_headers:
        first[TIME] = took
    if manager.overwrite_server or not (manager.pass_server or b"server" in first):
        first[b"server"] = manager.server_name
    if b"date" not in first:
        first[b"date"] = manager.context.date()
    return first


def _make(known: KnownResponse, manager: HttpManager) -> ResponsePlan | None:
    first = sent_fields(known, manager, _MARK)
    date = None if b"date" in known.first else first[b"date"]
    try:
        head = plain_response_head(ResponseHeaders(0, known.status, Headers((), first), False))
    except LocalProtocolError:
        return None  # it is said where the response is sent
    before, mark, after = head.partition(_MARK)
    if mark and (_MARK in after or not before.endswith(b"\r\n" + TIME + b": ")):
        return None
    if manager.suppress_envoy_headers:
        return ResponsePlan(before, b"", after, date)
    return ResponsePlan(before, after, b"", date)
