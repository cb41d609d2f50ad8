"""Short gRPC responses in one write, though their endpoint writes them in three.

Many gRPC servers write head, message and trailers one by one, some ten microseconds apart. Passed on like that, each call costs
two writes more, and its caller two reads more. So where the calls of a head have lately been answered at one go, the response
head waits for the message and the message for the trailers, HOLD_S at the most. A call that takes its time, or brings more than
HELD_BYTES, teaches that its kind is not to be held; so the first message of a stream is late once, if ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

    from mesh_codecs.http2.heads import Head
    from mesh_proxy.network.http2_flow import Http2Flow
    from mesh_proxy.stream.planned_http2 import PlannedHttp2

BRIEF_S: Final = 0.001
"""between the head and the end of a response that came at one go"""
HOLD_S: Final = 0.005
"""how long a response waits for its end. A shorter time would have the loop woken more often than it saves writes."""
HELD_BYTES: Final = 4096
"""of a body that waits"""
ENOUGH_CALLS: Final = 4
"""answered at one go, one after the other, before the next one is held"""
CALLS_PASSED_ON: Final = 16
"""after one that was not"""


class HeldResponses:
    """Of one worker: one timer for all connections with a response that waits."""

    __slots__ = ("_loop", "_waiting", "hold_s")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Http2Flow] = []
        self.hold_s = HOLD_S

    def add(self, connection: Http2Flow) -> None:
        """A response of this connection waits from now on."""
        if not self._waiting:
            self._loop.call_later(self.hold_s, self._time_is_up)
        self._waiting.append(connection)

    def _time_is_up(self) -> None:
        """Of the first who waits. The others have waited for less, and go as well: that is one write more now and then."""
        while self._waiting:
            self._waiting.pop().release()

    def learn(self, head: Head, stream: PlannedHttp2) -> None:
        """The response to a request with this head has ended."""
        if stream.last_upstream_rx_time - stream.first_upstream_rx_time > BRIEF_S or stream.bytes_sent > HELD_BYTES:
            head.brief = -CALLS_PASSED_ON
        elif head.brief < ENOUGH_CALLS:
            head.brief += 1
