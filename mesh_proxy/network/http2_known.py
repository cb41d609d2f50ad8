"""Requests over HTTP/2 whose heads came before: by their plans, if they have some that say all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2.taker import Opener
from mesh_proxy.stream.http_stream import HttpStream

if TYPE_CHECKING:
    from mesh_codecs.http2.heads import Head
    from mesh_codecs.http2.state import Stream
    from mesh_proxy.network.http2_connection import Http2Connection
    from mesh_proxy.stream.request_plan import RequestPlan


class KnownRequests(Opener):
    """Of one connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Http2Connection) -> None:
        self._connection = connection

    def open_known(self, stream: Stream, head: Head, end_stream: bool) -> bool:
        connection = self._connection
        manager = connection.manager
        notes = head.note
        if notes is None or not manager.plain or manager.watches_underscores:
            return False
        info = connection.info
        plan: RequestPlan | Literal[False] | None = notes.get(info.place)
        if not plan or plan.table is not manager.route_table:
            return False
        way = plan if manager.filter_chains is None else plan.beyond
        if way is None or not way.http2_pool or connection.being_moved or connection.write_blocked or info.source is not None:
            return False
        choice = way.choice
        context = connection.context
        cluster = None if choice is None or context.runtime else context.clusters.get(choice.name)
        if choice is None or cluster is None:
            return False
        now = connection.last_activity
        connection.count_request()
        request = way.request
        if request is None:
            request = way.request = RequestHeaders(
                0, way.method, way.scheme, way.authority, way.path, Headers((), way.first.copy()), True, b"", b"HTTP/2"
            )
        one = connection.streams[stream.id] = HttpStream(connection, manager, request, now)
        one.stream_id = stream.id
        one.request_done = end_stream
        one.front = connection
        one.wire = stream
        one.way = way
        one.head = head
        one.own_id = context.request_id() if way.makes_id else way.own_id(head)
        if manager.filter_chains is not None or way.traced:
            one.have_request()
        one.start_over_http2(plan, choice, cluster, now)
        return True
