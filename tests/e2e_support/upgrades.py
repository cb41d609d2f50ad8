"""One proxy over several generations of processes, each started by hand with the same meeting point."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from build_support import of_this_build
from parity.proxy import ROOT

from mesh_hotrestart import socket_name

from .sidecar import Sidecar, children_of, memory_kb, open_files, until

DEADLINE_S = 60.0
"""far more than anything takes; only a failure gets there"""
_serial = itertools.count()


class Generation:
    """One supervisor with its log."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        self.log_path = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, **env},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_log(self, pattern: str, timeout: float = DEADLINE_S) -> str:
        """Until a line says this; the line. Fails at once when the process ends without."""

        def look() -> str | None:
            ended = self.process.poll() is not None
            text = self.log()
            if found := re.search(f".*{pattern}.*", text):
                return found[0]
            assert not ended, f"exit code {self.process.returncode}, and never said {pattern!r}:\n{text[-3000:]}"
            return None

        return until(f"log line {pattern!r}", look, timeout)

    def wait_live(self, line: str = "all workers are live") -> Generation:
        self.wait_log(line)
        of_this_build(*self.tree())
        return self

    def wait_exit(self, timeout: float = DEADLINE_S) -> int:
        return self.process.wait(timeout)

    def tree(self) -> list[int]:
        found = [self.pid]
        for pid in found:
            found += children_of(pid)
        return found

    def weight(self) -> tuple[int, int]:
        """Open files, and kilobytes (PSS), of all its processes."""
        tree = [pid for pid in self.tree() if Path(f"/proc/{pid}").exists()]
        return sum(map(open_files, tree)), sum(map(memory_kb, tree))

    def kill(self) -> None:
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Upgrades(Sidecar):
    """`start` starts the first generation, `upgrade` the next."""

    live_line = "all workers are live"

    def __init__(
        self, config: dict[str, Any], *, concurrency: int = 1, flags: tuple[str, ...] = (), socket_path: str = ""
    ) -> None:
        super().__init__(config, concurrency=concurrency, flags=flags)
        self.generations: list[Generation] = []
        self._logs = itertools.count()
        self._socket_path = socket_path or f"@mesh-test-{os.getpid()}-{next(_serial)}"
        self.meeting_point = socket_name(self._socket_path, 0)

    @property
    def newest(self) -> Generation:
        return self.generations[-1]

    @property
    def pid(self) -> int:
        return self.newest.pid

    def command(
        self, *, concurrency: int = 0, flags: tuple[str, ...] = (), config: Path | None = None, files: int = 0
    ) -> list[str]:
        limit = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
        return [
            *limit,
            *(sys.executable, "-m", "mesh_proxy", "-c", str(config or self.config_file)),
            *("--concurrency", str(concurrency or self._concurrency)),
            *("--socket-path", self._socket_path, "--log-level", "info", "--file-flush-interval-msec", "10"),
            *self._flags,
            *flags,
        ]

    def launch(self, env: dict[str, str] | None = None, before: tuple[str, ...] = (), **options: Any) -> Generation:
        """Another process, perhaps by way of another program; nothing is waited for."""
        made = Generation([*before, *self.command(**options)], self.dir / f"output-{next(self._logs)}.log", env or {})
        self.generations.append(made)
        return made

    def start(self) -> None:
        self.launch().wait_live(self.live_line)

    def upgrade(self, **options: Any) -> Generation:
        """Start the next generation, and wait until it serves and the one before is gone."""
        before = self.newest
        made = self.launch(**options).wait_live()
        assert before.wait_exit() == 0, before.log()
        return made

    def log(self) -> str:
        return "".join(f"--- {one.log_path.name}\n{one.log()}" for one in self.generations)

    def output(self) -> str:
        return self.log()[-6000:]

    def stop(self, keep: bool = False) -> None:
        for one in reversed(self.generations):
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 10
        for one in self.generations:
            try:
                one.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            one.kill()
        super().stop(keep)


Chain = Callable[..., Upgrades]


@contextlib.contextmanager
def chains() -> Iterator[Chain]:
    """`begin(config, concurrency=…, flags=…)`: a first generation that serves (`start=False`: not even that), to be upgraded. At
    the end all are stopped, and no log may hold a traceback."""
    made: list[Upgrades] = []

    def begin(config: dict[str, Any], *, start: bool = True, **options: Any) -> Upgrades:
        made.append(Upgrades(config, **options))
        if start:
            made[-1].start()
        return made[-1]

    logs = []
    try:
        yield begin
    finally:
        for one in made:
            one.stop(keep=True)
            logs.append(one.log())
            one.remove()
    for log in logs:
        print(log[-8000:])
        assert "Traceback" not in log
