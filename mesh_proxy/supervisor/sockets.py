"""Listening sockets: bound once by the supervisor, which keeps a copy of each, so that a replaced worker gets the same ones.

A TCP address has one socket per worker (SO_REUSEPORT): the kernel spreads connections over them, and each has its own accept
queue that outlives its worker. A unix socket, and a listener with `enable_reuse_port: false`, has one socket that all share.

In a hot upgrade the sockets of the old process come first: `inherit` takes them, `bind` uses them. An accept queue is never
closed: with fewer workers than sockets one worker accepts from several; with more workers the missing ones are bound beside the
others and listen only when this process begins to accept (`release`), so that nobody waits in a queue of a process that may fail.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.common import AddressConfig
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.network.socket_options import set_freebind, set_options, set_transparent
from mesh_proxy.worker.interface import SocketKey

AddressKey = tuple[str, str]
"""(listener name, address as configured)"""

_DEFAULT_BACKLOG: Final = 4096
"""when net.core.somaxconn cannot be read; the kernel's own default"""


@dataclass(slots=True)
class BoundAddress:
    """One listener address and its sockets."""

    address: AddressConfig
    """with the real port when the configuration says 0"""
    sockets: tuple[socket.socket, ...]
    """by worker index, or one for all; more than there are workers when there were more before an upgrade"""
    unix_inode: int = 0
    """of the path that we made; only that is unlinked at the end"""
    inherited: bool = False
    """its sockets listened before this process was there"""
    future_inode: int = 0
    """becomes unix_inode when the old process has given the path up"""
    silent: tuple[tuple[socket.socket, int], ...] = ()
    """those among `sockets` that are bound and do not listen yet, with their backlog"""


class ListenSockets:
    """Every bound address by (listener name, address as configured)."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._bound: dict[AddressKey, BoundAddress] = {}
        self._inherited: dict[AddressKey, BoundAddress] = {}
        self._held = False

    def inherit(self, key: AddressKey, bound: BoundAddress) -> None:
        """Take what another process has bound. Until `release` no worker gets any socket, and until `own` no path is ours."""
        bound.inherited = True
        self._held = True
        known = self._inherited.get(key)
        if known is None:
            self._inherited[key] = bound
        else:
            known.sockets += bound.sockets

    def release(self) -> None:
        """Begin to accept: all sockets listen and go to workers. Inherited ones that no listener has are closed; they are still
        the old process's."""
        self._held = False
        for bound in self._bound.values():
            for sock, backlog in bound.silent:
                sock.listen(backlog)
            bound.silent = ()
        for bound in self._inherited.values():
            _close(bound)
        self._inherited.clear()

    def own(self) -> None:
        """The old process has given everything up: the paths are ours to unlink."""
        for bound in self._bound.values():
            if bound.inherited:
                bound.unix_inode = bound.future_inode

    @property
    def empty(self) -> bool:
        """Nothing is bound."""
        return not self._bound

    def passed(self, wanted: Iterable[AddressKey]) -> dict[AddressKey, BoundAddress]:
        """What a new process with these listeners may have: the same listener, or the same address under another name."""
        names = set(wanted)
        addresses = {address for _, address in names if not address.endswith(":0")}  # port 0 is any port
        return {key: bound for key, bound in self._bound.items() if key in names or addresses & {key[1], str(bound.address)}}

    def disown(self, keys: Iterable[AddressKey], *, back: Mapping[AddressKey, int] | None = None) -> dict[AddressKey, int]:
        """The paths of these are another process's to unlink; what `back` needs to take them back."""
        inodes = {}
        for key in keys:
            bound = self._bound[key]
            inodes[key] = bound.unix_inode
            bound.unix_inode = back[key] if back else 0
        return inodes

    def close_all_but(self, keys: Container[AddressKey]) -> None:
        """Close what a new process has not taken."""
        for key in [key for key in self._bound if key not in keys]:
            _close(self._bound.pop(key))

    def bind(self, listeners: Sequence[ListenerConfig]) -> None:
        """Bind what is not bound yet, all or nothing, then listen. Raises ConfigError with the path of the address."""
        fresh: dict[AddressKey, BoundAddress] = {}
        try:
            for path, listener, address in addresses_of(listeners):
                key = (listener.name, str(address))
                if key in self._bound or key in fresh:
                    continue
                try:
                    inherited = self._find_inherited(key, address)
                    if inherited is None:
                        fresh[key] = _bind(listener, address, self._concurrency)
                    else:
                        fresh[key] = _add_sockets(inherited, listener, self._concurrency)
                except OSError as error:
                    why = error.strerror or os.strerror(error.errno or 0)
                    raise ConfigError(path, f"cannot bind {address}: {why}") from None
            for path, listener, address in addresses_of(listeners):
                bound = fresh.get((listener.name, str(address)))
                try:
                    for sock in bound.sockets if bound is not None and not bound.inherited else ():
                        sock.listen(listener.tcp_backlog_size or somaxconn())
                        set_options(sock, listener.socket_options, "STATE_LISTENING")
                except OSError as error:  # another socket listens on the same address without SO_REUSEPORT
                    raise ConfigError(path, f"cannot listen on {address}: {error.strerror}") from None
        except ConfigError:
            for bound in fresh.values():
                _close(bound)
            raise
        self._bound |= fresh

    def _find_inherited(self, key: AddressKey, address: AddressConfig) -> BoundAddress | None:
        """By name and address, else by address alone: the listener may have another name now, or had port 0 before."""
        found = self._inherited.pop(key, None)
        if found is None and (address.port or address.path):
            text = str(address)
            for other, bound in self._inherited.items():
                if text in (other[1], str(bound.address)):
                    return self._inherited.pop(other)
        return found

    def for_worker(self, index: int) -> dict[SocketKey, socket.socket]:
        """The sockets of one worker."""
        found: dict[SocketKey, socket.socket] = {}
        for (name, address), bound in self._bound.items() if not self._held else ():
            count = len(bound.sockets)
            mine = range(index, count, self._concurrency) if count > self._concurrency else (index % count,)
            for number, position in enumerate(mine):
                found[name, address, number] = bound.sockets[position]
        return found

    def retain(self, listeners: Sequence[ListenerConfig]) -> None:
        """Close what these listeners do not name."""
        wanted = {(listener.name, str(address)) for _, listener, address in addresses_of(listeners)}
        for key in [key for key in self._bound if key not in wanted]:
            _close(self._bound.pop(key))

    def local_address(self, key: AddressKey) -> AddressConfig | None:
        """Where it is really bound (port 0 resolved); None if it is not bound."""
        bound = self._bound.get(key)
        return bound.address if bound else None

    def close(self) -> None:
        """Close everything and unlink our unix sockets."""
        for bound in (*self._bound.values(), *self._inherited.values()):
            _close(bound)
        self._bound.clear()
        self._inherited.clear()


