"""A quiet moment on a busy HTTP/2 connection, so that it can move to a new process.

Requests overlap, so there may never be a moment without one. Therefore reading stops for a while: no request begins, those in
progress end, and the connection is quiet. A stream that needs the caller, for the rest of its request or for flow-control credit,
cannot end like that; it gets time first. One that needs him for long is a stream without an end: then the caller is asked to go
elsewhere for new requests (GOAWAY), and the connection stays.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_proxy.network.http2_connection import Http2Connection

FIRST_PAUSE_S: Final = 0.25
"""how long nothing is read at first; twice as long each time, as answers may be slow"""
LONGEST_PAUSE_S: Final = 4.0
"""what a caller may take for a slow network"""
RETRY_S: Final = 0.1
"""between two looks while streams need the caller"""
ENDLESS_S = 3.0
"""a request that is still incomplete then may never end"""
PATIENCE_S: Final = 30.0
"""after that the connection is drained instead"""


class Http2Quiet:
    """Of one connection; does nothing until it is sought."""

    __slots__ = ("_connection", "_pause", "_paused", "_since", "_timer")

    def __init__(self, connection: Http2Connection) -> None:
        self._connection = connection
        self._since = 0.0
        """when it was first sought"""
        self._pause = FIRST_PAUSE_S
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def seek(self) -> None:
        """Something is in progress. The connection offers itself when it no longer is."""
        if self._timer is not None:
            return
        now = monotonic()
        if not self._since:
            self._since = now
        connection = self._connection
        waits = connection.waits_for_caller(self._since)
        if now - self._since > PATIENCE_S or (waits is None and now - self._since > ENDLESS_S):
            connection.close_when_idle()
            return
        if waits is False:
            self._paused = True
            connection.hold_reading()
            self._arm(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
        else:
            self._arm(RETRY_S)

    def stop(self) -> None:
        """Quiet, or no longer wanted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._paused:
            self._paused = False
            self._connection.release_reading()

    def _arm(self, seconds: float) -> None:
        self._timer = self._connection.context.loop.call_later(seconds, self._due)

    def _due(self) -> None:
        self._timer = None
        was_paused = self._paused
        self.stop()
        connection = self._connection
        if was_paused and not connection.closed:
            # Give the caller as long as he was kept waiting.
            self._arm(self._pause / 2)
        else:
            connection.seek_quiet()
        connection.context.flush()
