"""Proxies whose resources stand in watched files, ours and Envoy; files that are moved into place; callers that never rest."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from parity.proxy import command, free_port

DEADLINE_S = 60.0
TYPE = "type.googleapis.com/envoy."
HCM = f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "router", "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"}}
KINDS = {
    "lds": f"{TYPE}config.listener.v3.Listener",
    "cds": f"{TYPE}config.cluster.v3.Cluster",
    "rds": f"{TYPE}config.route.v3.RouteConfiguration",
    "eds": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment",
    "sds": f"{TYPE}extensions.transport_sockets.tls.v3.Secret",
}
Tree = dict[str, Any]


def until(what: str, check: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """Ask again and again for what has no event outside the processes; what it found."""
    end = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := check():
                return found
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


class Files:
    """A directory of DiscoveryResponse files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count()

    def path(self, name: str) -> str:
        return str(self.directory / f"{name}.json")

    def move(self, name: str, resources: list[Tree] | None, version: str = "", *, text: str | None = None) -> None:
        """Replace a file in one step; its kind are the first three letters of its name."""
        if text is None:
            found = [{"@type": KINDS[name[:3]], **one} for one in resources or []]
            text = json.dumps({"version_info": version, "resources": found})
        fresh = self.directory / f".new-{next(self._numbers)}"
        fresh.write_text(text)
        os.rename(fresh, self.path(name))

    def source(self, name: str, **more: Any) -> Tree:
        return {"path_config_source": {"path": self.path(name)}, "resource_api_version": "V3", **more}

    def bootstrap(self, **more: Any) -> Tree:
        """Listeners and clusters from files."""
        return {
            "node": {"id": "one", "cluster": "all"},
            "admin": {"address": at(0)},
            "dynamic_resources": {"lds_config": self.source("lds"), "cds_config": self.source("cds")},
            **more,
        }


def at(port: int) -> Tree:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def table(body: str = "", cluster: str = "", name: str = "r", **more: Any) -> Tree:
    """A route table that answers, or that routes to a cluster."""
    action: Tree = (
        {"route": {"cluster": cluster}} if cluster else {"direct_response": {"status": 200, "body": {"inline_string": body}}}
    )
    return {
        "name": name,
        "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}],
        **more,
    }


def listener(name: str, port: int, *, rds: Tree | None = None, routes: Tree | None = None, **hcm: Any) -> Tree:
    """An HTTP listener with its own table or with one from elsewhere."""
    how: Tree = {"rds": {"route_config_name": "r", "config_source": rds}} if rds is not None else {"route_config": routes}
    config = {"@type": HCM, "stat_prefix": name, "http_filters": [ROUTER], **how, **hcm}
    return {"name": name, "address": at(port), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": config}]}]}


def endpoints(*ports: int, name: str = "a") -> Tree:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(port)}} for port in ports]}]}


def cluster(name: str = "a", *ports: int, eds: Tree | None = None, **more: Any) -> Tree:
    """With static endpoints, or with those of a file."""
    if eds is not None:
        return {"name": name, "type": "EDS", "connect_timeout": "10s", "eds_cluster_config": {"eds_config": eds}, **more}
    assignment = endpoints(*ports, name=name)
    return {"name": name, "type": "STATIC", "connect_timeout": "10s", "load_assignment": assignment, **more}


class Proxy:
    """A running one; `kind` is `mesh-proxy` or `envoy`."""

    def __init__(self, kind: str, directory: Path, bootstrap: Tree, *flags: str, concurrency: int = 2) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "bootstrap.json").write_text(json.dumps(bootstrap))
        self._admin = directory / "admin"
        self._admin.unlink(missing_ok=True)
        if not any("base-id" in flag or "socket-path" in flag for flag in flags):
            flags = ("--disable-hot-restart", *flags)
        with (directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *command(kind), "-c", str(directory / "bootstrap.json"), "--admin-address-path", str(self._admin),
                    "--concurrency", str(concurrency), "--log-level", "info", *flags,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    @property
    def admin_address(self) -> str:
        return until("the admin address", lambda: self._admin.exists() and self._admin.read_text())

    def ask(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.admin_address, timeout=DEADLINE_S)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        status, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def stat(self, name: str) -> int:
        """-1: there is none of this name."""
        _, body = self.ask(f"/stats?filter=%5E{name.replace('.', '%5C.')}%24")
        return next((int(line.rpartition(b": ")[2]) for line in body.splitlines()), -1)

    def wait(self, name: str, least: int) -> None:
        """Until a statistic is at least that."""
        try:
            until(f"{name} >= {least}", lambda: self.stat(name) >= least)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.stat(name)}\n{self.log[-4000:]}") from None

    def wait_ready(self) -> Proxy:
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            return self.ask("/ready")[0] == 200

        until("ready", ready)
        return self

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def running(kind: str, directory: Path, bootstrap: Tree, *flags: str, concurrency: int = 2) -> Iterator[Proxy]:
    proxy = Proxy(kind, directory, bootstrap, *flags, concurrency=concurrency)
    try:
        yield proxy
    finally:
        proxy.stop()


class Origin:
    """An endpoint that answers everything with its name."""

    def __init__(self, name: str = "hello") -> None:
        body = name.encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # head and body in one write, or the peer's delayed acknowledgement costs 40 ms

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def get(port: int, path: str = "/", host: str = "a") -> tuple[int, str]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path, headers={"host": host, "connection": "close"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


class Caller(threading.Thread):
    """Sends requests one after the other until it is stopped; a connection is kept as long as the proxy keeps it."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.answers: dict[tuple[int, str], int] = {}
        self.failures: list[str] = []
        self.connections = 0
        self._port = port
        self._end = threading.Event()

    @property
    def count(self) -> int:
        return sum(self.answers.values())

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._end.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
                    self.connections += 1
                connection.request("GET", "/", headers={"host": "a"})
                response = connection.getresponse()
                answer = response.status, response.read().decode()
                self.answers[answer] = self.answers.get(answer, 0) + 1
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def stop(self) -> Caller:
        self._end.set()
        self.join(DEADLINE_S)
        return self


@contextlib.contextmanager
def calling(*ports: int) -> Iterator[list[Caller]]:
    """Callers of these ports; all are stopped at the end."""
    callers = [Caller(port) for port in ports]
    for caller in callers:
        caller.start()
    try:
        yield callers
    finally:
        for caller in callers:
            caller.stop()


__all__ = [
    "Caller",
    "Files",
    "Proxy",
    "at",
    "calling",
    "cluster",
    "endpoints",
    "free_port",
    "get",
    "listener",
    "running",
    "table",
    "until",
]
