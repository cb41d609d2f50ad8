"""The processes of the demo: started, waited for until they serve, and always stopped."""

from __future__ import annotations

import asyncio
import ctypes  # noqa: F401 - loaded before the fork, for die_with_parent
import functools
import http.client
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mesh_proxy.supervisor.spawner import die_with_parent

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.02
LOG_LINES: Final = 15
"""how much of a log is shown when something does not start"""


class StartFailed(Exception):
    """A process does not serve; the text is for the person at the terminal."""


class AddressTaken(StartFailed):
    """Somebody else listens where the sidecar should."""


def is_free(port: int) -> bool:
    """Nobody listens on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier run may linger in TIME_WAIT
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Any port of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Processes:
    """What the demo has started. Use it as an asynchronous context: all of it is stopped at the end, last started first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[str, Process]] = []

    async def __aenter__(self) -> Processes:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name, process in reversed(self._running):
            await _stop(name, process)
        self._running.clear()

    async def service(self, name: str, *flags: str) -> int:
        """Start one version of the HTTP service; its port. Raises StartFailed."""
        return await self._service(name, "mesh_proxy.demo.service", name, *flags)

    async def provider(self, name: str) -> int:
        """Start one version of the Dubbo service; its port. Raises StartFailed."""
        return await self._service(f"dubbo-{name}", "mesh_proxy.demo.dubbo_service", name)

    async def grpc_service(self, name: str) -> int:
        """Start one version of the gRPC service; its port. Raises StartFailed."""
        return await self._service(f"grpc-{name}", "mesh_proxy.demo.grpc_service", name)

    async def _service(self, name: str, module: str, *arguments: str) -> int:
        with self.log(name).open("wb") as log:
            process = await self._start(name, [*_python(module), *arguments], PIPE, PIPE, log.fileno())
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        word, _, port = line.decode().partition(" ")
        if word != "listening":
            raise StartFailed(f"service {name} does not start:\n{self._tail(name)}")
        return int(port)

    async def sidecar(self, bootstrap: Path, admin_port: int, concurrency: int, name: str = "sidecar") -> Process:
        """Start mesh-proxy and wait until it is ready. Raises StartFailed."""
        bound = self._folder / f"{name}.admin"
        bound.unlink(missing_ok=True)
        arguments = ["-c", str(bootstrap), "--concurrency", str(concurrency), "--file-flush-interval-msec", "500"]
        arguments += ["--admin-address-path", str(bound), "--socket-path", f"@mesh-proxy-demo-{os.getpid()}-{name}"]
        with self.log(name).open("wb") as log:
            process = await self._start(name, [*_python("mesh_proxy"), *arguments], DEVNULL, log.fileno(), STDOUT)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while process.returncode is None:
                    # The file says that the port is ours: another sidecar may answer there.
                    if bound.exists() and await asyncio.to_thread(fetch, admin_port, "/ready") == "LIVE\n":
                        return process
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise StartFailed(f"the {name} is not ready after {START_TIMEOUT_S:.0f} s:\n{self._tail(name)}") from None
        self._running.remove((name, process))
        tail = self._tail(name)
        kind = AddressTaken if "Address already in use" in tail else StartFailed
        raise kind(f"the {name} ended with exit code {process.returncode}:\n{tail}")

    async def stop(self, name: str) -> None:
        """Stop what has this name, if it runs."""
        for found in [one for one in self._running if one[0] == name]:
            await _stop(*found)
            self._running.remove(found)

    async def first_end(self) -> str:
        """Wait until one of the processes ends by itself; what to say about it."""
        waits = {asyncio.ensure_future(process.wait()): name for name, process in self._running}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        name = waits[done.pop()]
        return f"{name} ended by itself:\n{self._tail(name)}"

    def log(self, name: str) -> Path:
        """Where a process writes what it has to say."""
        return self._folder / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"

    async def _start(self, name: str, command: Sequence[str], stdin: int, stdout: int, stderr: int) -> Process:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the others in order
                preexec_fn=functools.partial(die_with_parent, os.getpid(), signal.SIGINT),
            )
        except OSError as error:
            raise StartFailed(f"cannot start {command[0]}: {error.strerror}") from None
        self._running.append((name, process))
        return process


def fetch(admin_port: int, path: str) -> str:
    """The text of a page of the admin interface; empty when it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def numbers(text: str) -> dict[str, int]:
    """Counters and gauges of the page /stats."""
    pairs = (line.rpartition(": ") for line in text.splitlines())
    return {name: int(value) for name, _, value in pairs if value.isdecimal()}


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


async def _stop(name: str, process: Process) -> None:
    """A service ends with its standard input, the sidecar with SIGINT; who does not is killed."""
    if process.returncode is not None:
        return
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.send_signal(signal.SIGINT)
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        print(f"{name} does not stop and is killed", file=sys.stderr)
        process.kill()
        await process.wait()
