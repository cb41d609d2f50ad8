"""SIGHUP: start the installed program once more, and let it take over from us."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

from mesh_proxy.supervisor import guardian

_log = logging.getLogger("main")


def command_line(arguments: Sequence[str] | None = None) -> list[str]:
    """How this process was started, without what holds for the first epoch only. The program may be a newer one by now."""
    words = list(sys.orig_argv if arguments is None else arguments)
    if "/" not in words[0]:
        words[0] = sys.executable
    found: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == "--restart-epoch":
            skip = True
        elif not word.startswith("--restart-epoch="):
            found.append(word)
    return found


class Restarter:
    """Of one supervisor. Knows the successors that it has started."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.command = command_line()
        self._children: dict[int, int] = {}
        """pid -> pidfd"""
        self._environment = os.environ.get(guardian.GUARDIAN_VARIABLE, "")

    @property
    def guarded(self) -> bool:
        """Whoever started us starts the next one too."""
        return self._environment == str(os.getppid())

    @property
    def living(self) -> list[int]:
        """Successors that run."""
        return list(self._children)

    def use_base_id(self, base_id: int) -> None:
        """The one that was chosen (`--use-dynamic-base-id`) is the successor's too."""
        self.command = [word for word in self.command if word != "--use-dynamic-base-id"] + ["--base-id", str(base_id)]

    def restart(self) -> None:
        """Start the next epoch."""
        if self.guarded:
            _log.info("hot upgrade: asking pid %d to start the next process", os.getppid())
            os.kill(os.getppid(), signal.SIGHUP)
            return
        if len(self._children) >= guardian.MOST_AT_ONCE - 1:
            _log.warning("hot upgrade: one is under way already, by pid %d", max(self._children))
            return
        try:
            pid = guardian.start(self.command)
            self._children[pid] = pidfd = os.pidfd_open(pid)
        except OSError as error:
            _log.error("hot upgrade: cannot start %s: %s", self.command[0], error.strerror)
            return
        self._loop.add_reader(pidfd, self._ended, pid)
        _log.info("hot upgrade: started pid %d: %s", pid, " ".join(self.command))

    def forward(self, number: signal.Signals) -> None:
        """Who signals us means the one that serves."""
        for pidfd in self._children.values():
            try:
                signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Stop watching; they live on."""
        for pidfd in self._children.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._children = dict.fromkeys(self._children, -1)

    def _ended(self, pid: int) -> None:
        pidfd = self._children.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        _log.log(
            logging.INFO if code == 0 else logging.ERROR, "hot upgrade: pid %d, which was started to take over, %s", pid, how
        )
