"""What the connection manager makes of a response head that the HTTP/2 codec knows, as fields: `response_plan.py` over HTTP/2.

The bytes depend on each caller's dynamic table, so its codec keeps them (`FrameSender.known_block`), under a key for each
plan and number of milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from mesh_codecs.events import ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.stream.response_plan import PLACES, TIME

if TYPE_CHECKING:
    from mesh_codecs.http2.heads import Head
    from mesh_proxy.network.http_manager import HttpManager

MOST_MS: Final = 128
"""answers that take longer are not worth the places of their heads"""


class Http2ResponsePlan:
    """The fields of one head."""

    __slots__ = ("date", "event", "first", "grpc_ended", "keys", "status", "timed")

    def __init__(self, status: int, first: dict[bytes, bytes], date: bytes | None, timed: bool, grpc_ended: bool) -> None:
        self.status = status
        self.first = first
        """as sent; `x-envoy-upstream-service-time` holds its place"""
        self.timed = timed
        """there is such a time"""
        self.date = date
        """the `date` of ours that is in it: the plan holds for that second; None: it has the endpoint's"""
        self.grpc_ended = grpc_ended
        """it says how a gRPC call ended"""
        self.keys: list[object] = [object() for _ in range(MOST_MS if timed else 1)]
        """by milliseconds: what stands for the head with that time"""
        self.event = ResponseHeaders(0, status, Headers((), first), False, b"HTTP/2")
        """stands for each response: nobody looks at what is in it"""

    def fields(self, took_ms: int) -> dict[bytes, bytes]:
        """Those of one response."""
        if not self.timed:
            return self.first
        first = self.first.copy()
        first[TIME] = b"%d" % took_ms
        return first


def http2_plan_of(head: Head, manager: HttpManager) -> Http2ResponsePlan | None:
    """The plan for a head; None when it comes for the first time, or has none, and `encode_headers` is to see it."""
    notes = head.note
    if notes is None:
        head.note = {}
        return None
    plan: Http2ResponsePlan | Literal[False] | None = notes.get(manager)
    if plan is None or (plan and plan.date is not None and plan.date is not manager.context.date()):
        if len(notes) >= PLACES:
            notes.clear()
        plan = notes[manager] = _make(head, manager) or False
    return plan or None


def _make(head: Head, manager: HttpManager) -> Http2ResponsePlan | None:
    """What `UpstreamStream.on_upstream_headers` and `DownstreamStream.encode_headers` do to the head, in their order."""
    if head.more is not None or b"x-envoy-immediate-health-check-fail" in head.first:
        return None
    first = head.first.copy()
    if not manager.suppress_envoy_headers:
        first[TIME] = b""
    if manager.overwrite_server or not (manager.pass_server or b"server" in first):
        first[b"server"] = manager.server_name
    date: bytes | None = None
    if b"date" not in first:
        date = first[b"date"] = manager.context.date()
    return Http2ResponsePlan(head.status, first, date, not manager.suppress_envoy_headers, b"grpc-status" in first)
