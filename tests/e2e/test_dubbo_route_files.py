"""Dubbo routes in a watched file (`drds`): they change under calls, no connection notices, and a bad file changes nothing."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from dubbo_support import wire
from dubbo_support.provider import ProviderProcess
from e2e_support.dynamic import TYPE, Files, Proxy, Tree, at, cluster, free_port, running, until

pytestmark = pytest.mark.slow
NETWORK = f"{TYPE}extensions.filters.network."


def manager(files: Files) -> Tree:
    config = {
        "@type": f"{NETWORK}dubbo_proxy.v3.DubboProxy",
        "stat_prefix": "in",
        "drds": {"route_config_name": "routes", "config_source": files.source("rds-dubbo")},
    }
    return {"name": "dubbo", "typed_config": config}


def routes(*tables: Tree, name: str = "routes") -> list[Tree]:
    return [{"@type": f"{NETWORK}dubbo_proxy.v3.MultipleRouteConfiguration", "name": name, "route_config": list(tables)}]


def to(target: str, interface: str = "*") -> Tree:
    route = {"match": {"method": {"name": {"safe_regex": {"regex": ".*"}}}}, "route": {"cluster": target}}
    return {"name": target, "interface": interface, "routes": [route]}


def applied(proxy: Proxy, version: str) -> str:
    """The digest of the routes, once every worker has this version of them; one of them may be quicker than the others."""

    def found() -> str:
        (one,) = [one for one in proxy.json("/config_digest")["resources"] if one["type"].endswith("MultipleRouteConfiguration")]
        return str(one["digest"]) if one["version"] == version else ""

    return str(until(f"version {version} in all workers", found))


class Consumer:
    """Calls without a pause on one connection, in a thread of its own; notes who answers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.file = self.socket.makefile("rb")
        self.answers: list[str] = []
        self.failure: BaseException | None = None
        self.stopping = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        number = 0
        try:
            while not self.stopping:
                number += 1
                self.socket.sendall(wire.call(request_id=number))
                head = self.file.read(16)
                body = self.file.read(int.from_bytes(head[12:16], "big"))
                assert int.from_bytes(head[4:12], "big") == number
                self.answers.append(body[2:].decode() if head[3] == 20 else f"status {head[3]}")
        except BaseException as error:
            self.failure = error

    def last(self) -> str:
        assert self.failure is None, self.failure
        return self.answers[-1] if self.answers else ""

    def close(self) -> None:
        self.stopping = True
        self.thread.join(60)
        self.file.close()
        self.socket.close()


def test_routes_change_under_calls(tmp_path: Path) -> None:
    files, port = Files(tmp_path / "files"), free_port()
    files.move("rds-dubbo", routes(to("a")), "1")
    listener: Tree = {"name": "in", "address": at(port), "filter_chains": [{"filters": [manager(files)]}]}
    with ProviderProcess("one") as one, ProviderProcess("two") as two:
        clusters = [cluster("a", one.port), cluster("b", two.port)]
        bootstrap: dict[str, Any] = {
            "admin": {"address": at(0)},
            "static_resources": {"listeners": [listener], "clusters": clusters},
        }
        with running("mesh-proxy", tmp_path / "p", bootstrap) as proxy:
            proxy.wait_ready()
            consumer = Consumer(port)
            try:
                until("an answer", lambda: consumer.last() == "one")
                before = applied(proxy, "1")
                files.move("rds-dubbo", routes(to("a", "demo.Other"), to("b")), "2")
                until("the other provider", lambda: consumer.last() == "two")
                assert applied(proxy, "2") != before
                # A bad file: refused whole, with the path of its fault.
                files.move("rds-dubbo", routes({"name": "x", "interface": "*", "routes": [{"match": {}}]}), "3")
                proxy.wait("dubbo.in.drds.routes.update_rejected", 1)
                (refused,) = proxy.json("/config_digest")["refused"]
                assert "resources[0].route_config[0].routes[0].route: is required" in refused["details"]
                files.move("rds-dubbo", routes(to("a"), name="another"), "4")
                proxy.wait("dubbo.in.drds.routes.update_rejected", 2)
                dumped = proxy.ask("/config_dump")[1].decode()
                assert "lacks 'routes'" in dumped
                assert '"interface": "demo.Other"' in dumped
                files.move("rds-dubbo", routes(to("a")), "5")
                until("the first one again", lambda: consumer.last() == "one")
                assert applied(proxy, "5") == before
                assert proxy.json("/config_digest")["refused"] == []
                assert proxy.stat("dubbo.in.drds.routes.update_success") == 3
                assert proxy.stat("listener_manager.listener_modified") == 0
            finally:
                consumer.close()
            assert consumer.failure is None
            assert set(consumer.answers) == {"one", "two"}
            # Calls were never answered by the first provider between the changes.
            assert "".join(name[0] for name in consumer.answers).strip("o").strip("t") == ""


def test_without_the_file_in_time_there_are_no_routes(tmp_path: Path) -> None:
    files, port = Files(tmp_path / "files"), free_port()
    files.move("rds-dubbo", None, text="{")
    filters = manager(files)
    filters["typed_config"]["drds"]["config_source"]["initial_fetch_timeout"] = "0.1s"
    listener: Tree = {"name": "in", "address": at(port), "filter_chains": [{"filters": [filters]}]}
    with ProviderProcess("one") as one:
        bootstrap: dict[str, Any] = {
            "admin": {"address": at(0)},
            "static_resources": {"listeners": [listener], "clusters": [cluster("a", one.port)]},
        }
        with running("mesh-proxy", tmp_path / "p", bootstrap) as proxy:
            proxy.wait_ready()
            assert proxy.stat("dubbo.in.drds.routes.update_failure") == 1
            assert proxy.stat("dubbo.in.drds.routes.init_fetch_timeout") == 1
            consumer = Consumer(port)
            try:
                until("an answer", lambda: consumer.last().startswith("status"))
                files.move("rds-dubbo", routes(to("a")), "1")
                until("the provider", lambda: consumer.last() == "one")
            finally:
                consumer.close()
