"""Copies of requests for other clusters (`request_mirror_policies`), whose answers nobody waits for.

A copy leaves after the original's head was made ready for its upstream: with `-shadow` behind its host name, and marked as
internal like every request that Envoy makes itself (`common/router/shadow_writer_impl.cc`). It is never tried again and never
holds the original back: a copy whose upstream takes too little is given up.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh_codecs.errors import LocalProtocolError
from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_proxy.stream.own_request import OwnRequest, pick

if TYPE_CHECKING:
    from mesh_proxy.config.model.route import MirrorPolicyConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.cluster import Cluster
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.handle import UpstreamHandle

RESPONSE_S = 60.0
"""How long a whole copy waits for its response where the route has no time-out: what nobody answers must not use up the circuit
breaker of a cluster that others call. Envoy waits for ever."""


class Shadow(OwnRequest):
    """One copy, an `UpstreamCallbacks`."""

    __slots__ = ("_body", "_context", "_limit", "_size", "done")

    def __init__(self, request: RequestHeaders, cluster: Cluster, limit: int) -> None:
        super().__init__(cluster, request)
        self.done = False
        self._context: WorkerContext
        self._body: list[Data | Trailers] = []
        """what came before there was a connection"""
        self._size = 0
        self._limit = limit

    def start(self, context: WorkerContext, endpoint: Endpoint, timeout_s: float | None) -> None:
        """Ask for a connection."""
        self._context = context
        self._acquire(context, endpoint, "shadow", timeout_s)

    # -- from the original

    def data(self, event: Data | Trailers) -> None:
        """More of the request."""
        if self.done:
            return
        handle = self._handle
        if handle is None:
            self._body.append(event)
            self._size += len(event.data) if isinstance(event, Data) else 0
            if self._size > self._limit:
                self.cluster.stats.retry_or_shadow_abandoned += 1
                self.cancel()
            return
        try:
            self._send(handle, event)
        except LocalProtocolError:
            self.cancel()

    def _send(self, handle: UpstreamHandle, event: Data | Trailers) -> None:
        if isinstance(event, Data):
            handle.send_data(event.data, event.end_stream)
            if event.end_stream:
                self._await_response()
        else:
            handle.send_trailers(event.headers)
            self._await_response()

    def _await_response(self) -> None:
        """The copy is whole."""
        if self._deadline is None and not self.done:
            self._set_deadline(self._context, "shadow", RESPONSE_S, monotonic())

    def cancel(self) -> None:
        """Nobody needs it any more."""
        if not self.done:
            self._give_up()

    def _settle(self) -> None:
        self.done = True
        self._body.clear()
        super()._settle()

    # -- from the pool and the upstream connection

    def on_pool_ready(self, handle: UpstreamHandle) -> None:
        """Send what there is."""
        self._pool = None
        self._handle = handle
        body, self._body = self._body, []
        try:
            self.request.end_stream = self.request.end_stream and not body
            handle.send_request(self.request)
            if self.request.end_stream:
                self._await_response()
            for event in body:
                self._send(handle, event)
        except LocalProtocolError:
            self.cancel()

    def on_upstream_headers(self, event: ResponseHeaders, now: float) -> None:
        """Counted and dropped."""
        self._count_response(event.status)
        if event.end_stream:
            self._complete(now)

    def on_upstream_data(self, event: Data, now: float) -> None:
        """Dropped."""
        if event.end_stream:
            self._complete(now)

    def on_upstream_trailers(self, headers: Headers, now: float) -> None:
        """Dropped."""
        self._complete(now)

    def _complete(self, now: float) -> None:
        self._settle()
        self._count_end(now)

    def on_upstream_writable(self, writable: bool) -> None:
        """A copy is not worth holding the original back."""
        if not writable and self._handle is not None and not self.request.end_stream:
            self.cluster.stats.retry_or_shadow_abandoned += 1
            self.cancel()


def shadows_of(
    policies: tuple[MirrorPolicyConfig, ...],
    request: RequestHeaders,
    context: WorkerContext,
    wins: Any,
    timeout_s: float | None,
    limit: int,
) -> list[Shadow]:
    """Start the copies that the policies ask for. `wins` draws the lot of a fraction."""
    made = []
    for policy in policies:
        if policy.fraction is not None and not wins(policy.fraction):
            continue
        cluster = context.clusters.get(policy.cluster)
        endpoint = pick(cluster) if cluster is not None else None
        if cluster is None or endpoint is None:
            continue
        headers = request.headers.copy()
        headers.set(b"x-envoy-internal", b"true")
        before = headers.get_joined(b"x-forwarded-for")
        headers.set(b"x-forwarded-for", context.local_ip if before is None else b"%b,%b" % (before, context.local_ip))
        authority = request.authority if policy.keep_host else _shadow_host(request.authority)
        shadow = Shadow(replace(request, headers=headers, authority=authority), cluster, limit)
        shadow.start(context, endpoint, timeout_s)
        if not shadow.done:
            made.append(shadow)
    return made


def _shadow_host(authority: bytes) -> bytes:
    """`a.test:80` → `a.test-shadow:80`."""
    colon = authority.rfind(b":")
    if colon <= authority.rfind(b"]"):
        return authority + b"-shadow"
    return authority[:colon] + b"-shadow" + authority[colon:]
