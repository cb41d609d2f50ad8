"""What the rest of the proxy asks of a wire format: bytes in, events out, and back."""

from __future__ import annotations

import enum
from typing import Protocol

from mesh_codecs.events import Event


class Match(enum.Enum):
    """Answer of a protocol detector to the first bytes of a connection."""

    YES = "yes"
    NO = "no"
    MORE = "more"


class Codec(Protocol):
    """One side of one connection, sans-IO.

    Duties of the shell around it: feed every read to `receive_data`, act on the events in order, then write `data_to_send()`
    (also after each batch of `send`), close the transport once `closed` is true and everything is written, and re-arm its one
    timer from `next_timer()`.
    """

    @property
    def closed(self) -> bool:
        """True when the connection must be closed as soon as the output is flushed."""

    def receive_data(self, data: bytes) -> list[Event]:
        """Events found in the bytes so far. Never raises for a fault of the peer and never loses the events before it: the
        good ones come first, then one `StreamReset` or `ConnectionFailed`."""

    def receive_eof(self) -> list[Event]:
        """The peer will send no more."""

    def send(self, event: Event) -> None:
        """Queue an event for the peer.

        Raises:
            LocalProtocolError: the event does not fit the state, which is then unchanged.
        """

    def data_to_send(self) -> list[bytes]:
        """Bytes to write, in order; the codec forgets them."""

    def open_stream(self) -> int | None:
        """Upstream side: the id for a new request, or None when the connection takes no more now."""

    def acknowledge(self, stream_id: int, size: int) -> None:
        """`size` bytes of body (a `Data.flow_size`) were delivered: return the credit to the peer."""

    def send_window(self, stream_id: int) -> int:
        """How many body bytes may be sent now."""

    def shutdown(self) -> None:
        """Begin a graceful end in the protocol's own words (`Connection: close`, GOAWAY)."""

    def next_timer(self) -> float | None:
        """Monotonic time at which `handle_timer` wants to be called."""

    def handle_timer(self, now: float) -> list[Event]:
        """Let the codec act on time, e.g. a PING that was not answered."""
