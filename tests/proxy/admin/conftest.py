"""An admin interface over a supervisor that has no processes."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh_proxy.admin.endpoints import answer
from mesh_proxy.admin.exchange import AdminRequest, AdminResponse
from mesh_proxy.admin.server import AccessLog, AdminServer
from mesh_proxy.cli.options import Options
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.stats.aggregate import StatsAggregator, StatsSnapshot
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.groups import ListenerStats
from mesh_proxy.supervisor.configuration import Configuration
from mesh_proxy.supervisor.published import HistogramIntervals, PublishedStats
from mesh_proxy.supervisor.stage import Stage

BOOTSTRAP = """
node: {id: n1, cluster: c1, metadata: {A: b}}
layered_runtime: {layers: [{name: base, static_layer: {a: {b: 1, c: true}}}, {name: over, static_layer: {a: {b: 2}}}]}
static_resources:
  listeners:
  - name: main
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress_http
          route_config:
            name: r1
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: back}}]}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  - name: pipe
    address: {pipe: {path: "@somewhere"}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcpx
          cluster: back
  clusters:
  - name: back
    load_assignment:
      cluster_name: back
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]
  - {name: other, load_assignment: {cluster_name: other}}
"""

ENDPOINT = {
    "address": "127.0.0.1:80",
    "host": "127.0.0.1",
    "port": 80,
    "path": "",
    "hostname": "",
    "stats": {"cx_active": 1, "cx_connect_fail": 0, "cx_total": 2, "rq_active": 0, "rq_error": 0, "rq_success": 3, "rq_total": 3},
    "health_flags": [],
    "eds_health_status": "UNKNOWN",
    "weight": 1,
    "region": "r",
    "zone": "",
    "sub_zone": "",
    "canary": False,
    "priority": 0,
    "success_rate": -1.0,
    "local_origin_success_rate": -1.0,
}
LIMITS = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3}
CLUSTER = {
    "name": "back",
    "observability_name": "back",
    "kind": "STATIC",
    "eds_service_name": "",
    "added_via_api": False,
    "thresholds": {"default": LIMITS, "high": LIMITS},
    "outlier": None,
    "endpoints": [ENDPOINT],
}


class FakeSupervisor:
    """What the handlers ask of a supervisor, and a note of what they did."""

    def __init__(self, directory: Path) -> None:
        path = directory / "bootstrap.yaml"
        path.write_text(BOOTSTRAP)
        self.options = Options(config_path=str(path), concurrency=2)
        self.bootstrap = load_bootstrap(str(path))
        self.configuration = Configuration(None, self)  # type: ignore[arg-type]
        asyncio.run(self.configuration.load(self.bootstrap))
        self.stage = Stage.LIVE
        self.started_at = 1_700_000_000.5
        self.uptime_s = self.uptime_all_s = 5
        self.epoch = 0
        self.handover = SimpleNamespace(under_way=False, handed_over=False)
        self.done: list[tuple[Any, ...]] = []
        self.stats = PublishedStats(StatsAggregator())
        self.stats.configure(self.bootstrap.clusters)
        used = ClusterStats("cluster.back.")
        used.upstream_rq_total = used.upstream_cx_total = 3
        used.codes[200] = 3
        used.upstream_rq_time.record(7)
        self.used_cluster = used
        self.stats.extra = [used, ListenerStats("listener.127.0.0.1_80.")]
        self.answers: dict[int, Any] = {0: [CLUSTER], 1: [CLUSTER]}
        self.pool = SimpleNamespace(ask=self._ask, workers=[SimpleNamespace(index=0, applied_version=0)])
        self.sockets = SimpleNamespace(local_address=self._local_address)
        self._intervals = HistogramIntervals(5.0)
        self.statistics = SimpleNamespace(fresh=self._fresh_stats, histogram_intervals=self._histogram_intervals)
        self.health_check_failed = False
        self.secrets = SimpleNamespace(all=(), refused={}, times={})

    def not_ready(self) -> str:
        return "" if self.state == Stage.LIVE.value else self.state

    @property
    def state(self) -> str:
        return "DRAINING" if self.health_check_failed else self.stage.value

    async def _ask(self, question: Callable[[int], object], timeout_s: float = 1.0, *, most: int | None = None) -> dict[int, Any]:
        self.asked = question(1)
        return self.answers

    def _local_address(self, key: tuple[str, str]) -> AddressConfig | None:
        return AddressConfig(host="127.0.0.1", port=4711) if key == ("main", "127.0.0.1:0") else None

    async def _fresh_stats(self) -> StatsSnapshot:
        self.stats.look(state=self.state, concurrency=2, epoch=0, generation=1, uptime_s=5, connections=0, memory=[])
        return self.stats.snapshot()

    def _histogram_intervals(self) -> Any:
        self._intervals.begin_look()
        return self._intervals.counts

    def process_ids(self) -> list[tuple[str, int]]:
        import os

        return [("supervisor", os.getpid()), ("gone", 2**22)]

    def set_health_check_failed(self, failed: bool) -> None:
        self.health_check_failed = failed

    async def settled(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.done.append((name, args, more))


@pytest.fixture
def supervisor(tmp_path: Path) -> FakeSupervisor:
    return FakeSupervisor(tmp_path)


@pytest.fixture
def ask(supervisor: FakeSupervisor) -> Callable[..., tuple[int, str]]:
    """Ask an endpoint directly: (path with query, method, headers) -> (status, body)."""

    def run(
        target: str, method: str = "GET", host: str = "127.0.0.1:15000", origin: str | None = None, body: bytes = b""
    ) -> tuple[int, str]:
        from urllib.parse import parse_qsl

        path, _, query = target.partition("?")
        request = AdminRequest(
            method=method, path=path, query=dict(parse_qsl(query, keep_blank_values=True)), host=host, origin=origin, body=body
        )
        response: AdminResponse = asyncio.run(answer(supervisor, request))  # type: ignore[arg-type]
        body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
        if response.then is not None:
            response.then()
        return response.status, body.decode()

    return run


@pytest.fixture
def serve(supervisor: FakeSupervisor) -> Callable[..., Any]:
    """Run a scenario against the server on a real socket: it gets (address, server)."""

    def run(
        scenario: Callable[[tuple[str, int], AdminServer], Coroutine[Any, Any, Any]], access_log: AccessLog | None = None
    ) -> Any:
        async def main() -> Any:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            address = sock.getsockname()
            server = AdminServer(asyncio.get_running_loop(), functools.partial(answer, supervisor), access_log=access_log)  # type: ignore[arg-type]
            await server.start(sock)
            try:
                async with asyncio.timeout(20):
                    return await scenario(address, server)
            finally:
                server.close()
                await asyncio.sleep(0)

        return asyncio.run(main())

    return run
