"""CPU per Dubbo call, against Envoy's dubbo_proxy in the same run: `make bench-dubbo`.

Both programs get the same configuration: one listener that routes by the attachment `dubbo.tag` to one of two clusters, one
worker, no access log. They take turns for several rounds, so that a slow moment of the machine hits both; printed are medians
and their ratio. Consumers and providers are `bench/peers/dubbo.go`, which checks that every call was answered by the provider of
its tag; the line `no proxy` shows how much faster than the proxies they are. Needs Go and Envoy.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import cost, programs

CONFIG = """\
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: bench
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.dubbo_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy
          stat_prefix: bench
          multiple_route_config:
            name: routes
            route_config:
            - name: hello
              interface: org.apache.dubbo.demo.HelloService
              routes:
              - match:
                  method: {{name: {{safe_regex: {{regex: ".*"}}}}}}
                  headers: [{{name: dubbo.tag, string_match: {{exact: gray}}}}]
                route: {{cluster: gray}}
              - match: {{method: {{name: {{safe_regex: {{regex: ".*"}}}}}}}}
                route: {{cluster: base}}
  clusters:
  - name: base
    load_assignment:
      cluster_name: base
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {base}}}}}}}}}]}}]
  - name: gray
    load_assignment:
      cluster_name: gray
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {gray}}}}}}}}}]}}]
"""
Command = Callable[[Path], list[str]]
POINTS = ("8x1", "8x8", "100x1")
PEERS = Path(__file__).resolve().parent / "peers" / "dubbo.go"


def build(folder: Path) -> str:
    """The peers' program. Raises Missing without Go."""
    target = str(folder / "dubbo-peers")
    environment = {**os.environ, "GO111MODULE": "off"}
    subprocess.run([programs.find("go", "golang-go"), "build", "-o", target, str(PEERS)], check=True, env=environment, cwd=folder)
    return target


def load(
    peers: str, port: int, point: str, seconds: float, unique: bool, tags: tuple[str, ...] = ("gray=g", "=b")
) -> tuple[int, float]:
    """Calls that carry the tags in turn; how many were answered, in how many seconds. Raises RuntimeError on a wrong answer."""
    connections, in_flight = point.split("x")
    command = [peers, "load", f"127.0.0.1:{port}", connections, in_flight, f"{seconds:g}", *tags]
    ran = subprocess.run([*command, *(["unique"] if unique else [])], capture_output=True, text=True)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    calls, took = ran.stdout.split()
    return int(calls), float(took)


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=POINTS, help="connections x calls in flight on each")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn (default: 3)")
    parser.add_argument("--unique", action="store_true", help="every call has attachments of its own, as under tracing")
    parser.add_argument("--without-envoy", action="store_true", help="our own figures only")
    options = parser.parse_args()
    compared = {"mesh-proxy": programs.ours} if options.without_envoy else {"mesh-proxy": programs.ours, "envoy": programs.envoy}
    try:
        run(compared, options.points, options.rounds, options.seconds, options.unique)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(compared: dict[str, Command], points: list[str], rounds: int, seconds: float, unique: bool) -> None:
    """All rounds at all points."""
    with programs.scratch() as folder, ExitStack() as stack:
        peers = build(folder)
        providers = {letter: programs.free_port() for letter in "bg"}
        for letter, port in providers.items():
            command = [peers, "provide", f"127.0.0.1:{port}", letter]
            stack.enter_context(programs.running(command, port, folder))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for name, program in compared.items():
            ports[name] = programs.free_port()
            config = folder / f"{name}.yaml"
            text = CONFIG.format(admin=programs.free_port(), port=ports[name], base=providers["b"], gray=providers["g"])
            config.write_text(text)
            pids[name] = stack.enter_context(programs.running(program(config), ports[name], folder)).pid
        print(f"{'point':>8} {'program':>11} {'CPU us/call':>22} {'calls/s':>10} {'PSS MiB':>8}")
        for point in points:
            calls, took = load(peers, providers["b"], point, 1.0, unique, ("=b",))
            print(f"{point:>8} {'no proxy':>11} {'':>22} {calls / took:>10.0f}")
            figures = measure(peers, pids, ports, point, rounds, seconds, unique)
            for name, (costs, rates) in figures.items():
                spread = f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
                memory = cost.pss_mib(pids[name])
                print(f"{point:>8} {name:>11} {spread:>22} {statistics.median(rates):>10.0f} {memory:>8.1f}")
            if "envoy" not in figures:
                continue
            ratios = [a / b for a, b in zip(figures["mesh-proxy"][0], figures["envoy"][0], strict=True)]
            print(f"{point:>8} {'ratio':>11} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


def measure(
    peers: str, pids: dict[str, int], ports: dict[str, int], point: str, rounds: int, seconds: float, unique: bool
) -> dict[str, tuple[list[float], list[float]]]:
    """CPU microseconds per call and calls per second of each round, by program."""
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pids}
    for name in pids:
        load(peers, ports[name], point, 0.5, unique)
    for _ in range(rounds):
        for name, pid in pids.items():
            before = cost.cpu_seconds(pid)
            calls, took = load(peers, ports[name], point, seconds, unique)
            figures[name][0].append((cost.cpu_seconds(pid) - before) / calls * 1e6)
            figures[name][1].append(calls / took)
    return figures


if __name__ == "__main__":
    sys.exit(main())
