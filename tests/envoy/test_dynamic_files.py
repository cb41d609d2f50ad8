"""The same files, moved into place one after the other, under Envoy and under mesh-proxy: what is taken, counted and served.

One pair of proxies for all cases; each case begins with the base files. Where Envoy takes the good part of a bad file and we refuse
it whole, there is no case: docs/dynamic-configuration.md says so.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support.dynamic import (
    DEADLINE_S,
    KINDS,
    Files,
    Origin,
    Proxy,
    Tree,
    cluster,
    endpoints,
    free_port,
    get,
    listener,
    table,
    until,
)
from parity.proxy import envoy_binary

from mesh_proxy.upstream.xxhash64 import xxhash64

pytestmark = [pytest.mark.envoy, pytest.mark.slow]
PREFIX = {"lds": "listener_manager.lds.", "cds": "cluster_manager.cds.", "rds": "http.in.rds.r.", "eds": "cluster.a."}
GAUGE = (1 << 63) - 1
"""our gauges are signed"""
OUTCOMES = ("success", "rejected", "failure")


class Side:
    """One proxy with files of its own."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.files = Files(directory / "files")
        self.port, self.other = free_port(), free_port()
        self.origins = [Origin("one"), Origin("two")]
        self.versions = 0
        self.write_base(self.files.move)
        self.proxy = Proxy(kind, directory, self.files.bootstrap(), concurrency=1)

    def stop(self) -> None:
        self.proxy.stop()
        for origin in self.origins:
            origin.stop()

    def main(self) -> Tree:
        return listener("in", self.port, rds=self.files.source("rds"))

    def routes(self, **more: Any) -> Tree:
        return table(cluster="a", **more)

    def cluster(self, **more: Any) -> Tree:
        return cluster(eds=self.files.source("eds"), **more)

    def write_base(self, move: Callable[[str, list[Tree], str], Any]) -> None:
        move("eds", [endpoints(self.origins[0].port)], "base")
        move("cds", [self.cluster()], "base")
        move("rds", [self.routes()], "base")
        move("lds", [self.main()], "base")

    def reset(self) -> None:
        """The base again, whatever the case before has left, taken by the proxy."""
        self.versions += 1
        version = f"base {self.versions}"
        shown = xxhash64(version.encode()) & GAUGE
        self.write_base(lambda kind, resources, _: self.files.move(kind, resources, version))
        until("the base", lambda: all(self.proxy.stat(f"{prefix}version") & GAUGE == shown for prefix in PREFIX.values()))
        until("the base", lambda: get(self.port) == (200, "one"))

    def counts(self, kind: str) -> dict[str, int]:
        return {outcome: max(0, self.proxy.stat(f"{PREFIX[kind]}update_{outcome}")) for outcome in OUTCOMES}

    def move(self, kind: str, resources: list[Tree] | None, version: str = "", *, text: str | None = None) -> str:
        """Move a file into place; what became of it."""
        before = self.counts(kind)
        self.versions += 1
        self.files.move(kind, resources, version or str(self.versions), text=text)
        return self.outcome(kind, before)

    def outcome(self, kind: str, before: dict[str, int]) -> str:
        def found() -> str | None:
            now = self.counts(kind)
            return next((outcome for outcome in OUTCOMES if now[outcome] > before[outcome]), None)

        return str(until(f"an outcome of {kind}", found))

    def change(self, *names: str) -> Callable[[], list[int]]:
        """How much these statistics grow from here on."""
        before = [self.proxy.stat(name) for name in names]
        return lambda: [self.proxy.stat(name) - old for name, old in zip(names, before, strict=True)]

    def serves(self, port: int, answer: tuple[int, str]) -> bool:
        """Whether it comes to that."""
        return bool(until(f"{answer} on {port}", lambda: get(port) == answer))

    def accepts(self, port: int, wanted: bool) -> bool:
        def agree() -> bool:
            with socket.socket() as probe:
                return (probe.connect_ex(("127.0.0.1", port)) == 0) is wanted

        return bool(until(f"port {port} accepts: {wanted}", agree))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    if envoy_binary() is None:
        pytest.skip("no Envoy")
    sides: list[Side] = []
    try:
        for kind in ("envoy", "mesh-proxy"):
            sides.append(Side(kind, tmp_path_factory.mktemp(kind)))
        for side in sides:
            side.proxy.wait_ready()
        yield sides[0], sides[1]
    finally:
        for side in sides:
            side.stop()


