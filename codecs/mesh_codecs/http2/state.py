"""The life of a stream (RFC 9113, 5.1) as a table. Push is refused, so the reserved states do not occur.

`recv` and `send` say who acted: the peer or we. What is not in the table is an error of whoever acted.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_codecs.http2.taker import Taker


class StreamState(enum.IntEnum):
    """Where a stream is."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2
    """we ended our side"""
    HALF_CLOSED_REMOTE = 3
    """the peer ended its side"""
    CLOSED = 4


class StreamInput(enum.IntEnum):
    """What can happen to a stream."""

    RECV_HEADERS = 0
    RECV_DATA = 1
    RECV_END_STREAM = 2
    RECV_RST_STREAM = 3
    SEND_HEADERS = 4
    SEND_DATA = 5
    SEND_END_STREAM = 6
    SEND_RST_STREAM = 7


_S = StreamState
_I = StreamInput

TRANSITIONS: Final[dict[tuple[StreamState, StreamInput], StreamState]] = {
    (_S.IDLE, _I.RECV_HEADERS): _S.OPEN,
    (_S.IDLE, _I.SEND_HEADERS): _S.OPEN,
    (_S.OPEN, _I.RECV_HEADERS): _S.OPEN,
    (_S.OPEN, _I.SEND_HEADERS): _S.OPEN,
    (_S.OPEN, _I.RECV_DATA): _S.OPEN,
    (_S.OPEN, _I.SEND_DATA): _S.OPEN,
    (_S.OPEN, _I.RECV_END_STREAM): _S.HALF_CLOSED_REMOTE,
    (_S.OPEN, _I.SEND_END_STREAM): _S.HALF_CLOSED_LOCAL,
    (_S.OPEN, _I.RECV_RST_STREAM): _S.CLOSED,
    (_S.OPEN, _I.SEND_RST_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_LOCAL, _I.RECV_HEADERS): _S.HALF_CLOSED_LOCAL,
    (_S.HALF_CLOSED_LOCAL, _I.RECV_DATA): _S.HALF_CLOSED_LOCAL,
    (_S.HALF_CLOSED_LOCAL, _I.RECV_END_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_LOCAL, _I.RECV_RST_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_LOCAL, _I.SEND_RST_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_REMOTE, _I.SEND_HEADERS): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_REMOTE, _I.SEND_DATA): _S.HALF_CLOSED_REMOTE,
    (_S.HALF_CLOSED_REMOTE, _I.SEND_END_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_REMOTE, _I.RECV_RST_STREAM): _S.CLOSED,
    (_S.HALF_CLOSED_REMOTE, _I.SEND_RST_STREAM): _S.CLOSED,
}

ILLEGAL: Final = -1
NEXT: Final[list[list[int]]] = [[int(TRANSITIONS.get((s, i), ILLEGAL)) for i in StreamInput] for s in StreamState]
"""the same as rows of plain numbers for the data path: NEXT[state][input], ILLEGAL where the table says nothing"""

# Plain numbers of the same for the data path, which must not pay for enum look-ups.
IDLE: Final = 0
OPEN: Final = 1
HALF_CLOSED_LOCAL: Final = 2
HALF_CLOSED_REMOTE: Final = 3
CLOSED: Final = 4
SENDING: Final = 1
"""a bit of the two states in which our side of a stream is open"""
RECV_HEADERS: Final = 0
RECV_DATA: Final = 1
RECV_END_STREAM: Final = 2
RECV_RST_STREAM: Final = 3
SEND_HEADERS: Final = 4
SEND_DATA: Final = 5
SEND_END_STREAM: Final = 6
SEND_RST_STREAM: Final = 7


class Stream:
    """One request and its response as the codec sees them."""

    __slots__ = (
        "expected",
        "flags",
        "head_received",
        "head_sent",
        "id",
        "owed",
        "received",
        "recv_window",
        "send_window",
        "sent",
        "state",
        "taker",
        "unreturned",
        "wire_id",
    )

    def __init__(
        self, stream_id: int, state: int, send_window: int, recv_window: int, expected: int, flags: int, size: int = 0
    ) -> None:
        self.id = stream_id
        self.wire_id = stream_id.to_bytes(4, "big")
        """the id as frames have it"""
        self.state = state
        self.send_window = send_window
        """bytes of DATA that the peer lets us send; may be negative after a SETTINGS change (RFC 9113, 6.9.2)"""
        self.recv_window = recv_window
        """bytes of DATA that the peer may still send"""
        self.owed = 0
        """bytes given to the caller and not yet acknowledged"""
        self.unreturned = 0
        """bytes acknowledged by the caller but not yet worth a WINDOW_UPDATE"""
        self.expected = expected
        """body bytes still to come by content-length; -1: unknown"""
        self.flags = flags
        """of HEAD_RECEIVED, HEAD_SENT, BODILESS, TUNNEL"""
        self.received = size
        """bytes of frames received, their headers included; `size` are those of the head that opened the stream"""
        self.head_received = size
        """those of header blocks among them"""
        self.sent = 0
        """the same, sent"""
        self.head_sent = 0
        self.taker: Taker | None = None
        """who takes what is as always before it becomes an event"""

    def __repr__(self) -> str:
        return f"<Stream {self.id} {StreamState(self.state).name} send={self.send_window} recv={self.recv_window}>"


HEAD_RECEIVED: Final = 1
"""the peer's final head came; a later block is trailers"""
HEAD_SENT: Final = 2
"""our final head went out"""
BODILESS: Final = 4
"""upstream side: the request was HEAD, so content-length announces nothing"""
TUNNEL: Final = 8
"""an extended CONNECT: 200 on the wire is 101 for the caller"""
