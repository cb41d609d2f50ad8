"""Listeners, clusters, routes and endpoints from watched files, with real processes and traffic."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_support.dynamic import Files, Origin, Proxy, calling, cluster, endpoints, free_port, get, listener, running, table, until

pytestmark = pytest.mark.slow


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files")


@pytest.fixture
def origin() -> Iterator[Origin]:
    upstream = Origin()
    yield upstream
    upstream.stop()


def everything(files: Files, port: int, origin: int, body: str = "one") -> None:
    files.move("rds", [table(body)], "r1")
    files.move("eds", [endpoints(origin)], "e1")
    files.move("cds", [cluster(eds=files.source("eds"))], "c1")
    files.move("lds", [listener("in", port, rds=files.source("rds"))], "l1")


def test_each_kind_of_file_is_taken_when_it_is_moved_into_place(files: Files, tmp_path: Path, origin: Origin) -> None:
    port, other = free_port(), free_port()
    everything(files, port, origin.port)
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        assert get(port) == (200, "one")
        files.move("rds", [table("two")], "r2")
        until("the second table", lambda: get(port) == (200, "two"))
        assert proxy.stat("http.in.rds.r.update_success") == 2
        # A file that is written to, and not moved, is none of ours: the next move shows what counts.
        Path(files.path("rds")).write_text("{}")
        files.move("eds", [endpoints(1, 2)], "e2")
        proxy.wait("cluster.a.membership_total", 2)
        assert get(port) == (200, "two")
        assert proxy.stat("http.in.rds.r.update_attempt") == 2
        files.move("cds", [cluster(eds=files.source("eds")), cluster("b", origin.port)], "c2")
        proxy.wait("cluster_manager.active_clusters", 2)
        files.move("lds", [listener("in", port, rds=files.source("rds")), listener("more", other, routes=table("more"))], "l2")
        until("another listener", lambda: get(other) == (200, "more"))
        files.move("lds", [listener("more", other, routes=table("more"))], "l3")
        until("the first is gone", lambda: not accepts(port))
        assert get(other) == (200, "more")
        files.move("cds", [], "c3")
        until("no cluster", lambda: proxy.stat("cluster_manager.active_clusters") == 0)
        assert proxy.stat("cluster_manager.cluster_removed") == 2
        assert proxy.stat("http.in.rds.r.update_success") == -1, "nobody needs these routes any more"


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_connections_of_listeners_that_do_not_change_stay(files: Files, tmp_path: Path, origin: Origin) -> None:
    port, other = free_port(), free_port()
    files.move("rds", [table("0")], "0")
    files.move("cds", [cluster("b", origin.port)], "0")
    kept = listener("kept", port, rds=files.source("rds"))
    files.move("lds", [kept, listener("other", other, routes=table("0"))], "0")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        with calling(port, port) as callers:
            for i in range(1, 6):
                files.move("lds", [kept, listener("other", other, routes=table(str(i)))], str(i))
                until("the other listener", lambda i=i: get(other) == (200, str(i)))
                files.move("rds", [table(str(i))], str(i))
                until("the table", lambda i=i: get(port) == (200, str(i)))
                files.move("cds", [cluster("b", origin.port, connect_timeout=f"{i + 1}s")], str(i))
                proxy.wait("cluster_manager.cluster_modified", i)
        assert [caller.failures for caller in callers] == [[], []]
        assert [caller.connections for caller in callers] == [1, 1]
        assert proxy.stat("listener_manager.listener_modified") == 5


def test_a_file_that_is_bad_at_the_start_keeps_the_proxy_from_being_ready(files: Files, tmp_path: Path) -> None:
    port = free_port()
    files.move("cds", [], "0")
    files.move("lds", [{"name": "x"}], "bad")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait("listener_manager.lds.update_rejected", 1)
        assert proxy.ask("/ready")[0] == 503
        files.move("lds", [listener("in", port, routes=table("now"))], "good")
        proxy.wait_ready()
        assert get(port) == (200, "now")


def test_what_does_not_come_in_time_is_gone_on_without(files: Files, tmp_path: Path) -> None:
    port = free_port()
    files.move("cds", [], "0")
    files.move("rds", [], "empty")
    files.move("lds", [listener("in", port, rds=files.source("rds", initial_fetch_timeout="0.2s"))], "1")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        assert get(port)[0] == 404
        assert proxy.stat("http.in.rds.r.init_fetch_timeout") == 1
        files.move("rds", [table("late")], "1")
        until("the table", lambda: get(port) == (200, "late"))


def test_a_listener_warms_until_its_routes_are_there(files: Files, tmp_path: Path) -> None:
    port = free_port()
    files.move("cds", [], "0")
    files.move("rds", [], "empty")
    files.move("lds", [listener("in", port, routes=table("old"))], "1")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        files.move("lds", [listener("in", port, rds=files.source("rds", initial_fetch_timeout="0s"))], "2")
        proxy.wait("listener_manager.lds.update_success", 2)
        assert get(port) == (200, "old"), "the version before serves while the new one warms"
        files.move("rds", [table("new")], "1")
        until("the new version", lambda: get(port) == (200, "new"))


def test_a_hot_upgrade_takes_what_the_files_say(files: Files, tmp_path: Path, origin: Origin) -> None:
    port = free_port()
    everything(files, port, origin.port)
    flags = ("--socket-path", str(tmp_path / "s"), "--base-id", "7")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap(), *flags) as old:
        old.wait_ready()
        with calling(port) as callers:
            files.move("rds", [table("two")], "r2")
            until("the table", lambda: get(port) == (200, "two"))
            with running("mesh-proxy", tmp_path / "p", files.bootstrap(), *flags) as new:
                old.process.wait(30)
                new.wait_ready()
                assert get(port) == (200, "two")
                files.move("rds", [table("three")], "r3")
                until("a change in the new process", lambda: get(port) == (200, "three"))
                # A file that the old process has refused would be lost to a new one.
                files.move("lds", [{"name": "x"}], "bad")
                new.wait("listener_manager.lds.update_rejected", 1)
                with running("mesh-proxy", tmp_path / "q", files.bootstrap(), *flags) as third:
                    assert third.process.wait(30) != 0
                    assert "needs" in third.log or "address" in third.log
                assert get(port) == (200, "three")
                callers[0].stop()
        assert callers[0].failures == []


def test_a_reader_that_is_killed_is_replaced(files: Files, tmp_path: Path) -> None:
    port = free_port()
    files.move("cds", [], "0")
    files.move("lds", [listener("in", port, routes=table("one"))], "1")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap(), concurrency=1) as proxy:
        proxy.wait_ready()
        for pid in readers(proxy):
            os.kill(pid, signal.SIGKILL)
        files.move("lds", [listener("in", port, routes=table("two"))], "2")
        until("the change", lambda: get(port) == (200, "two"))


def readers(proxy: Proxy) -> list[int]:
    """Children of the spawner that are no workers."""

    def children(pid: int) -> list[int]:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    workers = {one["pid"] for one in proxy.json("/memory?by_process")["processes"]}
    return [pid for spawner in children(proxy.process.pid) for pid in children(spawner) if pid not in workers]


def test_a_directory_in_which_a_link_is_replaced(files: Files, tmp_path: Path) -> None:
    """As Kubernetes changes a mounted ConfigMap: the files never move, a link above them does."""
    port, mount = free_port(), tmp_path / "mount"
    mount.mkdir()

    def publish(name: str, body: str) -> None:
        Files(mount / name).move("rds", [table(body)], name)
        (mount / "..new").symlink_to(name)
        os.rename(mount / "..new", mount / "..data")

    publish("..1", "one")
    (mount / "rds.json").symlink_to("..data/rds.json")
    files.move("cds", [], "0")
    source = {"path_config_source": {"path": str(mount / "rds.json"), "watched_directory": {"path": str(mount)}}}
    files.move("lds", [listener("in", port, rds=source)], "0")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap(), concurrency=1) as proxy:
        proxy.wait_ready()
        assert get(port) == (200, "one")
        publish("..2", "two")
        until("the table", lambda: get(port) == (200, "two"))


def test_what_the_admin_interface_shows(files: Files, tmp_path: Path, origin: Origin) -> None:
    port = free_port()
    everything(files, port, origin.port)
    files.move(
        "cds", [cluster(eds=files.source("eds")), cluster("late", eds=files.source("eds-late", initial_fetch_timeout="0s"))], "c1"
    )
    files.move("eds-late", [], "nothing")
    static = {"clusters": [cluster("fixed", 1)]}
    with running("mesh-proxy", tmp_path / "p", files.bootstrap(static_resources=static), concurrency=1) as proxy:
        until("initializing", lambda: b"late" in proxy.ask("/init_dump")[1])
        assert proxy.ask("/ready")[0] == 503
        files.move("eds-late", [endpoints(1, name="late")], "e2")
        proxy.wait_ready()
        files.move("lds", [{**listener("bad", port, routes=table("x")), "address": {}}], "l2")
        proxy.wait("listener_manager.lds.update_rejected", 1)
        dumps = {one["@type"].rpartition(".")[2]: one for one in proxy.json("/config_dump?include_eds")["configs"]}
        clusters = dumps["ClustersConfigDump"]
        assert [one["cluster"]["name"] for one in clusters["static_clusters"]] == ["fixed"]
        active = {one["cluster"]["name"]: one for one in clusters["dynamic_active_clusters"]}
        assert {name: one["version_info"] for name, one in active.items()} == {"a": "c1", "late": "c1"}
        assert clusters["version_info"] == "c1"
        one, failed = dumps["ListenersConfigDump"]["dynamic_listeners"]
        assert (one["name"], one["active_state"]["version_info"]) == ("in", "l1")
        assert one["active_state"]["listener"]["address"]["socket_address"]["port_value"] == port
        assert (failed["name"], failed["error_state"]["version_info"]) == ("bad", "l2")
        assert failed["error_state"]["failed_configuration"]["name"] == "bad"
        (route,) = dumps["RoutesConfigDump"]["dynamic_route_configs"]
        assert (route["version_info"], route["route_config"]["name"]) == ("r1", "r")
        found = {one["endpoint_config"]["cluster_name"] for one in dumps["EndpointsConfigDump"]["dynamic_endpoint_configs"]}
        assert found == {"a", "late"}
        assert f"in::127.0.0.1:{port}" in proxy.ask("/listeners")[1].decode()
        shown = proxy.ask("/clusters")[1].decode()
        assert "a::added_via_api::true" in shown
        assert "fixed::added_via_api::false" in shown
        digest = proxy.json("/config_digest")
        kinds = [one["type"].rpartition(".")[2] for one in digest["resources"]]
        assert kinds == [
            "Cluster",
            "Cluster",
            "Cluster",
            "ClusterLoadAssignment",
            "ClusterLoadAssignment",
            "Listener",
            "RouteConfiguration",
        ]
        assert {one["workers"] for one in digest["resources"]} == {1}
        assert proxy.stat("config_digest.resources") == 7
        assert proxy.stat("config_digest.total") == int(digest["total"][:13], 16)
        assert "resources" not in proxy.json("/config_digest?summary")