def addresses_of(listeners: Sequence[ListenerConfig]) -> Iterator[tuple[str, ListenerConfig, AddressConfig]]:
    """(field path, listener, address) of every address that is to be bound."""
    for index, listener in enumerate(listeners):
        if listener.bind_to_port:
            yield f"listeners[{index}].address", listener, listener.address
            for extra, address in enumerate(listener.additional_addresses):
                yield f"listeners[{index}].additional_addresses[{extra}].address", listener, address


def somaxconn() -> int:
    """The kernel's limit of an accept queue, Envoy's default."""
    try:
        with open("/proc/sys/net/core/somaxconn") as file:
            return int(file.read())
    except (OSError, ValueError):
        return _DEFAULT_BACKLOG


def _bind(listener: ListenerConfig, address: AddressConfig, concurrency: int) -> BoundAddress:
    if address.path:
        sock = bind_unix(address)
        inode = 0 if address.path.startswith("@") else os.stat(address.path).st_ino
        return BoundAddress(address, (sock,), inode)
    sockets: list[socket.socket] = []
    port = address.port
    try:
        for _ in range(concurrency if listener.enable_reuse_port else 1):
            sockets.append(_bind_tcp(listener, address, port))
            port = sockets[0].getsockname()[1]
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    real = AddressConfig(host=address.host, port=port, ipv4_compat=address.ipv4_compat)
    return BoundAddress(real, tuple(sockets))


def _add_sockets(inherited: BoundAddress, listener: ListenerConfig, concurrency: int) -> BoundAddress:
    """An inherited address, with a socket more for each worker that has none."""
    first = inherited.sockets[0]
    missing = concurrency - len(inherited.sockets)
    if missing > 0 and listener.enable_reuse_port and _shares_port(first):
        backlog = listener.tcp_backlog_size or somaxconn()
        added = tuple(_bind_tcp(listener, inherited.address, inherited.address.port) for _ in range(missing))
        inherited.sockets += added
        inherited.silent = tuple((sock, backlog) for sock in added)
    return inherited


def _shares_port(sock: socket.socket) -> bool:
    return sock.family != socket.AF_UNIX and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _bind_tcp(listener: ListenerConfig, address: AddressConfig, port: int) -> socket.socket:
    v6 = ":" in address.host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.enable_reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.ipv4_compat else 1)
        if listener.transparent:
            set_transparent(sock)
        if listener.freebind:
            set_freebind(sock)
        set_options(sock, listener.socket_options, "STATE_PREBIND")
        sock.bind((address.host, port))
        set_options(sock, listener.socket_options, "STATE_BOUND")
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(address: AddressConfig) -> socket.socket:
    """A unix socket. A path left behind by a dead process is replaced; one on which somebody listens is not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if address.path.startswith("@"):
            sock.bind("\0" + address.path[1:])
            return sock
        try:
            _bind_path(sock, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(address.path):
                raise
            os.unlink(address.path)
            _bind_path(sock, address)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_path(sock: socket.socket, address: AddressConfig) -> None:
    if not address.mode:
        sock.bind(address.path)
        return
    before = os.umask(0o777 & ~address.mode)  # so that there is no moment with wider permissions
    try:
        sock.bind(address.path)
    finally:
        os.umask(before)
    os.chmod(address.path, address.mode)


def _is_stale(path: str) -> bool:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _close(bound: BoundAddress) -> None:
    for sock in bound.sockets:
        sock.close()
    path = bound.address.path
    if bound.unix_inode:
        try:
            if os.stat(path).st_ino == bound.unix_inode:
                os.unlink(path)
        except OSError:
            pass  # somebody else removed it
