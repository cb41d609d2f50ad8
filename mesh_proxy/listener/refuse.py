"""Closing a listening socket without resetting anybody who is in its accept queue."""

from __future__ import annotations

import array
import select
import socket
import struct
from typing import Final

SO_ATTACH_FILTER: Final = 26
HANDSHAKE_GRACE_S: Final = 0.005
"""How long a handshake that has begun may take to complete: a few round trips inside a data centre."""
_DROP_SYN: Final = array.array(
    "Q",
    b"".join(
        struct.pack("HBBI", *instruction)
        for instruction in (
            (0x30, 0, 0, 13),  # load the flags of the TCP header
            (0x54, 0, 0, 0x12),  # keep SYN and ACK
            (0x15, 0, 1, 0x02),  # SYN alone?
            (0x06, 0, 0, 0),  # drop it
            (0x06, 0, 0, 0xFFFFFFFF),  # anything else passes
        )
    ),
)
"""Classic BPF (linux/filter.h): a new connection's first packet does not pass."""


def refuse_new(listening: socket.socket) -> bool:
    """Let no further handshake begin on a listening TCP socket; those that have begun complete and stay in its accept queue.

    Without this a connection that completes between the last `accept` and `close` would be reset, although its caller may already
    have sent a request. With it the caller's SYN is lost, and sent again to whoever listens then. Best effort: where the kernel
    does not take the filter the small window stays. True when the filter is in place.
    """
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    address, length = _DROP_SYN.buffer_info()
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("H6xQ", length, address))
    except OSError:
        return False
    return True


def wait_for_handshakes(listening: socket.socket) -> bool:
    """Whether a connection completes within the grace time; blocks that long at most."""
    poll = select.poll()
    poll.register(listening.fileno(), select.POLLIN)
    return bool(poll.poll(HANDSHAKE_GRACE_S * 1000))
