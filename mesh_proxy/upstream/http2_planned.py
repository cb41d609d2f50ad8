"""One request on an HTTP/2 connection that is forwarded frame by frame (`mesh_proxy.stream.planned_http2`).

It stands between the codecs of both sides: each hands it what is as always, and it accounts for the endpoint's side. All else it
does as its base does, to which each step can be left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_proxy.upstream.http2_stream import Http2UpstreamStream

if TYPE_CHECKING:
    from mesh_codecs.http2 import Http2Codec
    from mesh_codecs.http2.heads import Head
    from mesh_codecs.http2.state import Stream
    from mesh_proxy.stream.planned_http2 import PlannedHttp2
    from mesh_proxy.upstream.http2_connection import Http2UpstreamConnection


class PlannedRequest(Http2UpstreamStream):
    """`Taker` of a stream of the caller's codec and of one of the endpoint's."""

    __slots__ = ("codec", "planned", "wire")

    def __init__(
        self,
        connection: Http2UpstreamConnection,
        codec: Http2Codec,
        wire: Stream,
        planned: PlannedHttp2,
    ) -> None:
        Http2UpstreamStream.__init__(self, connection, wire.id, planned)
        self.codec = codec
        """of the connection on which it began"""
        self.wire = wire
        """that codec's view of the stream; closed if another connection took the request over"""
        self.planned = planned
        self._request = planned.request
        self.request_ended = planned.request_done

    def left_behind(self) -> None:
        self.planned.have_request()
        self._request = self.planned.request
        Http2UpstreamStream.left_behind(self)

    def take_request_data(self, data: bytes, end_stream: bool) -> bool:
        planned = self.planned
        connection = self.connection
        if (
            self.callbacks is None
            or self.request_ended
            or self._queue is not None
            or connection.write_blocked
            or not planned.takes_request_data()
            or not self.codec.send_piece(self.wire, data, end_stream)
        ):
            return False
        size = len(data)
        if not self.response_begun:
            self._remember(data, size)
        self.request_ended = end_stream
        if not connection.dirty:
            connection.touch()
        planned.took_request_data(size, end_stream)
        return True

    def take_head(self, head: Head) -> bool:
        if self.callbacks is None or self._pauses or not self.planned.take_head(head, self.connection.last_read):
            return False
        self.response_begun = True
        self._request = None
        self._sent = None
        return True

    def take_data(self, data: bytes, end_stream: bool) -> bool:
        if self.callbacks is None or self._pauses or self.withheld or not self.request_ended:
            return False
        if not self.planned.take_data(data, end_stream, self.connection.last_read):
            return False
        if end_stream:
            self.connection.end_planned(self)
        return True

    def take_trailers(self, head: Head) -> bool:
        if self.callbacks is None or self._pauses or self.withheld or not self.request_ended:
            return False
        if not self.planned.take_trailers(head, self.connection.last_read):
            return False
        self.connection.end_planned(self)
        return True
