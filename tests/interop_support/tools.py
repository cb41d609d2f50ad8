"""Tools of the machine, and processes of foreign programs that are told by lines what to do."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from peer_programs import unavailable

LINE_S = 120.0 + float(os.environ.get("DUBBO_IDLE_SECONDS", 0))
"""A line that takes longer never comes. The machine may be slow, so nobody is measured by this."""


def build(
    command: Sequence[str], what: str, cwd: Path | None = None, env: dict[str, str] | None = None, timeout: float = 300
) -> None:
    """Runs a build that may need the network."""
    try:
        built = subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        unavailable(f"{what} could not be built in {timeout:.0f} s")
    if built.returncode:
        unavailable(f"{what} could not be built here: {(built.stdout + built.stderr)[-1500:]}")


class Program:
    """A process that reads lines and writes lines. What it says on the error output is shown when it fails."""

    def __init__(self, command: Sequence[str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as sink:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True, encoding="utf-8", errors="replace"
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def line(self, timeout: float = LINE_S) -> str:
        """The next one."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            line = None
        assert line is not None, f"nothing more came from {self.process.args!r}:\n{self.said()}"
        return line

    def results(self, run: str) -> list[tuple[str, str]]:
        """The cases of a run and what came of them; other lines (logs) are passed over."""
        found: list[tuple[str, str]] = []
        while True:
            name, _, rest = self.line().partition("\t")
            if name != run:
                continue
            case, _, result = rest.partition("\t")
            if case == "done":
                return found
            assert case != "broke", f"{result}\n{self.said()}"
            found.append((case, result))

    def said(self) -> str:
        """The end of its error output."""
        return self._errors.read_text(errors="replace")[-6000:]

    def end_input(self) -> None:
        """Asks it to end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:
                pass  # a line for a process that is gone
