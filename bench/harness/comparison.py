"""Programs in turn under the same load, for several rounds: what a request cost, how long it took, what memory it needed."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from harness import cost, programs

WARM_UP_S = 1.0
REFERENCE = "envoy"
"""the program that all others are compared with"""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a load generator saw. Latencies are its p50, p99 and p99.9 in microseconds, where it can say them."""

    units: float
    seconds: float
    latencies_us: tuple[float, float, float] | None = None


@dataclass(slots=True)
class Series:
    """One program at one point: a value per round."""

    cpu_us: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    latencies_us: list[tuple[float, float, float]] = field(default_factory=list)
    pss_mib: float = 0.0

    def latency(self, place: int) -> float | None:
        """Median over the rounds of p50, p99 or p99.9 (0, 1, 2), in microseconds."""
        return statistics.median(one[place] for one in self.latencies_us) if self.latencies_us else None


@dataclass(slots=True)
class Result:
    """All programs at one point of one workload."""

    workload: str
    unit: str
    point: str
    series: dict[str, Series]
    paced_per_s: float | None = None
    """offered load when the generator held a rate; None when it sent as fast as it was answered"""

    def ratios(self, program: str, other: str = REFERENCE) -> list[float]:
        """CPU per unit of one program over that of another, round by round; empty when one of them did not run."""
        if program not in self.series or other not in self.series:
            return []
        return [a / b for a, b in zip(self.series[program].cpu_us, self.series[other].cpu_us, strict=True)]


@dataclass(slots=True)
class Bench:
    """What a workload needs to start its peers: they end with the stack."""

    folder: Path
    stack: ExitStack

    def run(self, command: list[str], port: int) -> None:
        """Start a peer and wait until it listens."""
        self.stack.enter_context(programs.running(command, port, self.folder))

    def nginx(self, *, http2: bool = False) -> int:
        """Start the upstream of the HTTP workloads; its port."""
        port = programs.free_port()
        self.stack.enter_context(programs.nginx_upstream(port, self.folder, http2=http2))
        return port


class Workload(ABC):
    """One kind of traffic through one configuration."""

    name: str
    unit: ClassVar[str] = "request"
    points: tuple[str, ...]
    rivals: ClassVar[tuple[str, ...]] = ()
    """programs beside ours and Envoy that do the same job"""
    paced: ClassVar[str] = ""
    """the point at which latency is also measured at half of Envoy's rate; empty for none"""

    @abstractmethod
    def start(self, bench: Bench) -> None:
        """Start what stands behind the proxy. Raises programs.Missing."""

    @abstractmethod
    def configuration(self, program: str, port: int, admin: int) -> str:
        """Text of the program's configuration file."""

    @abstractmethod
    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        """Send for some seconds, with `rate` units a second if given. Raises RuntimeError on any error of the proxy."""

    def aside(self, point: str) -> str:
        """A line on the load generator itself, measured without a proxy; empty for none."""
        return ""


def compare(
    workload: Workload,
    names: Sequence[str],
    points: Sequence[str],
    rounds: int,
    seconds: float,
    workers: int = 1,
    paced: bool = False,
) -> list[Result]:
    """All rounds at all points; programs take turns within each round, so that a slow moment of the machine hits all."""
    results = []
    with programs.scratch() as folder, ExitStack() as stack:
        cores = programs.Cores.of_machine(workers)
        stack.enter_context(programs.pinned(cores.load))
        workload.start(Bench(folder, stack))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for name in names:
            ports[name] = programs.free_port()
            config = folder / f"{name.replace(' ', '-')}.yaml"
            config.write_text(workload.configuration(name, ports[name], programs.free_port()))
            command = programs.command(name, config, workers)
            pids[name] = stack.enter_context(programs.running(command, ports[name], folder, cores.proxy)).pid
        for point in points:
            for name in names:
                workload.load(ports[name], point, WARM_UP_S)
            results.append(_rounds(workload, pids, ports, point, rounds, seconds, None))
        if paced and workload.paced and REFERENCE in pids:
            turns = [workload.load(ports[REFERENCE], workload.paced, seconds) for _ in range(min(rounds, 3))]
            rate = statistics.median(turn.units / turn.seconds for turn in turns) / 2
            results.append(_rounds(workload, pids, ports, workload.paced, rounds, seconds, rate))
    return results


def _rounds(
    workload: Workload, pids: dict[str, int], ports: dict[str, int], point: str, rounds: int, seconds: float, rate: float | None
) -> Result:
    series = {name: Series() for name in pids}
    for _ in range(rounds):
        for name, pid in pids.items():
            before, started = cost.cpu_seconds(pid), time.monotonic()
            turn = workload.load(ports[name], point, seconds, rate)
            elapsed = turn.seconds or time.monotonic() - started
            one = series[name]
            one.cpu_us.append((cost.cpu_seconds(pid) - before) / turn.units * 1e6)
            one.rates.append(turn.units / elapsed)
            if turn.latencies_us is not None:
                one.latencies_us.append(turn.latencies_us)
    for name, pid in pids.items():
        series[name].pss_mib = cost.pss_mib(pid)
    return Result(workload.name, workload.unit, point, series, rate)
