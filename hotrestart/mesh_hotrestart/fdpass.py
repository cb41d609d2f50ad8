"""File descriptors over a unix socket (SCM_RIGHTS), and who is at the other end."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Final

from mesh_hotrestart.messages import MAX_DESCRIPTORS, WireError

_FD_SIZE: Final = array.array("i").itemsize
_READ_SIZE: Final = 256 * 1024
_ANCILLARY_SIZE: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * _FD_SIZE)
_UCRED: Final = struct.Struct("3i")


class TruncatedDescriptors(WireError):
    """The kernel could not hand over all descriptors: this process has as many open as it may."""

    def __init__(self) -> None:
        super().__init__("file descriptors were lost on the way (is the limit of open files reached?)")


def send_with_descriptors(sock: socket.socket, data: memoryview, descriptors: Sequence[int]) -> int:
    """Send what fits; the descriptors go with its first byte. Raises BlockingIOError, or OSError when the peer is gone."""
    if not descriptors:
        return sock.send(data, socket.MSG_NOSIGNAL)
    rights = array.array("i", descriptors)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_NOSIGNAL)


def receive_with_descriptors(sock: socket.socket, space: int = _ANCILLARY_SIZE) -> tuple[bytes, list[int]]:
    """Some bytes (none at the end of the stream) and the descriptors that came with them, closed on exec.

    Raises:
        TruncatedDescriptors: some did not come through; those that did are closed.
        BlockingIOError: there is nothing now.
    """
    data, ancillary, flags, _ = sock.recvmsg(_READ_SIZE, space, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % _FD_SIZE])
    if flags & socket.MSG_CTRUNC:
        close_all(found)
        raise TruncatedDescriptors
    return data, list(found)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            pass  # already closed; there is nothing that it could hold


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who connected, or of who called listen, as the kernel knows it (SO_PEERCRED). The pid is 0 when it lives in a
    process namespace that we cannot see."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid
