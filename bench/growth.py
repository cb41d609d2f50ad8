"""What clusters and idle connections cost, in time and memory, against Envoy: `make bench-growth`.

Clusters: seconds from the start of the program until its listener answers, and PSS then. Connections: PSS per idle keep-alive
connection, each of which has had one request. PSS is that of all processes of a program.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import cost, programs
from harness.comparison import REFERENCE
from rich.console import Console
from rich.table import Table
from run import NOT_INSTALLED
from workloads import configuration as c

ANSWER_DEADLINE_S = 60.0
SPARE_FDS = 1000
_REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"


def _answered(port: int) -> socket.socket:
    """A connection whose first request was answered. Raises OSError."""
    connection = socket.create_connection(("127.0.0.1", port), ANSWER_DEADLINE_S)
    connection.sendall(_REQUEST)
    head = connection.recv(65536)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"port {port} answered {head!r}")
    return connection


def clusters(name: str, count: int) -> tuple[float, float]:
    """Seconds until the first answer and PSS in MiB with a number of clusters, each with its route."""
    with programs.scratch() as folder:
        port, upstream = programs.free_port(), programs.free_port()
        config = folder / "bootstrap.yaml"
        made = [c.cluster(f"cluster-{i}", c.endpoint(upstream)) for i in range(count)]
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
        config.write_text(c.bootstrap(port, programs.free_port(), c.http_manager([answer]), made))
        started = time.monotonic()
        with programs.running(programs.command(name, config, 1), port, folder) as process:
            _answered(port).close()
            return time.monotonic() - started, cost.pss_mib(process.pid)


def connections(name: str, counts: list[int]) -> list[tuple[int, float]]:
    """PSS in MiB without and with so many idle connections."""
    with programs.scratch() as folder:
        port = programs.free_port()
        config = folder / "bootstrap.yaml"
        answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
        config.write_text(c.bootstrap(port, programs.free_port(), c.http_manager([answer]), []))
        opened: list[socket.socket] = []
        figures = []
        with programs.running(programs.command(name, config, 1), port, folder) as process:
            try:
                for count in (1, *counts):
                    while len(opened) < count:
                        opened.append(_answered(port))
                    figures.append((count, cost.pss_mib(process.pid)))
            finally:
                for one in opened:
                    one.close()
        return figures


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, nargs="*", default=[10, 10_000], help="(default: 10 10000)")
    parser.add_argument("--connections", type=int, nargs="*", default=[100, 1000, 10_000], help="(default: 100 1000 10000)")
    parser.add_argument(
        "--programs", nargs="+", choices=["mesh-proxy", "mesh-proxy compiled", "envoy"], default=["mesh-proxy", REFERENCE]
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    counts = [count for count in options.connections if count + SPARE_FDS < limit]
    try:
        table = Table("clusters", "program", "seconds to the first answer", "PSS MiB", title="clusters", title_justify="left")
        for count in options.clusters:
            for name in options.programs:
                seconds, memory = clusters(name, count)
                table.add_row(str(count), name, f"{seconds:.2f}", f"{memory:.1f}")
        console.print(table)
        table = Table("connections", "program", "PSS MiB", "KiB each", title="idle connections", title_justify="left")
        for name in options.programs:
            (_, idle), *others = connections(name, counts)
            table.add_row("1", name, f"{idle:.1f}", "")
            for count, memory in others:
                table.add_row(str(count), name, f"{memory:.1f}", f"{(memory - idle) * 1024 / count:.1f}")
        console.print(table)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return NOT_INSTALLED
    return 0


if __name__ == "__main__":
    sys.exit(main())
