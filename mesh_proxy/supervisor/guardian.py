"""What is left of a process that was upgraded by SIGHUP: it stays so that whoever started it still finds it, and watches its
successors.

A container ends with its process 1 and a service with its main process. So a supervisor that has handed over to a process that it
started itself does not end but becomes this program, by exec: a few megabytes that wait for signals. It starts the next upgrades
(SIGHUP), passes SIGTERM, SIGINT and SIGUSR1 on, and ends with the exit code of the last successor.

Run as a script, by `python -I -S`: nothing is imported that is not needed, and nothing of this package. All its signals are
blocked and waited for, which works from the first instruction on and also as process 1.
"""

import os
import signal
import sys

GUARDIAN_VARIABLE = "MESH_PROXY_GUARDIAN"
"""in the environment of a successor: the pid of who starts the next one"""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
MOST_AT_ONCE = 3
"""an old process that still drains, the serving one, and a new one"""


def say(text: str) -> None:
    """To standard error, where the application log goes by default."""
    os.write(2, f"mesh-proxy guardian (pid {os.getpid()}): {text}\n".encode())


def start(command: list[str]) -> int:
    """Start a successor; its pid."""
    environment = {**os.environ, GUARDIAN_VARIABLE: str(os.getpid())}
    return os.posix_spawn(command[0], command, environment, setsigmask=())


class Guardian:
    """Processes that are watched."""

    def __init__(self, pids: list[int], command: list[str]) -> None:
        self.living = set(pids)
        self.command = command
        self.exit_code = 0

    def run(self) -> int:
        """Until the last one has ended; its exit code."""
        self.reap()
        while self.living:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGCHLD:
                self.reap()
            elif number == signal.SIGHUP:
                self.upgrade()
            else:
                for pid in self.living:
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        pass
        return self.exit_code

    def upgrade(self) -> None:
        """SIGHUP."""
        if len(self.living) >= MOST_AT_ONCE:
            say("an upgrade is under way already")
            return
        try:
            pid = start(self.command)
        except OSError as error:
            say(f"cannot start {self.command[0]}: {error.strerror}")
            return
        self.living.add(pid)
        say(f"started pid {pid}")

    def reap(self) -> None:
        """Take note of those that have ended; as process 1 there may be strangers among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.living.clear()
                return
            if pid == 0:
                return
            if pid in self.living:
                self.living.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = 128 - code if code < 0 else code
                say(f"pid {pid} ended with exit code {self.exit_code}")


def become(pids: list[int], command: list[str]) -> None:
    """Replace this process; returns only if that fails."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    interpreter = sys.executable
    words = [interpreter, "-I", "-S", __file__, ",".join(map(str, pids)), *command]
    try:
        os.execv(interpreter, words)
    except OSError as error:
        say(f"cannot stay: {error.strerror}")


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    sys.exit(Guardian([int(pid) for pid in sys.argv[1].split(",")], sys.argv[2:]).run())
