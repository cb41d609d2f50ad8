"""The contract between a stream and the connection of its caller, whatever its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mesh_codecs.events import Data, InformationalHeaders, ResponseHeaders, Trailers

if TYPE_CHECKING:
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.stream.downstream_stream import DownstreamStream
    from mesh_proxy.stream.info import ConnectionInfo


class Downstream(Protocol):
    """A caller's connection, as a stream sees it. A protocol without streams of its own has one stream at a time."""

    info: ConnectionInfo
    owner: ConnectionOwner
    write_blocked: bool
    """the caller's transport takes no more now"""

    def send(self, event: ResponseHeaders | InformationalHeaders | Data | Trailers) -> None:
        """Send a piece of a response: written at the end of this turn, or as the caller's window allows. When a piece has to wait
        `stream.undelivered` is set, and the stream is finished when all went out.

        Raises:
            LocalProtocolError: the event does not fit; nothing was sent.
        """

    def pause_reading(self, stream: DownstreamStream) -> None:
        """Counted: nobody takes more of this request now."""

    def resume_reading(self, stream: DownstreamStream) -> None:
        """Undo one `pause_reading`."""

    def response_begins(self) -> None:
        """A response head is about to be sent: tell the caller with it if the connection is to end."""

    def response_precedes_request(self) -> None:
        """The response whose head is about to be sent begins before its request has ended."""

    def close_after_response(self) -> None:
        """The request is so wrong that the connection ends after the response, where the protocol has no better way."""

    def tunnel_opened(self) -> None:
        """From here on the stream carries bytes both ways."""

    def reset_stream(self, stream: DownstreamStream) -> None:
        """The response breaks off."""

    def measure(self, stream: DownstreamStream) -> None:
        """Fill in what the stream took on the wire, for its log line."""

    def stream_done(self, stream: DownstreamStream) -> None:
        """The stream has ended and is logged."""
