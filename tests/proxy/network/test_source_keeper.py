"""Whose address upstream connections take, what the configuration says of it, and the rights that it needs."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import pytest
from bootstraps import web
from e2e_support.pod import configuration
from original_source_support import (
    FILTER,
    FIRST,
    Endpoints,
    Http1,
    asked,
    connect,
    plane,
    pools_of,
)
from plane_support import run

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model.listener import ListenerFilterConfig, PortPredicateConfig
from mesh_proxy.listener.predicate import compile_predicate
from mesh_proxy.network import original_source
from mesh_proxy.network.original_source import LocalConnectFailed, OriginalSource, SourceKeeper, keeper_of


class Refusing:
    """A socket that cannot be made transparent."""

    family = socket.AF_INET

    def setsockopt(self, *_: int) -> None:
        raise PermissionError(1, "Operation not permitted")


def test_without_the_right(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Said once at the start; then connections fail as Envoy's do."""

    def refuse(sock: socket.socket) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(original_source, "make_transparent", refuse)
    monkeypatch.setattr(SourceKeeper, "missing", lambda self: "IP_TRANSPARENT cannot be set (…): the proxy needs CAP_NET_ADMIN")

    async def test() -> None:
        async with Endpoints().serving(Http1) as there, plane(web(listener=FILTER, endpoint=there.address())) as one:
            caller = await connect(one, "web", FIRST)
            for number in (1, 2):
                answer = await asked(caller)
                assert answer.startswith(b"HTTP/1.1 503")
                text = b"upstream connect error or disconnect/reset before headers. reset reason: local connection failure"
                assert answer.endswith(b"\r\n\r\n" + text)
                for name in ("upstream_cx_connect_fail", "upstream_cx_destroy_local", "upstream_cx_total"):
                    assert one.stat("cluster.a.", name) == number
            assert one.stat("cluster.a.", "upstream_cx_destroy_remote") == 0
            assert not there.peers
            assert pools_of(one) == 0

    with caplog.at_level(logging.WARNING):
        run(test())
    assert [record.getMessage() for record in caplog.records if "original_src" in record.getMessage()] == [
        "listener web: original_src: IP_TRANSPARENT cannot be set (…): the proxy needs CAP_NET_ADMIN. "
        "Until then its connections to endpoints fail"
    ]


@pytest.mark.parametrize(("user", "transparent", "warnings"), [(1337, True, 1), (0, True, 0), (1337, False, 0)])
def test_the_user_whose_connections_come_back(
    no_rights_needed: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    user: int,
    transparent: bool,
    warnings: int,
) -> None:
    """As user 1337 behind TPROXY the proxy would call itself: that is said at the start."""
    monkeypatch.setattr(original_source.os, "geteuid", lambda: user)

    async def test() -> None:
        async with plane(web(listener=f"{FILTER}\ntransparent: {str(transparent).lower()}")):
            pass

    with caplog.at_level(logging.WARNING):
        run(test())
    said = [record.getMessage() for record in caplog.records if "original_src" in record.getMessage()]
    assert len(said) == warnings
    assert all("run it as user 0, group 1337" in one for one in said)


def test_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(Refusing):
        def __enter__(self) -> Probe:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(original_source.socket, "socket", Probe)
    assert SourceKeeper(1337).missing() == "SO_MARK cannot be set (Operation not permitted): the proxy needs CAP_NET_ADMIN"
    assert SourceKeeper(0).missing() == "IP_TRANSPARENT cannot be set (Operation not permitted): the proxy needs CAP_NET_ADMIN"


class Noted:
    """A socket that notes what it is told."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.told: list[tuple[Any, ...]] = []

    def setsockopt(self, *words: int) -> None:
        self.told.append(words)

    def bind(self, address: tuple[str, int]) -> None:
        self.told.append(("bind", *address))


@pytest.mark.parametrize(
    ("source", "family", "told"),
    [
        (
            OriginalSource("10.0.0.1", 0, 1337),
            socket.AF_INET,
            [(socket.SOL_SOCKET, socket.SO_MARK, 1337), (0, 19, 1), (0, 24, 1), ("bind", "10.0.0.1", 0)],
        ),
        (OriginalSource("fd00::1", 0, 0), socket.AF_INET6, [(41, 75, 1), (0, 24, 1), ("bind", "fd00::1", 0)]),
        (
            OriginalSource("fd00::1", 9, 0),
            socket.AF_INET6,
            [(41, 75, 1), (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), ("bind", "fd00::1", 9)],
        ),
    ],
)
def test_options_of_the_socket(source: OriginalSource, family: int, told: list[tuple[Any, ...]]) -> None:
    sock = Noted(family)
    source.bind(sock)  # type: ignore[arg-type]
    assert sock.told == told


def test_an_endpoint_of_the_other_ip_version(no_rights_needed: None) -> None:
    with socket.socket(socket.AF_INET6) as sock, pytest.raises(LocalConnectFailed) as caught:
        OriginalSource("127.0.0.9", 0, 0).bind(sock)
    assert str(caught.value) == "failed to bind to 127.0.0.9:0: Invalid argument"


def test_as_istiod_sends_it(caplog: pytest.LogCaptureFixture) -> None:
    """virtualInbound with TPROXY: the filter stands after original_dst, and nothing about it is refused, ignored or warned of."""
    with caplog.at_level(logging.INFO):
        loaded = load_bootstrap(None, json.dumps(configuration(transparent=True, original_src=True)))
    assert [
        record.getMessage() for record in caplog.records if "source" in record.getMessage() or "src" in record.getMessage()
    ] == []
    inbound = loaded.listeners[0]
    assert [one.type_url.rpartition(".")[2] for one in inbound.listener_filters] == [
        "OriginalDst",
        "OriginalSrc",
        "HttpInspector",
    ]
    keeper = keeper_of(inbound)
    assert keeper is not None
    assert keeper.source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 0, 1337)


def test_whose_source() -> None:
    keeper = SourceKeeper(1337)
    assert keeper.source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 0, 1337)
    assert keeper.source_of(("::ffff:10.0.0.1", 5000, 0, 0), 80) == OriginalSource("10.0.0.1", 0, 1337)
    assert keeper.source_of(("fe80::1%eth0", 5000, 0, 2), 80) == OriginalSource("fe80::1%eth0", 0, 1337)
    assert keeper.source_of("", 0) is None, "a unix socket's"
    assert SourceKeeper(0, bind_port=True).source_of(("10.0.0.1", 5000), 80) == OriginalSource("10.0.0.1", 5000, 0)
    some = SourceKeeper(1, disabled=compile_predicate(PortPredicateConfig(kind="range", start=80, end=81)))
    assert some.source_of(("10.0.0.1", 5000), 80) is None
    assert some.source_of(("10.0.0.1", 5000), 81) is not None


def test_keeper_of_a_listener() -> None:
    class Config:
        listener_filters = tuple(
            ListenerFilterConfig(name="s", type_url=f"x.{kind}", config=config)
            for kind, config in (("OriginalDst", None), ("OriginalSrc", {"mark": 7, "bind_port": False}))
        )

    found = keeper_of(Config)  # type: ignore[arg-type]
    assert found is not None
    assert found.source_of(("10.0.0.1", 1), 80) == OriginalSource("10.0.0.1", 0, 7)
    Config.listener_filters = Config.listener_filters[:1]
    assert keeper_of(Config) is None  # type: ignore[arg-type]
