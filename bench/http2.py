"""CPU per HTTP/2 request, against Envoy in the same run: `make bench-http2`.

Both programs get the same configuration (one listener that detects the protocol, one route, one cluster, no access log, one
worker) and take turns under h2load for several rounds, so that a slow moment of the machine hits both. A point is connections x
streams. Printed are the medians and their ratio; CPU is that of all processes of a program, supervisor included. Needs h2load,
nginx and Envoy.
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
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{{protocol}: {{}}}}
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]
"""
PROTOCOLS = {"http1": "http_protocol_options", "http2": "http2_protocol_options"}
POINTS = ("8x1", "8x16", "32x4")


def load(port: int, point: str, seconds: float) -> int:
    """GETs with h2load; the number of requests answered. Raises RuntimeError on errors of the proxy."""
    connections, streams = point.split("x")
    command = [programs.find("h2load", "nghttp2-client"), "-c", connections, "-m", streams, "-D", f"{seconds:g}"]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if found is None or int(found.group(3)) or int(found.group(4)) or int(found.group(5)) or found.group(1) != found.group(2):
        raise RuntimeError(f"h2load saw errors:\n{text}")
    return int(found.group(1))


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=list(POINTS), help="connections x streams (default: 8x1 8x16 32x4)")
    parser.add_argument("--upstreams", nargs="+", choices=sorted(PROTOCOLS), default=sorted(PROTOCOLS), help="(default: both)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn (default: 4)")
    options = parser.parse_args()
    try:
        for upstream in options.upstreams:
            run(upstream, options.points, options.rounds, options.seconds)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(protocol: str, points: list[str], rounds: int, seconds: float) -> None:
    """All rounds at all points."""
    with programs.scratch() as folder, ExitStack() as stack:
        upstream = programs.free_port()
        stack.enter_context(programs.nginx_upstream(upstream, folder, http2=protocol == "http2"))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        for name, command in (("mesh-proxy", programs.ours), ("envoy", programs.envoy)):
            ports[name] = programs.free_port()
            config = folder / f"{name}.yaml"
            text = CONFIG.format(admin=programs.free_port(), port=ports[name], upstream=upstream, protocol=PROTOCOLS[protocol])
            config.write_text(text)
            pids[name] = stack.enter_context(programs.running(command(config), ports[name], folder)).pid
        print(f"upstream {protocol}")
        print(f"{'point':>11} {'program':>11} {'CPU us/request':>22} {'requests/s':>11} {'PSS MiB':>8}")
        for point in points:
            figures = measure(pids, ports, point, rounds, seconds)
            for name, (costs, rates) in figures.items():
                memory = cost.pss_mib(pids[name])
                spread = f"{statistics.median(costs):.1f} ({min(costs):.1f}-{max(costs):.1f})"
                print(f"{point:>11} {name:>11} {spread:>22} {statistics.median(rates):>11.0f} {memory:>8.1f}")
            ratios = [a / b for a, b in zip(figures["mesh-proxy"][0], figures["envoy"][0], strict=True)]
            print(f"{point:>11} {'ratio':>11} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", flush=True)


def measure(
    pids: dict[str, int], ports: dict[str, int], point: str, rounds: int, seconds: float
) -> dict[str, tuple[list[float], list[float]]]:
    """CPU microseconds per request and requests per second of each round, by program."""
    figures: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in pids}
    for name in pids:
        load(ports[name], point, 1.0)
    for _ in range(rounds):
        for name, pid in pids.items():
            before, started = cost.cpu_seconds(pid), time.monotonic()
            requests = load(ports[name], point, seconds)
            elapsed = time.monotonic() - started
            figures[name][0].append((cost.cpu_seconds(pid) - before) / requests * 1e6)
            figures[name][1].append(requests / elapsed)
    return figures


if __name__ == "__main__":
    sys.exit(main())
