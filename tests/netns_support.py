"""Network namespaces of a test's own: two hosts joined by a cable, in which sockets and processes can be put.

A thread is moved into a namespace for as long as it takes to make a socket; the socket stays there. So servers and callers live
in the test's process, and only the proxy is a process of its own, as the user 1337.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
TOOLS = ("ip", "unshare", "setpriv", "iptables-restore", "iptables-save")


class Namespace:
    """One host. It is there as long as its holder process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        self._holder.stdout.read(1)  # it is in its namespace now
        self._file = os.open(f"/proc/{self._holder.pid}/ns/net", os.O_RDONLY)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """Of a process inside."""
        return self._holder.pid

    def close(self) -> None:
        os.close(self._file)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(20)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            _enter(self._file)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def command(self, *words: str, user: str = "", group: str = "", capabilities: str = "") -> list[str]:
        """The words as a command that runs inside, perhaps as another user, of the group with the user's number or of another
        one. `capabilities`: those that it has beside none, `-all,+net_admin` for root."""
        prefix = ["nsenter", f"--net=/proc/{self.pid}/ns/net"]
        if user:
            prefix += ["setpriv", "--reuid", user, "--regid", group or user, "--clear-groups"]
            if capabilities:
                ambient = capabilities.removeprefix("-all,")
                bounds = ["--bounding-set", capabilities] if ambient != capabilities else []
                prefix += ["--inh-caps", capabilities, "--ambient-caps", ambient, *bounds]
        return [*prefix, *words]

    def run(self, *words: str, text: str = "", check: bool = True) -> str:
        """Run a command inside; what it wrote."""
        done = subprocess.run(self.command(*words), input=text, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def listen(self, host: str, port: int = 0) -> socket.socket:
        with self.inside():
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(128)
        return sock

    def connect(self, host: str, port: int, timeout: float = 20.0) -> socket.socket:
        with self.inside():
            return socket.create_connection((host, port), timeout)


def _enter(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@cache
def missing() -> str:
    """Why there are no namespaces with iptables here; empty when there are."""
    if os.geteuid():
        return "needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)}: not installed"
    rules = "*nat\n-A OUTPUT -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15001\nCOMMIT\n"
    tried = subprocess.run(["unshare", "--net", "iptables-restore"], input=rules, capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no iptables in a network namespace: {tried.stderr.strip()[:200]}"
    return ""


def need_namespaces() -> None:
    """Skip where there are none."""
    if missing():
        pytest.skip(missing())


def need_program(name: str) -> str:
    """Its path, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class Cable:
    """Two hosts, `here` (with the sidecar) and `there`, with an address of each IP version."""

    HERE, THERE = "10.77.0.1", "10.77.0.2"
    HERE6, THERE6 = "fd77::1", "fd77::2"

    def __init__(self) -> None:
        self.here = Namespace()
        self.there = Namespace()
        self.here.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self.there.pid))
        for host, four, six in ((self.here, self.HERE, self.HERE6), (self.there, self.THERE, self.THERE6)):
            host.run("ip", "addr", "add", f"{four}/24", "dev", "eth0")
            host.run("ip", "addr", "add", f"{six}/64", "dev", "eth0", "nodad")
            host.run("ip", "link", "set", "eth0", "up")

    def close(self) -> None:
        self.here.close()
        self.there.close()


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Two hosts, and none at the end."""
    need_namespaces()
    one = Cable()
    try:
        yield one
    finally:
        one.close()


def readable_by_all(path: Path) -> None:
    """The proxy's user may read it, and what is above it."""
    path.chmod(0o755 if path.is_dir() else 0o644)
    for above in path.parents:
        if above.stat().st_uid == os.geteuid() and above != above.parent:
            above.chmod(above.stat().st_mode | 0o055)


def words(command: Sequence[str]) -> str:
    """For messages."""
    return " ".join(command)
