"""Listener filters that look at the first bytes of a connection before its filter chain is chosen.

`envoy.filters.listener.tls_inspector` finds out whether it speaks TLS, which host it asks for and which protocols it offers;
`envoy.filters.listener.http_inspector` whether it speaks HTTP.

What the latter found (`http/1.0`, `http/1.1` or `h2c`) counts as the connection's application protocol, so that chains can ask
for it by `filter_chain_match.application_protocols`; a connection that speaks something else has none. So one port can serve
Triple (an HTTP connection manager) and Dubbo 2 (a Dubbo manager), whose frames begin with `da bb`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from mesh_codecs.http2 import PREFACE
from mesh_proxy.listener.client_hello import ClientHello, Greeting, read_client_hello
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.stats.group import StatGroup

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo

UNINSPECTED: Final = "inspect"
"""of a connection that moves before its protocol is known"""
MAX_INSPECTED: Final = 8192
"""bytes of a request line that are waited for; who sends more without an end speaks something else (Envoy: 64 KiB at most)"""
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_REQUEST_LINE: Final = re.compile(_TOKEN + rb"+ [!-~\x80-\xff]+ HTTP/1\.([01])\r?\n")
_BEGINNING: Final = re.compile(rb"(?:" + _TOKEN + rb"+(?: [!-~\x80-\xff]*(?: [HTP/1.0]{0,8}\r?)?)?)?\Z")
"""what may still become a request line"""


def inspect(prefix: bytes) -> str | None:
    """The application protocol of a connection that begins so; empty when it is not HTTP, None when more bytes are needed."""
    if prefix.startswith(PREFACE):
        return "h2c"
    if PREFACE.startswith(prefix):
        return None
    line = _REQUEST_LINE.match(prefix)
    if line is not None:
        return "http/1.1" if line[1] == b"1" else "http/1.0"
    return None if len(prefix) < MAX_INSPECTED and _BEGINNING.match(prefix) else ""


class InspectorStats(StatGroup):
    """`http_inspector.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = ("http10_found", "http11_found", "http2_found", "http_not_found", "read_error")
    __slots__ = COUNTERS

    http10_found: int
    http11_found: int
    http2_found: int
    http_not_found: int
    read_error: int


DRAIN_QUIET_S: Final = 1.0
"""how long a drain waits for the first bytes of a connection"""
_STATS: Final = {"http/1.0": "http10_found", "http/1.1": "http11_found", "h2c": "http2_found", "": "http_not_found"}


class TlsInspectorStats(StatGroup):
    """`tls_inspector.*`."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "client_hello_too_large",
        "tls_found",
        "tls_not_found",
        "alpn_found",
        "alpn_not_found",
        "sni_found",
        "sni_not_found",
    )
    __slots__ = COUNTERS

    client_hello_too_large: int
    tls_found: int
    tls_not_found: int
    alpn_found: int
    alpn_not_found: int
    sni_found: int
    sni_not_found: int


class InspectorKind(Enum):
    """What looks at the first bytes."""

    TLS = "tls_inspector"
    HTTP = "http_inspector"


class Inspector(NamedTuple):
    """A listener filter that looks at the first bytes."""

    kind: InspectorKind
    disabled: Callable[[int], bool]
    """for connections to which local port it does not run"""
    most: int = MAX_INSPECTED
    """bytes that it looks at"""


class Inspection(asyncio.Protocol):
    """Has a connection until its protocol is known: the listener filters look one after the other, as they are configured."""

    __slots__ = (
        "_found",
        "_left",
        "_listener",
        "_looked",
        "_moved",
        "_prefix",
        "_queue",
        "_transport",
        "closed",
        "connection_info",
        "owner",
    )

    def __init__(
        self,
        listener: Listener,
        info: ConnectionInfo,
        inspectors: tuple[Inspector, ...],
        prefix: bytes = b"",
        looked: Sequence[str] = (),
    ) -> None:
        self._listener = listener
        self.owner: ConnectionOwner = listener
        self.connection_info = info
        self._transport: asyncio.Transport
        self._prefix = prefix
        self._left = inspectors
        self._looked = [*looked]
        """who has looked already, in a process before us too"""
        self._found = False
        self._moved = False
        self.closed = False
        seconds = listener.config.listener_filters_timeout_s
        self._queue: DeadlineQueue | None = listener.context.deadlines.queue("listener filters", seconds) if seconds else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop has classes of its own
        self._listener.stats.downstream_pre_cx_active += 1
        if self._queue is not None:
            self._queue.add(self, monotonic())
        self.owner.connection_opened(self)

    def data_received(self, data: bytes) -> None:
        self._prefix += data
        while self._left:
            inspector = self._left[0]
            if not (self._look_for_tls(inspector.most) if inspector.kind is InspectorKind.TLS else self._look_for_http()):
                return
            self._left = self._left[1:]
            self._looked.append(inspector.kind.value)
        if not self._transport.is_closing():
            self._settle()

    def _look_for_tls(self, most: int) -> bool:
        """False when more bytes are needed, or nothing more at all."""
        hello = read_client_hello(self._prefix, most)
        if hello is Greeting.MORE:
            return False
        listener = self._listener
        stats = listener.context.registry.get(TlsInspectorStats, "tls_inspector.")
        if hello is Greeting.TOO_LARGE:
            stats.client_hello_too_large += 1
            listener.stats.downstream_listener_filter_error += 1
            self._transport.abort()
            return False
        if not isinstance(hello, ClientHello):
            stats.tls_not_found += 1
            return True
        stats.tls_found += 1
        info = self.connection_info
        info.transport_protocol = "tls"
        info.requested_server_name = hello.server_name.encode()
        info.application_protocols = hello.application_protocols
        if hello.server_name:
            stats.sni_found += 1
        else:
            stats.sni_not_found += 1
        if hello.application_protocols:
            stats.alpn_found += 1
        else:
            stats.alpn_not_found += 1
        return True

    def _look_for_http(self) -> bool:
        """False when more bytes are needed."""
        info = self.connection_info
        if info.transport_protocol == "tls":
            return True
        found = inspect(self._prefix)
        if found is None:
            return False
        self._http_is(found)
        return True

    def _http_is(self, found: str) -> None:
        stats = self._listener.context.registry.get(InspectorStats, "http_inspector.")
        name = _STATS[found]
        setattr(stats, name, getattr(stats, name) + 1)
        self.connection_info.application_protocols = (found,) if found else ()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._found:
            return
        self.closed = True
        self._leave()
        if self._moved:
            self.owner.connection_moved(self)
        else:
            self.owner.connection_closed(self)

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Too little came for too long."""
        self._listener.stats.downstream_pre_cx_timeout += 1
        if self._listener.config.continue_on_listener_filters_timeout:
            if any(inspector.kind is InspectorKind.HTTP for inspector in self._left):
                self._http_is("")
            self._settle()
        else:
            self._transport.abort()

    def _leave(self) -> None:
        self._listener.stats.downstream_pre_cx_active -= 1
        if self._queue is not None:
            self._queue.discard(self)

    def _settle(self) -> None:
        info = self.connection_info
        factory = self._listener.chain_for(info)
        if factory is None:
            self._transport.abort()
            return
        self._found = True
        self._leave()
        connection: Any = factory(info, self._listener)
        transport = self._transport
        self._listener.inspected(self)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._prefix and not transport.is_closing():
            connection.data_received(self._prefix)

    # -- as any connection of a listener

    def close_when_idle(self) -> None:
        """Nothing was asked yet, but the first request may be on its way: then what the connection becomes is asked."""
        self._listener.context.loop.call_later(DRAIN_QUIET_S, self._close_if_undecided)

    def _close_if_undecided(self) -> None:
        if not self._found and not self._moved and not self.closed:
            self._transport.abort()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    # -- to another process

    def move(self, mover: Mover) -> None:
        """Nothing was asked yet, so nothing is in progress. If it becomes another connection first, that one is asked."""
        mover.offer(self)

    def export(self) -> MovingState | None:
        """See `Movable`."""
        if self._found or self.closed or self._transport.is_closing():
            return None
        self._transport.pause_reading()
        if self._queue is not None:
            self._queue.discard(self)
        info = self.connection_info
        facts = {"start_monotonic": info.start_monotonic, "start_wall": info.start_wall, "looked": self._looked}
        return MovingState(UNINSPECTED, self._prefix, facts)

    def listener_name(self) -> str:
        """See `Movable`."""
        return self.owner.name

    def fileno(self) -> int:
        """See `Movable`."""
        return int(self._transport.get_extra_info("socket").fileno())

    def let_go(self, late: Callable[[bytes], None]) -> None:
        """See `Movable`."""
        self._moved = True
        self._transport.abort()

    def keep(self) -> None:
        """See `Movable`. What it becomes is told to go when it is time."""
        self.stay()

    def stay(self) -> None:
        """See `Movable`."""
        if not self.closed:
            if self._queue is not None:
                self._queue.add(self, monotonic())
            self._transport.resume_reading()

    def write_late(self, data: bytes) -> None:
        """Nothing was asked, nothing is owed."""
