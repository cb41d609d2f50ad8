"""What the demo shows: the table, and how to go on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mesh_proxy.demo.bootstrap import Ports
from mesh_proxy.demo.denials import Denials
from mesh_proxy.demo.scenario import FLAKY_EVERY, RETRIED, SIDECAR, Result, percentile
from mesh_proxy.demo.upgrade import UpgradeResult

_COLUMNS = "{:<24} {:>8}  {:<22}  {:<12} {:>7} {:>7} {:>7} {:>8}"
_QUANTILES = (50, 95, 99)


@dataclass(slots=True)
class Report:
    """Everything that was found."""

    results: Mapping[str, Result]
    """by rule name"""
    direct: Sequence[float]
    """seconds per request to v1 without the sidecar"""
    seconds: float
    """how long the requests took together"""
    retries: int
    """made by the sidecar, by its own counter"""
    counted: int
    """requests by the sidecar's own counter"""
    memory: Mapping[str, int]
    """role -> PSS in bytes"""
    dubbo: Mapping[str, Result] = field(default_factory=dict)
    """the same for Dubbo calls"""
    dubbo_counted: int = 0
    """Dubbo calls by the sidecar's own counter"""
    dubbo_connections: int = 0
    """upstream connections that it opened for them"""
    grpc: Mapping[str, Result] = field(default_factory=dict)
    """the same for gRPC calls"""
    grpc_counted: int = 0
    """gRPC calls by the sidecar's own counter"""
    denials: Denials | None = None
    upgrade: UpgradeResult | None = None
    problems: list[str] = field(default_factory=list)
    """what is not as it must be"""

    def _all(self) -> tuple[Result, ...]:
        return (*self.results.values(), *self.dubbo.values(), *self.grpc.values())

    def _passed(self) -> int:
        """How many requests and calls had to reach the services' sidecar."""
        return self.retries + sum(result.sent for result in self._all() if SIDECAR not in result.rule.shares)

    def check(self) -> None:
        """Compare with the rules, and the caller's count with the sidecar's."""
        for result in self._all():
            self.problems += result.problems()
        sent = sum(result.sent for result in self.results.values())
        if self.counted != sent:
            self.problems.append(f"the sidecar counted {self.counted} requests, {sent} were sent")
        calls = sum(result.sent for result in self.dubbo.values())
        if self.dubbo_counted != calls:
            self.problems.append(f"the sidecar counted {self.dubbo_counted} Dubbo calls, {calls} were sent")
        calls = sum(result.sent for result in self.grpc.values())
        if self.grpc_counted != calls:
            self.problems.append(f"the sidecar counted {self.grpc_counted} gRPC calls, {calls} were sent")
        wanted = self.results[RETRIED.name].sent // FLAKY_EVERY
        if self.retries != wanted:
            self.problems.append(f"{self.retries} retries by the sidecar's count, {wanted} were needed")
        if self.denials is not None:
            self.problems += self.denials.problems(self._passed())
        if self.upgrade is not None:
            self.problems += self.upgrade.problems()

    def text(self) -> str:
        """For a terminal."""
        lines = [
            _COLUMNS.format("rule", "requests", "answered by", "expected", "p50 ms", "p95 ms", "p99 ms", "failures"),
            _COLUMNS.format("-" * 24, "-" * 8, "-" * 22, "-" * 12, *["-" * 7] * 3, "-" * 8),
        ]
        denied = tuple(self.denials.results.values()) if self.denials is not None else ()
        for result in (*self._all(), *denied):
            times = _milliseconds(result.latencies)
            names = list(result.rule.shares)
            for index, name in enumerate(names):
                share = result.rule.shares[name]
                count = result.answered[name]
                cells = [f"{name:<7} {count:>6} {count / max(1, result.answered.total()):>7.1%}", f"{name} {share:.0%}"]
                if index == 0:
                    row = [result.rule.name, result.sent, *cells, *times, result.failures.total()]
                else:
                    row = ["", "", *cells, "", "", "", ""]
                lines.append(_COLUMNS.format(*row).rstrip())
        if self.direct:
            row = ["(no sidecar, for scale)", len(self.direct), "v1", "", *_milliseconds(self.direct), 0]
            lines.append(_COLUMNS.format(*row))
        sent = sum(result.sent for result in self.results.values())
        lines += [
            "",
            f"{sent} requests in {self.seconds:.1f} s. By its own counters the sidecar had {self.counted} requests"
            f" and made {self.retries} retries that no caller saw.",
            f"Dubbo calls by its counters: {self.dubbo_counted}, over {self.dubbo_connections} connections to the services'"
            " sidecar.",
            f"gRPC calls by its counters: {self.grpc_counted}, on the port of the HTTP requests.",
        ]
        if self.denials is not None:
            lines.append(self.denials.text())
        if self.memory:
            parts = ", ".join(f"{name} {size / 2**20:.1f}" for name, size in self.memory.items())
            lines.append(f"Memory of the caller's sidecar: {sum(self.memory.values()) / 2**20:.1f} MiB PSS ({parts}).")
        if self.upgrade is not None:
            lines.append(self.upgrade.text())
        lines += [f"WRONG: {problem}" for problem in self.problems] or ["All as expected."]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "seconds": round(self.seconds, 3),
            "requests_counted_by_sidecar": self.counted,
            "retries": self.retries,
            "memory_pss_bytes": dict(self.memory),
            "direct_ms": _quantiles(self.direct),
            "rules": [
                {
                    "rule": result.rule.name,
                    "requests": result.sent,
                    "answered": dict(result.answered),
                    "expected": dict(result.rule.shares),
                    "failures": dict(result.failures),
                    "latency_ms": _quantiles(result.latencies),
                }
                for result in self._all()
            ],
            "grpc_calls_counted_by_sidecar": self.grpc_counted,
            "dubbo_calls_counted_by_sidecar": self.dubbo_counted,
            "denied_by_sidecar": self.denials.denied if self.denials is not None else None,
            "allowed_by_sidecar": self.denials.allowed if self.denials is not None else None,
            "upgrade": asdict(self.upgrade) if self.upgrade is not None else None,
        }


