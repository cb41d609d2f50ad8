"""Binding: one socket per worker, all or nothing, and errors that name the field."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.supervisor.sockets import ListenSockets, somaxconn

Make = Callable[[int], ListenSockets]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ListenSockets] = []

    def create(concurrency: int = 2) -> ListenSockets:
        made.append(ListenSockets(concurrency))
        return made[-1]

    yield create
    for one in made:
        one.close()


def tcp(name: str = "a", port: int = 0, host: str = "127.0.0.1", **more: object) -> ListenerConfig:
    return ListenerConfig(name=name, address=AddressConfig(host=host, port=port), **more)  # type: ignore[arg-type]


def unix(path: str, mode: int = 0) -> ListenerConfig:
    return ListenerConfig(name="u", address=AddressConfig(path=path, mode=mode))


def test_each_worker_has_its_own_socket_on_one_port(make: Make) -> None:
    sockets = make(3)
    sockets.bind([tcp()])
    key = ("a", "127.0.0.1:0")
    mine = [sockets.for_worker(index)[*key, 0] for index in range(3)]
    assert len({sock.fileno() for sock in mine}) == 3
    ports = {sock.getsockname()[1] for sock in mine}
    assert len(ports) == 1
    assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in mine)
    local = sockets.local_address(key)
    assert local is not None
    assert {local.port} == ports
    assert sockets.local_address(("b", "127.0.0.1:0")) is None


def test_without_reuse_port_all_share_one(make: Make) -> None:
    sockets = make(2)
    sockets.bind([tcp(enable_reuse_port=False)])
    key = ("a", "127.0.0.1:0")
    assert sockets.for_worker(0)[*key, 0] is sockets.for_worker(1)[*key, 0]
    assert not sockets.for_worker(0)[*key, 0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_what_is_bound_stays_and_what_goes_is_closed(make: Make) -> None:
    sockets = make(1)
    sockets.bind([tcp("a"), tcp("b")])
    before = sockets.for_worker(0)
    sockets.bind([tcp("a"), tcp("c")])
    assert sockets.for_worker(0)["a", "127.0.0.1:0", 0] is before["a", "127.0.0.1:0", 0]
    sockets.retain([tcp("a"), tcp("c")])
    assert {name for name, _, _ in sockets.for_worker(0)} == {"a", "c"}
    assert before["b", "127.0.0.1:0", 0].fileno() == -1


def test_a_listener_that_binds_nothing(make: Make) -> None:
    sockets = make(1)
    sockets.bind([tcp(bind_to_port=False)])
    assert sockets.for_worker(0) == {}


def test_additional_addresses_and_their_path_in_an_error(make: Make) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        sockets = make(2)
        listener = tcp(additional_addresses=(AddressConfig(host="127.0.0.1", port=port),))
        with pytest.raises(ConfigError) as caught:
            sockets.bind([tcp("first"), listener])
    assert str(caught.value) == (
        f"listeners[1].additional_addresses[0].address: cannot bind 127.0.0.1:{port}: Address already in use"
    )
    assert sockets.for_worker(0) == {}, "all or nothing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may bind every port")
def test_a_port_without_permission(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"listeners\[0\]\.address: cannot bind 127\.0\.0\.1:1: Permission denied"):
        make(1).bind([tcp(port=1)])


def test_an_address_that_is_not_ours(make: Make) -> None:
    with pytest.raises(ConfigError, match="Cannot assign requested address"):
        make(1).bind([tcp(host="203.0.113.1")])


@pytest.mark.parametrize("compat", [False, True])
def test_ipv6_takes_ipv4_only_when_told(make: Make, compat: bool) -> None:
    sockets = make(1)
    try:
        sockets.bind([ListenerConfig(name="six", address=AddressConfig(host="::", ipv4_compat=compat))])
    except ConfigError as error:
        pytest.skip(f"no IPv6 here: {error}")
    ((_, sock),) = sockets.for_worker(0).items()
    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == (not compat)
    if compat:  # the other way round, the IPv4 port may be somebody else's
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", sock.getsockname()[1])) == 0


def test_backlog(make: Make) -> None:
    assert somaxconn() > 0
    sockets = make(1)
    sockets.bind([tcp(tcp_backlog_size=1)])
    ((_, sock),) = sockets.for_worker(0).items()
    clients = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(sock.getsockname())
        clients.append(client)
    accepted = 0
    sock.settimeout(0.2)
    try:
        while True:
            sock.accept()[0].close()
            accepted += 1
            if accepted == 2:
                break
    finally:
        for client in clients:
            client.close()
    assert accepted == 2


def test_a_unix_socket_has_its_mode_and_goes_with_us(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    sockets = make(2)
    sockets.bind([unix(str(path), 0o640)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    sockets.close()
    assert not path.exists()


def test_only_our_own_path_is_unlinked(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    sockets = make(1)
    sockets.bind([unix(str(path))])
    path.unlink()
    successor = make(1)
    successor.bind([unix(str(path))])
    sockets.close()
    assert path.exists()


def test_a_stale_unix_socket_is_replaced_but_nothing_else(make: Make, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    make(1).bind([unix(str(stale))])
    with pytest.raises(ConfigError, match="Address already in use"):
        make(1).bind([unix(str(stale))])
    plain = tmp_path / "file"
    plain.write_text("precious")
    with pytest.raises(ConfigError, match="Address already in use"):
        make(1).bind([unix(str(plain))])
    assert plain.read_text() == "precious"


def test_abstract_unix_sockets(make: Make) -> None:
    name = f"@mesh-proxy-test-{os.getpid()}"
    make(1).bind([unix(name)])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("\0" + name[1:])
    with pytest.raises(ConfigError, match="Address already in use"):
        make(1).bind([unix(name)])


def test_freebind(make: Make) -> None:
    make(1).bind([tcp(host="203.0.113.1", freebind=True)])
