"""`envoy.filters.listener.http_inspector`: the first bytes say whether a connection speaks HTTP; then its filter chain is chosen.

What was found (`http/1.0`, `http/1.1` or `h2c`) counts as the connection's application protocol, so that chains can ask for it by
`filter_chain_match.application_protocols`; a connection that speaks something else has none. So one port can serve Triple (an
HTTP connection manager) and Dubbo 2 (a Dubbo manager), whose frames begin with `da bb`.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, Final, cast

from mesh_codecs.http2 import PREFACE
from mesh_proxy.stats.group import StatGroup

if TYPE_CHECKING:
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo

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


_STATS: Final = {"http/1.0": "http10_found", "http/1.1": "http11_found", "h2c": "http2_found", "": "http_not_found"}


class Inspection(asyncio.Protocol):
    """Has a connection until its protocol is known."""

    __slots__ = ("_found", "_listener", "_prefix", "_queue", "_stats", "_transport", "connection_info", "owner")

    def __init__(self, listener: Listener, info: ConnectionInfo) -> None:
        self._listener = listener
        self.owner: ConnectionOwner = listener
        self.connection_info = info
        self._transport: asyncio.Transport
        self._prefix = b""
        self._found = False
        self._stats = listener.context.registry.get(InspectorStats, "http_inspector.")
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
        found = inspect(self._prefix)
        if found is not None:
            self._settle(found)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._found:
            self._leave()
            self.owner.connection_closed(self)

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """Too little came for too long."""
        self._listener.stats.downstream_pre_cx_timeout += 1
        if self._listener.config.continue_on_listener_filters_timeout:
            self._settle("")
        else:
            self._transport.abort()

    def _leave(self) -> None:
        self._listener.stats.downstream_pre_cx_active -= 1
        if self._queue is not None:
            self._queue.discard(self)

    def _settle(self, found: str) -> None:
        name = _STATS[found]
        setattr(self._stats, name, getattr(self._stats, name) + 1)
        info = self.connection_info
        info.application_protocols = (found,) if found else ()
        factory = self._listener.chain_for(info)
        if factory is None:
            self._transport.abort()
            return
        self._found = True
        self._leave()
        connection = factory(info, self._listener)
        transport = self._transport
        self._listener.inspected(self)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if not transport.is_closing():
            connection.data_received(self._prefix)

    # -- as any connection of a listener

    def close_when_idle(self) -> None:
        """Nothing was asked yet."""
        self._transport.abort()

    def abort(self) -> None:
        """End now."""
        self._transport.abort()

    def move(self, mover: Mover) -> None:
        """The connection that it becomes will be asked."""
