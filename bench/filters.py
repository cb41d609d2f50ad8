"""CPU that each HTTP filter adds to a request: one mesh-proxy, one listener per filter, all under wrk in turns (`make
bench-filters`).

Every round begins with the bare router, and a filter's cost is the difference to the bare router of the same round. Printed
are medians over the rounds. The machine should be quiet: what others do shows in caches and clock speed even though only CPU
time is counted. Needs wrk, nginx.
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

MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP = "type.googleapis.com/envoy.extensions.filters.http."
ROUTER = f'{{name: router, typed_config: {{"@type": {HTTP}router.v3.Router}}}}'
STRUCT = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.'
ON = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"
LABEL = (
    f"{{name: l, typed_config: {{{STRUCT}TrafficLabel, value: {{labels: [{{name: x-mesh-tag, sources: "
    '[{header: x-mesh-tag}, {trace: true}, {expression: "header user-id % 100 == 20", value: gray}]}], clear_route: false}}}'
)
REMEMBER = (
    f"{{name: r, typed_config: {{{STRUCT}TrafficLabel, value: {{labels: [{{name: x-mesh-tag, sources: "
    "[{constant: gray}], remember: true}], trace_ids: [x-request-id]}}}"
)
WEAK = "min_rtt_calc_params: {fixed_value: 1s, min_concurrency: 1000}"
LIMITS = f"gradient_controller_config: {{concurrency_limit_params: {{concurrency_update_interval: 1s}}, {WEAK}}}"


def ours(name: str, value: str) -> str:
    """A filter of ours with one rule."""
    return f"{{name: {name}, typed_config: {{{STRUCT}{name}, value: {{rules: [{value}]}}}}}}"


TAGS = f"{{name: t, typed_config: {{{STRUCT}TagRouter, value: {{key: version, base: trunk}}}}}}"


def envoys(name: str, fields: str = "") -> str:
    """A filter of Envoy."""
    return f'{{name: {name}, typed_config: {{"@type": {HTTP}{name}.v3.{fields}}}}}'


CHAINS = {
    "bare": (),
    "header_mutation": (
        envoys("header_mutation", "HeaderMutation, mutations: {request_mutations: [{append: {header: {key: x-a, value: b}}}]}"),
    ),
    "fault (0 %)": (envoys("fault", "HTTPFault, abort: {http_status: 503, percentage: {numerator: 0}}"),),
    "cors (no policy)": (envoys("cors", "Cors"),),
    "buffer (no body)": (envoys("buffer", "Buffer, max_request_bytes: 1000"),),
    "local_ratelimit": (
        envoys(
            "local_ratelimit",
            f"LocalRateLimit, stat_prefix: rl, {ON}, token_bucket: "
            "{max_tokens: 1000000000, tokens_per_fill: 1000000000, fill_interval: 1s}",
        ),
    ),
    "adaptive_concurrency": (envoys("adaptive_concurrency", f"AdaptiveConcurrency, {LIMITS}"),),
    "admission_control": (envoys("admission_control", "AdmissionControl, success_criteria: {}"),),
    "ip_tagging": (
        envoys("ip_tagging", "IPTagging, ip_tags: [{ip_tag_name: t, ip_list: [{address_prefix: 127.0.0.0, prefix_len: 8}]}]"),
    ),
    "Pacing (no wait)": (ours("Pacing", "{rate: 1000000}"),),
    "HotParameters": (ours("HotParameters", "{by: [{header: user-id}], rate: 1000000}"),),
    "ConcurrencyLimit by call": (ours("ConcurrencyLimit", "{by: [call], max: 1000}"),),
    "CircuitBreaker by call": (ours("CircuitBreaker", "{by: [call], kind: error_ratio, threshold: 0.5}"),),
    "traffic_label": (LABEL,),
    "traffic_label, remembering": (REMEMBER,),
    "tag_router": (TAGS,),
    "label and tag_router": (LABEL, TAGS),
}


def configuration(ports: dict[str, int], upstream: int) -> str:
    """One listener per chain."""
    lines = ["static_resources:", "  listeners:"]
    for name, filters in CHAINS.items():
        lines += [
            f"  - name: '{name}'",
            f"    address: {{socket_address: {{address: 127.0.0.1, port_value: {ports[name]}}}}}",
            "    filter_chains:",
            "    - filters:",
            "      - name: http",
            "        typed_config:",
            f'          "@type": {MANAGER}',
            "          stat_prefix: bench",
            "          route_config:",
            "            virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: a}}]}]",
            f"          http_filters: [{', '.join((*filters, ROUTER))}]",
        ]
    address = f"{{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}"
    ends = ", ".join(
        f"{{endpoint: {address}, metadata: {{filter_metadata: {{envoy.lb: {{version: {version}}}}}}}}}"
        for version in ("trunk", "gray")
    )
    lines += [
        "  clusters:",
        f"  - {{name: a, connect_timeout: 1s, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: [{ends}]}}]}}}}",
    ]
    return "\n".join(lines) + "\n"


def load(port: int, connections: int, seconds: int) -> int:
    """Keep-alive GETs of a user whose label is gray; the number answered."""
    command = [programs.find("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-H", "user-id: 120"]
    text = subprocess.run([*command, f"http://127.0.0.1:{port}/"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"wrk saw errors:\n{text}")
    return int(text.split(" requests in")[0].split()[-1])


def main() -> int:
    """Run and print; exit code 77 (skipped) when something is not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each chain (default: 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of a turn (default: 3)")
    parser.add_argument("--chains", nargs="+", choices=list(CHAINS), help="beside the bare router (default: all)")
    parser.add_argument("--connections", type=int, default=16, help="keep-alive connections (default: 16)")
    options = parser.parse_args()
    try:
        run(["bare", *(options.chains or list(CHAINS)[1:])], options.rounds, options.seconds, options.connections)
    except programs.Missing as missing:
        print(f"{missing}: the benchmark is skipped", file=sys.stderr)
        return 77
    return 0


def run(chains: list[str], rounds: int, seconds: int, connections: int) -> None:
    """All rounds, with the proxy on other cores than the load where there are enough."""
    cores = programs.Cores.of_machine(1)
    with programs.scratch() as folder, ExitStack() as stack, programs.pinned(cores.load):
        upstream = programs.free_port()
        stack.enter_context(programs.nginx_upstream(upstream, folder))
        ports = {name: programs.free_port() for name in CHAINS}
        config = folder / "filters.yaml"
        config.write_text(configuration(ports, upstream))
        pid = stack.enter_context(programs.running(programs.ours(config), ports["bare"], folder, cores.proxy)).pid
        costs: dict[str, list[float]] = {name: [] for name in chains}
        for name in chains:
            load(ports[name], connections, 1)
        for _ in range(rounds):
            for name in chains:
                before = cost.cpu_seconds(pid)
                requests = load(ports[name], connections, seconds)
                costs[name].append((cost.cpu_seconds(pid) - before) / requests * 1e6)
        bare = statistics.median(costs["bare"])
        print(f"{'filters':>28} {'CPU us/request':>22} {'added':>7} {'added':>7}")
        for name, figures in costs.items():
            added = statistics.median(a - b for a, b in zip(figures, costs["bare"], strict=True))
            spread = f"{statistics.median(figures):.1f} ({min(figures):.1f}-{max(figures):.1f})"
            print(f"{name:>28} {spread:>22} {added:>7.1f} {100 * added / bare:>6.0f}%")


if __name__ == "__main__":
    sys.exit(main())