def _milliseconds(values: Sequence[float]) -> list[str]:
    return [f"{percentile(values, quantile) * 1000:.2f}" for quantile in _QUANTILES]


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {f"p{quantile}": round(percentile(values, quantile) * 1000, 3) for quantile in _QUANTILES}


def hints(ports: Ports, folder: Path) -> str:
    """What a newcomer may try while the demo is up."""
    certs = folder / "certs"
    guest = f"--cacert {certs}/root.pem --cert {certs}/guest.pem --key {certs}/guest.key --resolve shop-v1:{ports.shop}:127.0.0.1"
    at = f"http://127.0.0.1:{ports.listen}"
    admin = f"http://127.0.0.1:{ports.admin}"
    return f"""\
The sidecar is up. Try it:
  curl {at}/cart                        # v1, one time in ten v2
  curl -H 'x-version: v2' {at}/cart     # always v2
  curl {at}/about                       # the sidecar itself
  curl -i {at}/old/cart                 # a redirect
  curl {at}/flaky                       # never a 503
  curl '{admin}/stats?filter=upstream_rq'  # counters, by Envoy's names
  curl '{admin}/stats?filter=dubbo'        # calls of demo.Shop, on port {ports.dubbo}
  curl '{admin}/clusters' | grep grpc      # endpoints of the gRPC service, with their health
  curl -k {guest} https://shop-v1:{ports.shop}/cart   # another identity: 403
  curl -i http://127.0.0.1:{ports.shop}/cart           # plain text between sidecars: no
  curl '{admin}/certs'                         # who is who, and until when
  tail {folder}/access.log
  less {folder}/bootstrap.yaml {folder}/shop.yaml
Admin interface for the browser: {admin}/
Ctrl-C ends everything and removes the folder."""
