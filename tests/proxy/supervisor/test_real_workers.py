"""The real data plane in real processes: what a dead worker costs the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build_support import of_this_build
from parity.proxy import free_port

pytestmark = pytest.mark.slow

CONNECTIONS = 16
REQUEST = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"


class Proxy:
    def __init__(self, directory: Path) -> None:
        self.port, self.admin = free_port(), free_port()
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [
                            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
                        ],
                    }
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }
            ],
        }
        config: dict[str, Any] = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.admin}}},
            "static_resources": {
                "listeners": [
                    {
                        "name": "in",
                        "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
                        "filter_chains": [
                            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
                        ],
                    }
                ]
            },
        }
        path = directory / "bootstrap.json"
        path.write_text(json.dumps(config))
        self.log_path = directory / "log"
        with self.log_path.open("wb") as log:
            command = [sys.executable, "-m", "mesh_proxy", "-c", str(path), "--concurrency", "2", "--disable-hot-restart"]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.until_ready()

    def until_ready(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log_path.read_text()
            with contextlib.suppress(OSError):
                if self.ask("/ready") == "LIVE\n":
                    return of_this_build(self.process.pid)
            time.sleep(0.02)
        raise AssertionError(self.log_path.read_text())

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=30) as response:
            return str(response.read().decode())

    def stat(self, name: str) -> int:
        for line in self.ask(f"/stats?filter=^{name}$").splitlines():
            return int(line.partition(": ")[2])
        return 0

    def worker_pid(self, index: int) -> int:
        processes = json.loads(self.ask("/memory?by_process"))["processes"]
        (pid,) = (process["pid"] for process in processes if process["name"] == f"worker {index}")
        return int(pid)

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(60) == 0


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(tmp_path)
    yield made
    made.close()


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(head)
    assert await reader.readexactly(2) == b"ok"


class Load:
    """Keep-alive connections that ask without pause, and one client that connects anew for every request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = 0
        self.asked = 0
        self.failed_connects: list[str] = []
        self.slowest_connect = 0.0
        self.stop = False

    async def keep_alive(self, started: asyncio.Event) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while not self.stop:
                await exchange(reader, writer)
                self.asked += 1
                started.set()
                await asyncio.sleep(0.002)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.cut += 1
        finally:
            writer.close()

    async def anew(self) -> None:
        while not self.stop:
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                await exchange(reader, writer)
                writer.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed_connects.append(repr(error))
            self.slowest_connect = max(self.slowest_connect, time.monotonic() - began)
            await asyncio.sleep(0.005)


def test_a_killed_worker_costs_only_its_own_connections(proxy: Proxy) -> None:
    load = Load(proxy.port)
    listener = f"listener.127.0.0.1_{proxy.port}"

    async def scenario() -> int:
        started = [asyncio.Event() for _ in range(CONNECTIONS)]
        tasks = [asyncio.ensure_future(load.keep_alive(event)) for event in started]
        for event in started:
            await event.wait()
        loop = asyncio.get_running_loop()
        pid = await loop.run_in_executor(None, proxy.worker_pid, 0)
        doomed = await loop.run_in_executor(None, proxy.stat, f"{listener}.worker_0.downstream_cx_active")
        tasks.append(asyncio.ensure_future(load.anew()))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        while not await loop.run_in_executor(None, proxy.stat, "supervisor.worker_restarts"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        load.stop = True
        await asyncio.gather(*tasks)
        return doomed

    doomed = asyncio.run(scenario())
    assert load.cut == doomed
    # A connection that was being served when the worker died is lost; the ones that waited in its queue are not.
    assert len(load.failed_connects) <= 1, load.failed_connects
    assert load.slowest_connect < 10.0
    assert proxy.stat("supervisor.worker_restarts") == 1
    assert proxy.stat("http.in.downstream_rq_total") >= load.asked * 0.5, "only the last second of the dead is not counted"


def test_counters_never_go_back(proxy: Proxy) -> None:
    name = "http.in.downstream_rq_total"

    async def some(count: int) -> None:
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            await exchange(reader, writer)
            writer.close()

    expected = 0
    for index in (0, 1, 0):
        asyncio.run(some(20))
        expected += 20
        assert proxy.stat(name) == expected
        restarts = proxy.stat("supervisor.worker_restarts")
        os.kill(proxy.worker_pid(index), signal.SIGKILL)
        end = time.monotonic() + 60
        while (
            proxy.stat("supervisor.worker_restarts") == restarts
            or len(json.loads(proxy.ask("/memory?by_process"))["processes"]) < 4
        ):
            assert time.monotonic() < end
            time.sleep(0.02)
        assert proxy.stat(name) == expected