CASES: list[Callable[[Side], Any]] = []


def case(function: Callable[[Side], Any]) -> Callable[[Side], Any]:
    CASES.append(function)
    return function


# -- when a file is read


@case
def a_table_that_is_moved_into_place(side: Side) -> Any:
    return side.move("rds", [table("new")]), side.serves(side.port, (200, "new"))


@case
def a_file_that_is_written_to_is_not_read(side: Side) -> Any:
    grown = side.change("http.in.rds.r.update_attempt")
    Path(side.files.path("rds")).write_text("nonsense")
    (side.files.directory / "a").write_text("{}")
    os.rename(side.files.directory / "a", side.files.directory / "b")
    return side.move("rds", [table("after")]), grown(), side.serves(side.port, (200, "after"))


@case
def a_file_that_is_removed_changes_nothing(side: Side) -> Any:
    grown = side.change("http.in.rds.r.update_attempt")
    os.unlink(side.files.path("rds"))
    kept = get(side.port)
    return kept, side.move("rds", [table("back")]), grown(), side.serves(side.port, (200, "back"))


@case
def a_symbolic_link_is_followed(side: Side) -> Any:
    before = side.counts("rds")
    real = Files(side.files.directory / "real")
    real.move("rds", [table("linked")], "link")
    os.symlink(real.path("rds"), side.files.directory / "link")
    os.rename(side.files.directory / "link", side.files.path("rds"))
    return side.outcome("rds", before), side.serves(side.port, (200, "linked"))


@case
def the_same_again_is_a_success_without_a_reload(side: Side) -> Any:
    side.move("rds", [table("same")], "s1")
    grown = side.change("http.in.rds.r.config_reload", "http.in.rds.r.update_success")
    return side.move("rds", [table("same")], "s2"), grown()


@case
def the_version_is_shown_as_its_hash(side: Side) -> Any:
    side.move("rds", [table("v")], "version 77")
    side.move("cds", [side.cluster()], "another version, longer than thirty-two bytes")
    shown = [side.proxy.ask(f"/stats?filter={name}%5C.version%24")[1] for name in ("rds.r", "cds")]
    return [int(one.split()[-1]) & GAUGE for one in shown]


@case
def an_unknown_field_is_ignored_and_counted(side: Side) -> Any:
    grown = side.change("server.dynamic_unknown_fields")
    return side.move("rds", [table("unknown", no_such_field=1)]), grown(), side.serves(side.port, (200, "unknown"))


# -- what is refused


@case
def text_that_is_no_json(side: Side) -> Any:
    return side.move("rds", None, text="{"), get(side.port)


@case
def a_table_that_breaks_a_rule(side: Side) -> Any:
    bad = side.routes()
    bad["virtual_hosts"][0]["domains"] = []
    return side.move("rds", [bad]), get(side.port)


@case
def a_table_with_a_bad_expression(side: Side) -> Any:
    bad = side.routes()
    bad["virtual_hosts"][0]["routes"][0]["match"] = {"safe_regex": {"regex": "("}}
    return side.move("rds", [bad]), get(side.port)


@case
def a_table_of_another_name(side: Side) -> Any:
    return side.move("rds", [table("other", name="other")]), get(side.port)


@case
def a_resource_of_another_kind(side: Side) -> Any:
    return side.move("rds", [{**endpoints(1), "@type": KINDS["eds"]}]) != "success", get(side.port)


@case
def no_table_at_all_changes_nothing(side: Side) -> Any:
    return side.move("rds", []) != "rejected", get(side.port)


@case
def a_table_whose_clusters_must_exist(side: Side) -> Any:
    return side.move("rds", [table(cluster="nobody", validate_clusters=True)]), get(side.port)


@case
def a_listener_whose_clusters_must_exist(side: Side) -> Any:
    bad = listener("more", side.other, routes=table(cluster="nobody"))
    return side.move("lds", [side.main(), bad]), side.accepts(side.other, False), get(side.port)


@case
def two_listeners_with_one_address(side: Side) -> Any:
    return side.move("lds", [side.main(), listener("more", side.port, routes=table("x"))]), get(side.port)


@case
def two_clusters_with_one_name(side: Side) -> Any:
    return side.move("cds", [side.cluster(), side.cluster(connect_timeout="2s")]), get(side.port)


