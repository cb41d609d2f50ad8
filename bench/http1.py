"""CPU per HTTP/1.1 request, against Envoy in the same run: `make bench-http1`.

Both programs get the same configuration (one listener, one route, one cluster, no access log, one worker) and take turns under
wrk for several rounds, so that a slow moment of the machine hits both. Printed are the medians and their ratio; CPU is that of
all processes of a program, supervisor included. Needs wrk, nginx and Envoy.
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

CONFIG = """\
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: bench
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: upstream}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]
"""


def load(port: int, connections: int, seconds: float) -> int:
    """Keep-alive GETs with wrk; the number of requests answered. Raises RuntimeError on errors of the proxy."""
    command = [programs.find("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s", f"http://127.0.0.1:{port}/"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) requests in", text)
    if found is None or "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"wrk saw errors:\n{text}")
    return int(found.group(1))


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[32], help="keep-alive connections (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: 4)")
    options = parser.parse_args()
    try:
        run(options.connections, options.rounds, options.seconds)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(points: list[int], rounds: int, seconds: float) -> None:
    """All rounds at all points."""
    with programs.scratch() as folder, ExitStack() as stack:
        upstream = programs.free_port()
        stack.enter_context(programs.nginx_upstream(upstream, folder))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for name, command in (("mesh-proxy", programs.ours), ("envoy", programs.envoy)):
            ports[name] = programs.free_port()
            config = folder / f"{name}.yaml"
            config.write_text(CONFIG.format(admin=programs.free_port(), port=ports[name], upstream=upstream))
            pids[name] = stack.enter_context(programs.running(command(config), ports[name], folder)).pid
        print(f"{'connections':>11} {'program':>11} {'CPU us/request':>22} {'requests/s':>11} {'PSS MiB':>8}")
        for connections in points:
            figures = measure(pids, ports, connections, rounds, seconds)
            for name, (costs, rates) in figures.items():
                memory = cost.pss_mib(pids[name])
                spread = f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
                print(f"{connections:>11} {name:>11} {spread:>22} {statistics.median(rates):>11.0f} {memory:>8.1f}")
            ratios = [a / b for a, b in zip(figures["mesh-proxy"][0], figures["envoy"][0], strict=True)]
            print(f"{connections:>11} {'ratio':>11} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def measure(
    pids: dict[str, int], ports: dict[str, int], connections: int, rounds: int, seconds: float
) -> dict[str, tuple[list[float], list[float]]]:
    """CPU microseconds per request and requests per second of each round, by program."""
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pids}
    for name in pids:
        load(ports[name], connections, 1.0)
    for _ in range(rounds):
        for name, pid in pids.items():
            before, started = cost.cpu_seconds(pid), time.monotonic()
            requests = load(ports[name], connections, seconds)
            elapsed = time.monotonic() - started
            figures[name][0].append((cost.cpu_seconds(pid) - before) / requests * 1e6)
            figures[name][1].append(requests / elapsed)
    return figures


if __name__ == "__main__":
    sys.exit(main())
