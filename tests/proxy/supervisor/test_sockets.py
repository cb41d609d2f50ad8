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
from mesh_proxy.supervisor.sockets import BoundAddress, ListenSockets, addresses_of, somaxconn

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
    sock.settimeout(20)
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


# Hot upgrade.


def handed(old: ListenSockets, new: ListenSockets, wanted: list[ListenerConfig]) -> None:
    """What the link does: descriptors are duplicated, one by one."""
    keys = [(listener.name, str(address)) for _, listener, address in addresses_of(wanted)]
    for key, bound in old.passed(keys).items():
        for sock in bound.sockets:
            new.inherit(key, BoundAddress(bound.address, (sock.dup(),), future_inode=bound.unix_inode))


def listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (2, 3), (3, 1), (3, 2), (5, 2)])
def test_every_inherited_socket_has_a_worker_whatever_their_numbers(make: Make, before: int, after: int) -> None:
    old, new = make(before), make(after)
    old.bind([tcp()])
    handed(old, new, [tcp()])
    new.bind([tcp()])
    assert new.for_worker(0) == {}, "nobody accepts before the release"
    everything = [sock for bound in new._bound.values() for sock in bound.sockets]
    assert len(everything) == max(before, after)
    assert [listening(sock) for sock in everything] == [True] * before + [False] * (max(before, after) - before)
    new.release()
    assert all(map(listening, everything))
    shares = [list(new.for_worker(index).values()) for index in range(after)]
    assert sorted(sock.fileno() for share in shares for sock in share) == sorted(sock.fileno() for sock in everything)
    assert all(key[:2] == ("a", "127.0.0.1:0") for key in new.for_worker(0))
    assert len({sock.getsockname()[1] for sock in everything}) == 1


def test_a_caller_in_an_accept_queue_survives_fewer_workers(make: Make) -> None:
    old, new = make(3), make(1)
    old.bind([tcp()])
    local = old.local_address(("a", "127.0.0.1:0"))
    assert local is not None
    callers = []
    for _ in range(20):
        callers.append(socket.create_connection(("127.0.0.1", local.port)))
    handed(old, new, [tcp()])
    new.bind([tcp()])
    new.release()
    old.close()
    accepted = 0
    for sock in new.for_worker(0).values():
        sock.setblocking(False)
        while True:
            try:
                sock.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
    for caller in callers:
        caller.close()
    assert accepted == 20


def test_listeners_that_only_one_side_has(make: Make) -> None:
    old, new = make(1), make(1)
    old.bind([tcp("both"), tcp("old")])
    wanted = [tcp("both"), tcp("new")]
    assert set(old.passed([("both", "127.0.0.1:0"), ("new", "127.0.0.1:0")])) == {("both", "127.0.0.1:0")}
    handed(old, new, wanted)
    new.bind(wanted)
    fresh = new._bound["new", "127.0.0.1:0"].sockets[0]
    assert listening(fresh), "nobody else listens there: it may as well begin"
    new.release()
    assert {name for name, _, _ in new.for_worker(0)} == {"both", "new"}
    old.close_all_but({("both", "127.0.0.1:0")})
    assert old.local_address(("old", "127.0.0.1:0")) is None
    assert old.local_address(("both", "127.0.0.1:0")) is not None


def test_a_listener_with_another_name_is_found_by_its_address(make: Make) -> None:
    old, new = make(1), make(1)
    old.bind([tcp("before")])
    local = old.local_address(("before", "127.0.0.1:0"))
    assert local is not None
    after = tcp("after", local.port)
    handed(old, new, [after])
    new.bind([after])
    new.release()
    (key,) = new.for_worker(0)
    assert key == ("after", f"127.0.0.1:{local.port}", 0)
    inode = os.fstat(old.for_worker(0)["before", "127.0.0.1:0", 0].fileno()).st_ino
    assert os.fstat(new.for_worker(0)[key].fileno()).st_ino == inode


def test_a_unix_path_belongs_to_the_last_owner(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "s"
    old, new = make(1), make(1)
    old.bind([unix(str(path))])
    key = ("u", str(path))
    handed(old, new, [unix(str(path))])
    new.bind([unix(str(path))])
    new.close()
    assert path.exists(), "it failed before it owned anything"
    new = make(1)
    handed(old, new, [unix(str(path))])
    new.bind([unix(str(path))])
    new.release()
    inodes = old.disown([key])
    old.disown([key], back=inodes)
    old.disown([key])
    new.own()
    old.close()
    assert path.exists()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    new.close()
    assert not path.exists()


def test_what_nobody_wants_is_closed_and_left_to_the_old_one(make: Make) -> None:
    old, new = make(1), make(1)
    old.bind([tcp("a"), tcp("b")])
    handed(old, new, [tcp("a"), tcp("b")])
    new.bind([tcp("a")])
    (unwanted,) = (bound.sockets[0] for bound in new._inherited.values())
    new.release()
    assert unwanted.fileno() == -1
    assert listening(old.for_worker(0)["b", "127.0.0.1:0", 0])
