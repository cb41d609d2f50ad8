"""CPU per unary gRPC call, against Envoy in the same run: `make bench-grpc`.

As bench/http2.py, with calls that have the form of gRPC: a POST with a framed message, answered by a message and trailers. The
upstream is bench/peers/grpc.go, which Go builds from its standard library. A point is connections x calls in flight on each.
Needs h2load, Go (1.24 or later) and Envoy.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import cost, programs
from http2 import CONFIG, POINTS, PROTOCOLS

MESSAGE = b"\x0a\x05world"
HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 5S", "user-agent: grpc-bench/1")


def load(port: int, point: str, seconds: float, body: Path) -> int:
    """Calls with h2load; how many were answered. Raises RuntimeError on errors of the proxy."""
    connections, streams = point.split("x")
    command = [programs.find("h2load", "nghttp2-client"), "-c", connections, "-m", streams, "-D", f"{seconds:g}", "-d", str(body)]
    for header in HEADERS:
        command += ["-H", header]
    text = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/helloworld.Greeter/SayHello"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if found is None or int(found.group(3)) or int(found.group(4)) or int(found.group(5)) or found.group(1) != found.group(2):
        raise RuntimeError(f"h2load saw errors:\n{text}")
    return int(found.group(1))


def build_upstream(folder: Path) -> Path:
    """The server, built by Go. Raises Missing."""
    source = Path(__file__).resolve().parent / "peers" / "grpc.go"
    program = folder / "grpc-upstream"
    built = subprocess.run(
        [programs.find("go", "golang"), "build", "-o", str(program), str(source)], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise programs.Missing(f"{source.name} could not be built:\n{built.stderr}")
    return program


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=list(POINTS), help="connections x calls (default: 8x1 8x16 32x4)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: 4)")
    options = parser.parse_args()
    try:
        run(options.points, options.rounds, options.seconds)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(points: list[str], rounds: int, seconds: float) -> None:
    """All rounds at all points."""
    with programs.scratch() as folder, ExitStack() as stack:
        upstream = programs.free_port()
        program = build_upstream(folder)
        body = folder / "message"
        body.write_bytes(b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE)
        stack.enter_context(programs.running([str(program), str(upstream)], upstream, folder))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for name, command in (("mesh-proxy", programs.ours), ("envoy", programs.envoy)):
            ports[name] = programs.free_port()
            config = folder / f"{name}.yaml"
            text = CONFIG.format(admin=programs.free_port(), port=ports[name], upstream=upstream, protocol=PROTOCOLS["http2"])
            config.write_text(text)
            pids[name] = stack.enter_context(programs.running(command(config), ports[name], folder)).pid
        print(f"{'point':>11} {'program':>11} {'CPU us/call':>22} {'calls/s':>11} {'PSS MiB':>8}")
        for point in points:
            figures = measure(pids, ports, point, rounds, seconds, body)
            for name, (costs, rates) in figures.items():
                spread = f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
                memory = cost.pss_mib(pids[name])
                print(f"{point:>11} {name:>11} {spread:>22} {statistics.median(rates):>11.0f} {memory:>8.1f}")
            ratios = [a / b for a, b in zip(figures["mesh-proxy"][0], figures["envoy"][0], strict=True)]
            print(f"{point:>11} {'ratio':>11} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


def measure(
    pids: dict[str, int], ports: dict[str, int], point: str, rounds: int, seconds: float, body: Path
) -> dict[str, tuple[list[float], list[float]]]:
    """CPU microseconds per call and calls per second of each round, by program."""
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pids}
    for name in pids:
        load(ports[name], point, 1.0, body)
    for _ in range(rounds):
        for name, pid in pids.items():
            before, started = cost.cpu_seconds(pid), time.monotonic()
            calls = load(ports[name], point, seconds, body)
            elapsed = time.monotonic() - started
            figures[name][0].append((cost.cpu_seconds(pid) - before) / calls * 1e6)
            figures[name][1].append(calls / elapsed)
    return figures


if __name__ == "__main__":
    sys.exit(main())
