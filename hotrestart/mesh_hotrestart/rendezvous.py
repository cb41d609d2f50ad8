"""Where an old and a new process meet: one unix socket per base id.

The serving process listens on it. Who starts with the same `--socket-path` and `--base-id` finds it there. The listening socket
itself is handed over with all others, so that the name never disappears between two processes, and a path is unlinked by its last
owner only.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from typing import Final

ATTEMPTS: Final = 5
ATTEMPT_INTERVAL_S: Final = 0.1
"""Somebody may have bound the name a moment ago and not listen yet; only a name that refuses for longer is a dead process's."""
BACKLOG: Final = 16


class RendezvousError(Exception):
    """The meeting point cannot be used; the text says why."""


def socket_name(socket_path: str, base_id: int) -> str:
    """Envoy's `--socket-path` and `--base-id` in one name; `@` in front means abstract (it lives in the network namespace)."""
    return f"{socket_path}_{base_id}"


def kernel_name(name: str) -> str:
    """What bind and connect take."""
    return "\0" + name[1:] if name.startswith("@") else name


def connect(name: str) -> socket.socket | None:
    """A connection to the serving process; None when nobody listens there. Raises RendezvousError."""
    for attempt in range(ATTEMPTS):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(5.0)
            sock.connect(kernel_name(name))
        except FileNotFoundError:
            sock.close()
            return None
        except ConnectionRefusedError:
            sock.close()
            if name.startswith("@") and not _is_bound(name):
                return None
            if attempt + 1 < ATTEMPTS:
                time.sleep(ATTEMPT_INTERVAL_S)
        except OSError as error:
            sock.close()
            raise RendezvousError(f"cannot connect to {name}: {error.strerror or error}") from None
        else:
            sock.setblocking(False)
            return sock
    return None


def _is_bound(name: str) -> bool:
    """An abstract name that somebody holds without listening."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(kernel_name(name))
        except OSError:
            return True
    return False


def listen(name: str, mode: int) -> socket.socket:
    """Become the one whom others find. A path that a dead process left is replaced. Raises RendezvousError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if name.startswith("@"):
            sock.bind(kernel_name(name))
        else:
            _bind_path(sock, name, mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        hint = " (another mesh-proxy? see --base-id)" if error.errno == errno.EADDRINUSE else ""
        raise RendezvousError(f"cannot listen on {name}: {error.strerror or error}{hint}") from None
    return sock


def _bind_path(sock: socket.socket, path: str, mode: int) -> None:
    for again in (True, False):
        before = os.umask(0o777 & ~mode)  # no moment with wider permissions than asked for
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not again or not _is_stale(path):
                raise
            os.unlink(path)
        else:
            os.chmod(path, mode)
            return
        finally:
            os.umask(before)


def _is_stale(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def path_inode(name: str) -> int:
    """What tells a path of ours from one that somebody else made since; 0 when there is none."""
    try:
        return 0 if name.startswith("@") else os.stat(name).st_ino
    except OSError:
        return 0


def unlink(name: str, inode: int) -> None:
    """The last owner leaves: remove the path if it is still the one with this inode."""
    if inode and path_inode(name) == inode:
        try:
            os.unlink(name)
        except OSError:
            pass  # somebody else removed it
