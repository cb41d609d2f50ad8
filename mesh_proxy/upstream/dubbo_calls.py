"""Who an upstream Dubbo connection speaks to on our side: calls that wait for their answers, and consumers it may hold back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage, MessageTooLarge, Refusal
    from mesh_proxy.upstream.dubbo_connection import DubboUpstreamConnection
    from mesh_proxy.upstream.dubbo_pool import DubboPool
    from mesh_proxy.upstream.endpoint import Endpoint


class UpstreamCall:
    """A call as pools and upstream connections see it. Abstract, and a class rather than a protocol: what is compiled then knows
    where its attributes and methods are."""

    __slots__ = ("upstream", "upstream_id")

    upstream: DubboUpstreamConnection | None
    """where it was sent"""
    upstream_id: int
    """its id there"""

    def begun(self) -> float:
        """When it began, in monotonic seconds."""
        raise NotImplementedError

    def on_pool_ready(self, upstream: DubboUpstreamConnection, now: float) -> None:
        """A connection is there: send."""
        raise NotImplementedError

    def on_pool_failure(self, reason: Refusal, why: str, endpoint: Endpoint) -> None:
        """No connection could be had."""
        raise NotImplementedError

    def on_response(self, message: DubboMessage, now: float) -> None:
        """The answer."""
        raise NotImplementedError

    def on_response_too_large(self, event: MessageTooLarge, now: float) -> None:
        """An answer came, and it is over the limit."""
        raise NotImplementedError

    def on_upstream_gone(self, why: str) -> None:
        """The connection ended before the answer."""
        raise NotImplementedError

    def on_forgotten(self) -> None:
        """No answer in FORGOTTEN_S."""
        raise NotImplementedError


class Blocking:
    """A downstream connection as an upstream one sees it. Abstract."""

    __slots__ = ()

    def pause_reading(self) -> None:
        """Counted."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        """Undo one `pause_reading`."""
        raise NotImplementedError

    def on_upstream_request(self, upstream: DubboUpstreamConnection, message: DubboMessage) -> None:
        """The endpoint calls back (pinned connections only)."""
        raise NotImplementedError

    def on_pinned_lost(self, pool: DubboPool) -> None:
        """The connection of a pinned pool ended."""
        raise NotImplementedError

    def on_pinned_failed(self, pool: DubboPool) -> None:
        """A pinned pool never got its connection."""
        raise NotImplementedError
