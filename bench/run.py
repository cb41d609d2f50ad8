"""CPU, latency and memory of mesh-proxy against Envoy (and nginx or nghttpx) in the same run: `make bench`.

All programs get an equivalent configuration and take turns under the same load for several rounds, so that a slow moment of the
machine hits all. CPU is user and system time of all processes of a program; a figure is the median of the rounds with the least
and the most, and counts only as the ratio to Envoy in the same run. Wants a machine without other work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import programs, report
from harness.comparison import Result, Workload, compare
from rich.console import Console
from workloads import dubbo, http1, http2, tcp, tls

NOT_INSTALLED = 77
WORKLOADS: tuple[Workload, ...] = (
    http1.Get(),
    http1.Post(1 << 10),
    http1.Post(64 << 10),
    http1.Post(1 << 20),
    http1.Large(),
    http1.NewConnections(),
    http1.AccessLog(),
    http1.RateLimit(),
    http1.TagRouting(),
    http1.Routes(10),
    http1.Routes(10_000),
    http2.Http2(http2_upstream=False),
    http2.Http2(http2_upstream=True),
    http2.Large(),
    http2.Grpc(),
    http2.GrpcStream(),
    dubbo.Dubbo(),
    dubbo.Unique(),
    dubbo.ByMethod(),
    dubbo.Argument4k(),
    tcp.TcpBulk(),
    *tls.all_workloads(),
)
QUICK = {"http1": ("32",), "http2": ("8x16",), "grpc": ("8x16",), "dubbo": ("8x8",), "tcp-bulk": ("8",)}
"""workload -> points of `--quick`"""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="names or beginnings of names (default: all)")
    parser.add_argument("--list", action="store_true", help="name the workloads and their points")
    parser.add_argument("--quick", action="store_true", help="one point of five workloads, two rounds of two seconds")
    parser.add_argument("--points", nargs="+", help="instead of a workload's own")
    parser.add_argument("--programs", nargs="+", choices=list(programs.PROGRAMS), help="(default: all that can be had)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: 4)")
    parser.add_argument("--workers", type=int, default=1, help="workers of each program (default: 1)")
    parser.add_argument("--paced", action="store_true", help="also latency at half of Envoy's rate")
    parser.add_argument("--json", type=Path, help="write all rounds to this file")
    parser.add_argument("--chart", type=Path, help="draw the ratios into this file (.png, .svg)")
    return parser.parse_args()


def chosen(words: list[str], quick: bool) -> list[Workload]:
    """The workloads that the words name. Raises SystemExit for a word that names none."""
    if quick and not words:
        return [one for one in WORKLOADS if one.name in QUICK]
    if not words:
        return list(WORKLOADS)
    for word in words:
        if not any(one.name.startswith(word) for one in WORKLOADS):
            raise SystemExit(f"no workload begins with {word!r}: {', '.join(one.name for one in WORKLOADS)}")
    exact = {one.name for one in WORKLOADS}
    return [
        one for one in WORKLOADS if any(one.name == word or (word not in exact and one.name.startswith(word)) for word in words)
    ]


def available(workload: Workload, asked: list[str] | None) -> Iterator[str]:
    """The programs for a workload; one that is missing is left out with a word on it, unless it was asked for by name."""
    for name in asked or ("mesh-proxy", "mesh-proxy compiled", "envoy", *workload.rivals):
        if name not in ("mesh-proxy", "mesh-proxy compiled", "envoy", *workload.rivals):
            continue
        try:
            programs.command(name, Path("/"), 1)
        except programs.Missing as missing:
            if asked:
                raise
            print(f"{workload.name}: without {name}: {missing}", file=sys.stderr)
            continue
        yield name


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    options = parse()
    if options.list:
        for one in WORKLOADS:
            print(f"{one.name:<20} {' '.join(one.points)}")
        return 0
    rounds, seconds = (2, 2.0) if options.quick else (options.rounds, options.seconds)
    console = Console(width=None if sys.stdout.isatty() else 130)
    results: list[Result] = []
    used: list[str] = []
    try:
        for workload in chosen(options.workloads, options.quick):
            names = list(available(workload, options.programs))
            used += names
            points = options.points or (QUICK.get(workload.name, workload.points[:1]) if options.quick else workload.points)
            found = compare(workload, names, points, rounds, seconds, options.workers, options.paced)
            report.show(found, console)
            results += found
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return NOT_INSTALLED
    about = report.circumstances(used)
    console.print(", ".join(f"{name} {value}" for name, value in about.items()))
    if options.json:
        options.json.write_text(report.to_json(results, about))
    if options.chart:
        report.chart(results, about, options.chart)
    return 0


if __name__ == "__main__":
    sys.exit(main())