@case
def a_cluster_that_breaks_a_rule(side: Side) -> Any:
    return side.move("cds", [side.cluster(connect_timeout="0s")]), get(side.port)


@case
def endpoints_of_another_cluster(side: Side) -> Any:
    return side.move("eds", [endpoints(1, name="other")]), get(side.port), side.proxy.stat("cluster.a.membership_total")


@case
def endpoints_with_a_hole_in_the_priorities(side: Side) -> Any:
    bad = endpoints(1)
    bad["endpoints"][0]["priority"] = 200
    return side.move("eds", [bad]), get(side.port)


# -- what is taken


@case
def a_route_to_a_cluster_that_is_not_there(side: Side) -> Any:
    return side.move("rds", [table(cluster="nobody")]), until("503", lambda: get(side.port)[0] == 503)


@case
def endpoints_come_and_go(side: Side) -> Any:
    first, second = (origin.port for origin in side.origins)
    return (
        side.move("eds", [endpoints(second)]),
        side.serves(side.port, (200, "two")),
        side.move("eds", [endpoints(first, second)]),
        side.proxy.stat("cluster.a.membership_total"),
        side.move("eds", [endpoints()]),
        until("no endpoint", lambda: get(side.port)[0] == 503),
    )


@case
def clusters_come_change_and_go(side: Side) -> Any:
    grown = side.change(*(f"cluster_manager.cluster_{what}" for what in ("added", "modified", "removed")))
    more = cluster("b", side.origins[1].port)
    steps: list[Any] = [side.move("cds", [side.cluster(), more]), grown(), side.move("rds", [table(cluster="b")])]
    steps += [side.serves(side.port, (200, "two")), side.move("cds", [side.cluster(), {**more, "connect_timeout": "3s"}])]
    steps += [until("modified", lambda: grown()[1] == 1), side.serves(side.port, (200, "two"))]
    steps += [side.move("cds", [side.cluster()]), until("it is gone", lambda: get(side.port)[0] == 503), grown()]
    return steps


@case
def listeners_come_move_and_go(side: Side) -> Any:
    third = free_port()
    grown = side.change(*(f"listener_manager.listener_{what}" for what in ("added", "modified", "removed")))
    more = listener("more", side.other, routes=table("more"))
    steps: list[Any] = [side.move("lds", [side.main(), more]), side.serves(side.other, (200, "more")), grown()]
    more = listener("more", third, routes=table("moved"))
    steps += [side.move("lds", [side.main(), more]), side.serves(third, (200, "moved")), side.accepts(side.other, False), grown()]
    steps += [side.move("lds", [side.main()]), side.accepts(third, False), grown(), get(side.port)]
    return steps


@contextlib.contextmanager
def connection(port: int) -> Iterator[Callable[[], tuple[int, str, bool]]]:
    """One connection: status, body, whether it is to close."""
    one = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)

    def ask() -> tuple[int, str, bool]:
        one.request("GET", "/")
        response = one.getresponse()
        return response.status, response.read().decode(), response.will_close

    try:
        yield ask
    finally:
        one.close()


@case
def a_new_table_on_an_open_connection(side: Side) -> Any:
    with connection(side.port) as ask:
        return ask(), side.move("rds", [table("new")]), side.serves(side.port, (200, "new")), ask()


@case
def a_listener_that_does_not_change_keeps_its_connections(side: Side) -> Any:
    with connection(side.port) as ask:
        steps: list[Any] = [ask()]
        steps.append(side.move("lds", [listener("more", side.other, routes=table("more")), side.main()]))
        steps += [side.serves(side.other, (200, "more")), ask(), side.move("lds", [side.main()]), side.accepts(side.other, False)]
        return [*steps, ask()]


@case
def a_listener_with_the_same_routes_elsewhere(side: Side) -> Any:
    """Its own table instead of that from a file, and back."""
    steps: list[Any] = [side.move("lds", [listener("in", side.port, routes=table("inline"))])]
    steps += [side.serves(side.port, (200, "inline")), side.move("lds", [side.main()]), side.serves(side.port, (200, "one"))]
    return steps


@pytest.mark.parametrize("run", CASES, ids=lambda run: run.__name__)
def test_envoy_does_the_same(pair: tuple[Side, Side], run: Callable[[Side], Any]) -> None:
    seen = []
    for side in pair:
        side.reset()
        seen.append(run(side))
    assert seen[1] == seen[0]
