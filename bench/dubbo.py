"""CPU per Dubbo call, routed by the attachment `dubbo.tag`, against Envoy's dubbo_proxy in the same run: `make bench-dubbo`.

Both programs get the same configuration (one listener; calls with the tag `gray` go to one cluster, all others to another; no
access log, one worker) and take turns under load for several rounds. Printed are the medians and their ratio; CPU is that of all
processes of a program, supervisor included.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import cost, programs

PEERS = str(Path(__file__).resolve().parent / "harness/dubbo_peers.py")
TYPE = "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy"
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
          "@type": {type}.v3.DubboProxy
          stat_prefix: bench
          route_config:
          - name: all
            interface: demo.HelloService
            routes:
            - match:
                method: {{name: {{exact: sayHello}}}}
                headers: [{{name: dubbo.tag, string_match: {{exact: gray}}}}]
              route: {{cluster: gray}}
            - match: {{method: {{name: {{exact: sayHello}}}}}}
              route: {{cluster: plain}}
          dubbo_filters:
          - name: envoy.filters.dubbo.router
            config: {{"@type": {type}.router.v3.Router}}
  clusters:
  - name: gray
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: gray
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]
  - name: plain
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: plain
      endpoints:
      - lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]
"""


def load(port: int, connections: int, in_flight: int, seconds: float) -> int:
    """The number of calls answered. Raises RuntimeError when one was refused."""
    command = [sys.executable, PEERS, "load", str(port), str(connections), str(in_flight), str(seconds)]
    answered, wrong = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    if wrong or not answered:
        raise RuntimeError(f"{wrong} of {answered} calls were refused")
    return answered


def main() -> int:
    """Run and print; exit code 0 when it ran, 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=["8x1", "8x8", "100x1"], help="connections x in flight")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each program (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn (default: 3)")
    parser.add_argument("--without-envoy", action="store_true", help="our own figures only")
    options = parser.parse_args()
    try:
        run(options.points, options.rounds, options.seconds, with_envoy=not options.without_envoy)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(points: list[str], rounds: int, seconds: float, *, with_envoy: bool) -> None:
    """All rounds at all points."""
    with programs.scratch() as folder, ExitStack() as stack:
        upstream = programs.free_port()
        stack.enter_context(programs.running([sys.executable, PEERS, "provider", str(upstream)], upstream, folder))
        pids: dict[str, int] = {}
        ports: dict[str, int] = {}
        compared = [("mesh-proxy", programs.ours), *([("envoy", programs.envoy)] if with_envoy else [])]
        for name, command in compared:
            ports[name] = programs.free_port()
            config = folder / f"{name}.yaml"
            config.write_text(CONFIG.format(admin=programs.free_port(), port=ports[name], upstream=upstream, type=TYPE))
            pids[name] = stack.enter_context(programs.running(command(config), ports[name], folder)).pid
        print(f"{'connections x in flight':>23} {'program':>11} {'CPU us/call':>20} {'calls/s':>9} {'PSS MiB':>8}")
        for point in points:
            connections, in_flight = map(int, point.split("x"))
            costs: dict[str, list[float]] = {name: [] for name in pids}
            rates: dict[str, list[float]] = {name: [] for name in pids}
            for name in pids:
                load(ports[name], connections, in_flight, 0.5)
            for _ in range(rounds):
                for name, pid in pids.items():
                    before = cost.cpu_seconds(pid)
                    calls = load(ports[name], connections, in_flight, seconds)
                    costs[name].append((cost.cpu_seconds(pid) - before) / calls * 1e6)
                    rates[name].append(calls / seconds)
            for name, pid in pids.items():
                spread = f"{statistics.median(costs[name]):.1f} ({min(costs[name]):.1f}-{max(costs[name]):.1f})"
                rate, memory = statistics.median(rates[name]), cost.pss_mib(pid)
                print(f"{point:>23} {name:>11} {spread:>20} {rate:>9.0f} {memory:>8.1f}")
            if with_envoy:
                ratios = [a / b for a, b in zip(costs["mesh-proxy"], costs["envoy"], strict=True)]
                print(f"{point:>23} {'ratio':>11} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    sys.exit(main())
