"""The spawner: a small process that forks workers from a clean, warm state.

It is forked from the supervisor when the data path's modules are imported and nothing else has happened: no event loop, no
threads, no protobuf, no YAML, no listening socket. Every worker is forked from it, also hours later, so that a replacement
starts in milliseconds, shares its code objects with its siblings and holds nothing of the supervisor's.

The supervisor asks over a SOCK_SEQPACKET pair (one packet is one message): spawn worker N with these descriptors. The spawner
answers with the pid, and later with the wait status of each worker that ended, at once (it sleeps in poll on their pidfds).

Lives end downwards. When the supervisor dies, the workers read the end of their control channel and drain; the spawner reads
the end of its own, waits for them for a while, kills what is left and exits. When the spawner dies, the kernel sends its
workers SIGTERM (PR_SET_PDEATHSIG), and they drain.
"""

from __future__ import annotations

import array
import gc
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from mesh_proxy.worker import turns

WorkerEntry = Callable[[int, socket.socket, int], int]
"""(worker index, control socket, descriptor of the statistics page) -> exit code; runs in the new process"""

READER_INDEX: Final = -1
"""stands in a request for the process that reads watched files"""
READER_TOKEN: Final = 0xFFFF_FFFF
REQUEST: Final = struct.Struct("!iI")
"""worker index, token; with two descriptors: control socket, statistics page"""
REPLY: Final = struct.Struct("!BiIi")
"""kind, pid, token, wait status"""
SPAWNED: Final = 0
EXITED: Final = 1
FAILED: Final = 2
"""fork failed; the wait status field holds errno"""

ORPHAN_GRACE_S: Final = 10.0
"""how long workers may drain when the supervisor is gone; then they are killed"""

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int, sig: signal.Signals) -> None:
    """Have the kernel send us sig when the parent dies. Nothing in the standard library calls prctl, hence ctypes."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os.kill(os.getpid(), sig)


def ignore_terminal_signals() -> None:
    """Signals that a terminal sends to the whole group, and those that only mean something to the supervisor."""
    for sig in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGQUIT):
        signal.signal(sig, signal.SIG_IGN)


def close_other_fds(keep: set[int]) -> None:
    """Close every descriptor above the standard streams that is not to be kept; the workers' turns stay."""
    keep = keep | turns.files()
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:
                pass  # the descriptor of the listing itself


def start_spawner(worker_entry: WorkerEntry) -> tuple[int, socket.socket]:
    """Fork the spawner; its pid and our end of the packet socket. Call it before any event loop exists."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gc.collect()
    gc.freeze()  # the collector will not touch, and thereby copy, what the processes share
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ignore_terminal_signals()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end of the packet socket is what ends us
            ours.close()
            close_other_fds({theirs.fileno()})
            _Spawner(theirs, worker_entry).run()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    return pid, ours


class _Spawner:
    """The spawner's whole life, in its own process."""

    def __init__(self, sock: socket.socket, worker_entry: WorkerEntry) -> None:
        self._socket = sock
        self._worker_entry = worker_entry
        self._children: dict[int, tuple[int, int]] = {}
        """pidfd -> (pid, token)"""
        self._poll = select.poll()

    def run(self) -> None:
        """Serve until the supervisor's end closes, then see the workers out."""
        self._poll.register(self._socket, select.POLLIN)
        orphaned_at: float | None = None
        while True:
            timeout = None
            if orphaned_at is not None:
                if not self._children:
                    return
                timeout = max(0, int((orphaned_at + ORPHAN_GRACE_S - time.monotonic()) * 1000))
            events = self._poll.poll(timeout)
            if not events and orphaned_at is not None:
                for pid, _ in self._children.values():
                    os.kill(pid, signal.SIGKILL)
                return
            for fd, _ in events:
                if fd in self._children:
                    self._reap(fd)
                elif not self._serve():
                    self._poll.unregister(self._socket)
                    orphaned_at = time.monotonic()

    def _serve(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._socket, REQUEST.size, 2, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        index, token = REQUEST.unpack(data)
        control, page = fds
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._reply(FAILED, 0, token, error.errno or 0)
        else:
            if pid == 0:
                self._become_worker(index, control, page, parent)
            pidfd = os.pidfd_open(pid)
            self._children[pidfd] = (pid, token)
            self._poll.register(pidfd, select.POLLIN)
            self._reply(SPAWNED, pid, token, 0)
        os.close(control)
        os.close(page)
        return True

    def _become_worker(self, index: int, control: int, page: int, parent: int) -> None:
        code = 1
        try:
            close_other_fds({control, page})
            die_with_parent(parent, signal.SIGTERM)
            code = self._worker_entry(index, socket.socket(fileno=control), page)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _reap(self, pidfd: int) -> None:
        pid, token = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self._reply(EXITED, pid, token, status)

    def _reply(self, kind: int, pid: int, token: int, status: int) -> None:
        try:
            self._socket.send(REPLY.pack(kind, pid, token, status))
        except OSError:
            pass  # the supervisor is gone; run() learns it from the socket


def send_request(sock: socket.socket, index: int, token: int, control: int, page: int) -> None:
    """Ask for a worker; the answer carries the same token."""
    sock.sendmsg(
        [REQUEST.pack(index, token)],
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [control, page]))],
    )
