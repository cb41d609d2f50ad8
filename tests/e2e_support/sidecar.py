"""A running mesh-proxy: supervisor, spawner and workers, with what a test may ask the kernel about them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from parity.proxy import Side, command

Found = TypeVar("Found")
FLAGS = ("--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "10")


def until(what: str, check: Callable[[], Found], timeout: float = 30.0, interval: float = 0.01) -> Found:
    """Ask again and again for what has no event outside the process; what it found."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(interval)


class Sidecar(Side):
    """mesh-proxy on a configuration with the placeholders of `parity.config`. Always stop it."""

    def __init__(self, config: dict[str, Any], *, concurrency: int = 1, files: int = 0, flags: tuple[str, ...] = ()) -> None:
        self._concurrency = concurrency
        self._files = files
        """RLIMIT_NOFILE of all its processes, hard and soft; 0 leaves it"""
        self._flags = flags
        super().__init__("mesh-proxy", "e2e", config)

    def arguments(self) -> list[str]:
        limit = ["sh", "-c", f'ulimit -n {self._files} && exec "$@"', "sh"] if self._files else []
        flags = ["--concurrency", str(self._concurrency), *FLAGS, *self._flags]
        return [*limit, *command(self.kind), "-c", str(self.config_file), *flags]

    # Processes

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    def children(self) -> dict[str, list[int]]:
        """The living processes by role."""
        spawners = children_of(self.pid)
        return {"supervisor": [self.pid], "spawner": spawners, "worker": [pid for one in spawners for pid in children_of(one)]}

    def workers(self) -> list[int]:
        return self.children()["worker"]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait_exit(self, timeout: float = 30.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    # What it says

    def log(self) -> str:
        return (self.dir / "output.log").read_text(errors="replace")

    def port(self, listener: str) -> int:
        return self.ports[f"port.{listener}"]

    def settled(self, expected: dict[str, int]) -> bool:
        """The statistics have these values now."""
        stats = self.stats()
        return all(stats.get(name) == value for name, value in expected.items())

    def gauges(self, names: Iterable[str]) -> dict[str, int]:
        """Every statistic whose last word is among `names` and that is not zero."""
        wanted = set(names)
        return {name: value for name, value in self.stats().items() if name.rpartition(".")[2] in wanted and value}


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def memory_kb(pid: int, field: str = "Pss") -> int:
    """Kilobytes of `Pss`, `Rss`, `Private_Dirty`, … of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0])
    raise AssertionError(f"no {field} in smaps_rollup")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def sockets_of(pid: int) -> set[str]:
    """Inode numbers of the sockets that a process holds."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    return found
