"""The request's body on its way to the upstream: sent on, kept while there is no connection yet, or kept for a retry."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import Data, Trailers
from mesh_proxy.stream.downstream_stream import DownstreamStream

if TYPE_CHECKING:
    from mesh_proxy.stream.retry import RetryState
    from mesh_proxy.stream.shadow import Shadow
    from mesh_proxy.upstream.handle import UpstreamHandle

_log = logging.getLogger("router")


class BodyStream(DownstreamStream):
    """Abstract: `TimedStream` adds the time-outs."""

    __slots__ = (
        "_body",
        "_body_kept",
        "_shadows",
        "handle",
        "retry",
    )

    handle: UpstreamHandle | None
    """the upstream connection of this attempt"""
    retry: RetryState | None
    _body: list[Data | Trailers] | None
    """request events that no upstream has yet, or that a retry would need again"""
    _body_size: int = 0
    _body_kept: bool
    """`_body` is kept for a retry"""
    _shadows: list[Shadow] | None
    """copies of the request on their way to other clusters"""

    def forward_data(self, event: Data) -> None:
        """After the filters: a piece of the request body, to the upstream and to the copies."""
        if self._shadows:
            for shadow in self._shadows:
                shadow.data(event)
        handle = self.handle
        if handle is None or self._body_kept:
            self._keep(event, len(event.data))
        if handle is not None:
            try:
                handle.send_data(event.data, event.end_stream)
            except LocalProtocolError as error:
                self._request_unsendable(error)
                return
            if event.end_stream:
                self._request_sent()
        elif event.end_stream:
            self._await_response()

    def forward_trailers(self, event: Trailers) -> None:
        """After the filters: the request's trailers, to the upstream and to the copies."""
        if self._shadows:
            for shadow in self._shadows:
                shadow.data(event)
        handle = self.handle
        if handle is None or self._body_kept:
            self._keep(event, 0)
        if handle is not None:
            try:
                handle.send_trailers(event.headers)
            except LocalProtocolError as error:
                self._request_unsendable(error)
                return
            self._request_sent()
        else:
            self._await_response()

    def _request_unsendable(self, error: LocalProtocolError) -> None:
        """What we made of the request breaks the rules of the wire: a rewrite or header of the configuration, most likely."""
        _log.warning("request to %s cannot be sent: %s", self.cluster_name, error)
        self.send_local_reply(error.status, details=error.code)

    def _keep(self, event: Data | Trailers, size: int) -> None:
        """Hold a request event until there is a connection, or for a retry."""
        if self.done or self.cluster is None:
            return
        if self._body is None:
            self._body = []
        self._body.append(event)
        self._body_size += size
        limit = self.downstream.owner.buffer_limit
        if self._body_size > limit:
            if self.handle is not None:
                # Too much to keep for a retry: from here on there is none.
                self.cluster.stats.retry_or_shadow_abandoned += 1
                self._forget_body()
            elif not self._read_blocked:
                self._read_blocked += 1
                self.downstream.pause_reading(self)

    def _forget_body(self) -> None:
        self._body = None
        self._body_size = 0
        self._body_kept = False
        if self.retry is not None:
            self.retry.disabled = True

    def _cancel_copies(self) -> None:
        """A request that was not complete has no complete copies."""
        for shadow in self._shadows or ():
            shadow.cancel()

    def on_upstream_writable(self, writable: bool) -> None:
        """The upstream's send buffer filled up or drained."""
        if not writable:
            self._read_blocked += 1
            self.downstream.pause_reading(self)
        elif self._read_blocked:
            self._unblock_reading()

    def on_downstream_writable(self, writable: bool) -> None:
        """The caller's send buffer filled up or drained."""
        handle = self.handle
        if handle is not None:
            if writable:
                handle.resume_reading()
            else:
                handle.pause_reading()

    def _request_sent(self) -> None:
        """The whole request is with the upstream: the time-outs start."""
        raise NotImplementedError

    def _await_response(self) -> None:
        """The whole request is here, though not sent yet: the route's time-out starts."""
        raise NotImplementedError
