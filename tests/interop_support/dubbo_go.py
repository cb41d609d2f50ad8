"""dubbo-go: a provider and a consumer, from tests/interop/go/dubbo-peers."""

from __future__ import annotations

from pathlib import Path

from parity.proxy import free_port
from peer_programs import REQUIRED, program, unavailable

from .dubbo_java import Provider, Results
from .tools import Program, build

PROJECT = Path(__file__).parent.parent / "interop" / "go" / "dubbo-peers"
BUILD_S = 900


class GoPeers:
    """What Go made, and processes of it. Fetching and building takes minutes the first time, so only `make interop` does it."""

    def __init__(self, out: Path) -> None:
        if not REQUIRED:
            unavailable("dubbo-go takes minutes to build: make interop does it")
        self._out = out
        self._count = 0
        self._program = str(out / "dubbo-peers")
        build([program("go"), "build", "-o", self._program, "."], "the peers of dubbo-go", cwd=PROJECT, timeout=BUILD_S)

    def _start(self, *arguments: str) -> Program:
        self._count += 1
        return Program([self._program, *arguments], self._out / f"{self._count}-{arguments[0]}.log")

    def provider(self, name: str) -> Provider:
        return Provider(self._start("provider", str(free_port()), name))

    def consumer(self, port: int) -> GoConsumer:
        return GoConsumer(self._start("consumer", f"dubbo://127.0.0.1:{port}"))


class GoConsumer:
    """A consumer of one address."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._runs = 0

    def run(self, scenarios: str, **options: object) -> Results:
        """Makes the calls of the scenarios."""
        self._runs += 1
        mine = f"run{self._runs}"
        self.program.tell(" ".join([mine, scenarios, *(f"{name}={value}" for name, value in options.items())]))
        return self.program.results(mine)

    def kill(self) -> None:
        self.program.kill()
