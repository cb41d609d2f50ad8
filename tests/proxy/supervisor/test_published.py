"""What the admin interface shows of a process tree, and does to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Start = Callable[..., Any]


@pytest.fixture
def config(port: int) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "echo",
        "cluster": "back",
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "echo",
                    "traffic_direction": "INBOUND",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [{"filters": filters}],
                }
            ],
            "clusters": [{"name": "back", "load_assignment": {"cluster_name": "back"}}],
        },
    }


def test_counts_survive_the_death_of_their_worker(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "2", config=config).wait_live()
    name = f"listener.127.0.0.1_{port}.downstream_cx"
    victim = proxy.connect_to_worker(("127.0.0.1", port), 0)
    proxy.connect_to_worker(("127.0.0.1", port), 1)
    before = proxy.stat(f"{name}_total")
    assert before == len(proxy.connections)
    assert proxy.stat(f"{name}_active") == before
    mine = sum(connection.worker == 0 for connection in proxy.connections)
    os.kill(victim.pid, signal.SIGKILL)
    proxy.until("replaced", lambda: proxy.stat("supervisor.worker_restarts") == 1)
    assert proxy.stat(f"{name}_total") == before
    assert proxy.stat(f"{name}_active") == before - mine, "the gauges of the dead are gone"
    proxy.connect_to_worker(("127.0.0.1", port), 0)
    assert proxy.stat(f"{name}_total") == len(proxy.connections)
    assert proxy.stat("supervisor.worker_exits") == 1


def test_a_worker_that_hangs_is_killed_and_replaced(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config, env={"ECHO_HANG_TIMEOUT": "4"}).wait_live()
    stuck = proxy.connect(("127.0.0.1", port))
    stuck.socket.sendall(b"hang\n")
    proxy.until("replaced", lambda: proxy.log.count("replacing it") == 1)
    assert "has not answered for" in proxy.log
    assert proxy.connect(("127.0.0.1", port)).pid != stuck.pid
    assert proxy.stat("supervisor.worker_hangs") == 1


def test_health_checks_reach_workers_also_later_ones(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    assert proxy.admin("/ready") == (200, "LIVE\n")
    assert proxy.admin("/healthcheck/fail", "POST") == (200, "OK\n")
    assert proxy.admin("/ready") == (503, "DRAINING\n")
    assert proxy.stat("cluster.health.version") == 1
    proxy.connect(("127.0.0.1", port)).socket.sendall(b"crash\n")
    proxy.until("told", lambda: proxy.stat("supervisor.worker_restarts") == 1 and proxy.stat("cluster.health.version") == 1)
    assert proxy.admin("/healthcheck/ok", "POST") == (200, "OK\n")
    assert proxy.stat("cluster.health.version") == 0


def test_logs_are_reopened(start_proxy: Start, config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "application.log"
    proxy = start_proxy(None, "--concurrency", "1", "--log-path", str(path), config=config)
    proxy.until("live", lambda: "all workers are live" in path.read_text())
    path.rename(tmp_path / "rotated")
    proxy.process.send_signal(signal.SIGUSR1)
    proxy.until("reopened", path.exists)
    proxy.until("told", lambda: proxy.stat("cluster.reopened.update_attempt") == 1)
    assert proxy.admin("/reopen_logs", "POST") == (200, "OK\n")
    proxy.until("told again", lambda: proxy.stat("cluster.reopened.update_attempt") == 2)


def test_log_levels_change_in_all_processes(start_proxy: Start, config: dict[str, Any]) -> None:
    proxy = start_proxy(None, "--concurrency", "1", "-l", "error", config=config)
    proxy.until("an admin address", lambda: proxy.admin_path.exists() and proxy.admin("/ready")[0] == 200)
    assert proxy.log == ""
    status, body = proxy.admin("/logging?main=debug", "POST")
    assert status == 200
    assert "  main: debug\n  matcher: error\n" in body


@pytest.mark.parametrize("query", ["", "?inboundonly"])
def test_drain_listeners_refuses_new_connections_and_keeps_the_old(
    start_proxy: Start, config: dict[str, Any], port: int, query: str
) -> None:
    proxy = start_proxy(None, "--concurrency", "2", config=config).wait_live()
    address = ("127.0.0.1", port)
    old = proxy.connect(address)
    assert proxy.admin(f"/drain_listeners{query}", "POST") == (200, "OK\n")
    assert old.file.readline() == b"draining\n"

    def refused() -> bool:
        try:
            proxy.connect(address)
        except ConnectionError:
            return True
        return False

    proxy.until("refused", refused)
    assert old.ask("still served") == "still served"
    assert proxy.admin("/ready") == (200, "LIVE\n")
    assert proxy.stat("listener_manager.listener_stopped") == 1


def test_drain_listeners_may_keep_them_open(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    old = proxy.connect(("127.0.0.1", port))
    proxy.admin("/drain_listeners?graceful&skip_exit", "POST")
    assert old.file.readline() == b"draining\n"
    assert proxy.connect(("127.0.0.1", port)).ask("welcome") == "welcome"


def test_quitquitquit(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    proxy.connect(("127.0.0.1", port))
    assert proxy.admin("/quitquitquit")[0] == 405
    assert proxy.admin("/quitquitquit", "POST") == (200, "OK\n")
    assert proxy.wait_exit() == 0


def test_reset_counters(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    proxy.connect(("127.0.0.1", port))
    name = f"listener.127.0.0.1_{port}.downstream_cx"
    assert proxy.stat(f"{name}_total") == 1
    assert proxy.admin("/reset_counters", "POST") == (200, "OK\n")
    assert proxy.stat(f"{name}_total") == 0
    assert proxy.stat(f"{name}_active") == 1


def test_memory_of_the_whole_tree(start_proxy: Start, config: dict[str, Any]) -> None:
    proxy = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    memory = json.loads(proxy.admin("/memory?by_process")[1])
    assert [process["name"] for process in memory["processes"]] == ["supervisor", "spawner", "worker 0"]
    assert int(memory["total_physical_bytes"]) < 55_000_000
    assert "processes" not in json.loads(proxy.admin("/memory")[1])


def test_the_admin_address_is_refused_like_any_other(start_proxy: Start, config: dict[str, Any], port: int) -> None:
    config["admin"]["address"]["socket_address"]["port_value"] = port
    config["static_resources"]["listeners"].clear()
    first = start_proxy(None, "--concurrency", "1", config=config).wait_live()
    assert first.admin_path.read_text() == f"127.0.0.1:{port}"
    second = start_proxy(None, "--concurrency", "1", config=config)
    assert second.wait_exit() == 1
    assert f"admin.address: cannot bind 127.0.0.1:{port}: Address already in use" in second.log
