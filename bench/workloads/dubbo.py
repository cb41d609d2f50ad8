"""Dubbo calls of bench/peers/dubbo.go, which checks each answer. A point is connections x calls in flight on each."""

from __future__ import annotations

import subprocess

from harness import programs
from harness.comparison import Bench, Turn, Workload
from harness.generators import GRACE_S

from workloads import configuration as c
from workloads.http2 import build

_ALL = {"name": {"safe_regex": {"regex": ".*"}}}
_LIMITS = ("max_connections", "max_pending_requests", "max_requests")
MANY = 1_000_000
"""what circuit breakers let pass: under a fixed rate a pause of a busy machine lets more calls pile up than the usual 1024"""
SERVICE = "org.apache.dubbo.demo.HelloService"


class Dubbo(Workload):
    """`sayHello` with the attachments of a consumer, routed by the attachment `dubbo.tag` to one of two clusters, half each."""

    name = "dubbo"
    unit = "call"
    points = ("8x1", "8x8", "100x1")
    paced = "8x8"
    tags: tuple[str, ...] = ("gray=g", "=b")
    options: tuple[str, ...] = ()

    def start(self, bench: Bench) -> None:
        self.peers = build("dubbo", bench.folder)
        self.providers = {letter: programs.free_port() for letter in "bg"}
        for letter, port in self.providers.items():
            bench.run([self.peers, "provide", f"127.0.0.1:{port}", letter], port)

    def routes(self) -> list[c.Json]:
        """Of Envoy's dubbo_proxy."""
        tagged = {"method": _ALL, "headers": [{"name": "dubbo.tag", "string_match": {"exact": "gray"}}]}
        return [{"match": tagged, "route": {"cluster": "gray"}}, {"match": {"method": _ALL}, "route": {"cluster": "base"}}]

    def configuration(self, program: str, port: int, admin: int) -> str:
        table = {"name": "hello", "interface": SERVICE, "routes": self.routes()}
        typed = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.DubboProxy",
            "stat_prefix": "bench",
            "multiple_route_config": {"name": "routes", "route_config": [table]},
        }
        breakers = {"circuit_breakers": {"thresholds": [dict.fromkeys(_LIMITS, MANY)]}}
        clusters = [c.cluster(name, c.endpoint(self.providers[name[0]])) | breakers for name in ("base", "gray")]
        return c.bootstrap(port, admin, {"name": "envoy.filters.network.dubbo_proxy", "typed_config": typed}, clusters)

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        connections, in_flight = point.split("x")
        command = [self.peers, "load", f"127.0.0.1:{port}", connections, in_flight, f"{seconds:g}", *self.tags, *self.options]
        if rate is not None:
            command.append(f"rate={rate:.0f}")
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr)
        calls, took, *latencies = (float(word) for word in ran.stdout.split())
        return Turn(calls, took, (latencies[0], latencies[1], latencies[2]) if latencies else None)

    def aside(self, point: str) -> str:
        """How much faster the peers are than any proxy: they are not what is measured."""
        connections, in_flight = point.split("x")
        command = [self.peers, "load", f"127.0.0.1:{self.providers['b']}", connections, in_flight, "1", "=b"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=GRACE_S, check=True)
        calls, took = (float(word) for word in ran.stdout.split()[:2])
        return f"without a proxy the peers do {calls / took:,.0f} calls/s"


class Unique(Dubbo):
    """Attachments that no other call has, as under tracing."""

    name = "dubbo-unique"
    paced = ""
    options = ("unique",)


class ByMethod(Dubbo):
    """Routed by method name only: no attachment is looked at."""

    name = "dubbo-method"
    points = ("8x8",)
    paced = ""
    tags = ("=b",)

    def routes(self) -> list[c.Json]:
        exact = {"name": {"exact": "sayHello"}}
        return [
            {"match": {"method": exact}, "route": {"cluster": "base"}},
            {"match": {"method": _ALL}, "route": {"cluster": "gray"}},
        ]


class Argument4k(Dubbo):
    """An argument of 4 KiB."""

    name = "dubbo-4k"
    points = ("8x8",)
    paced = ""
    options = ("argument=4096",)
