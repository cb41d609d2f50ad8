"""Who takes what is as always straight from the codec: frames whose meaning is known make no events.

A receiver that forwards a stream frame by frame puts a `Taker` on it (`state.Stream.taker`); who begins streams by plans puts an
`Opener` on its connection. Each of their methods answers whether it has done all there is to do; if not, nothing has happened,
and the same comes as an event. Nobody is asked while events of the same read wait: what came first is told first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh_codecs.http2.heads import Head
    from mesh_codecs.http2.state import Stream


class Taker:
    """Abstract. It must not read from, or export, the codec that calls it."""

    __slots__ = ()

    def take_head(self, head: Head) -> bool:
        """Upstream side: the final head of a response of which more follows."""
        raise NotImplementedError

    def take_data(self, data: bytes, end_stream: bool) -> bool:
        """Upstream side: a piece of a response's body, never empty. True: its credit may go back."""
        raise NotImplementedError

    def take_trailers(self, head: Head) -> bool:
        """Upstream side: the trailers, the end of a response."""
        raise NotImplementedError

    def take_request_data(self, data: bytes, end_stream: bool) -> bool:
        """Downstream side: a piece of a request's body, never empty. True: its credit may go back."""
        raise NotImplementedError


class Opener:
    """Abstract, downstream side."""

    __slots__ = ()

    def open_known(self, stream: Stream, head: Head, end_stream: bool) -> bool:
        """A request whose head came before, in the same bytes."""
        raise NotImplementedError
