"""One direction of a stream on its way through the filters, and the gates that filters close.

Nearly always no filter stops anything: an event runs through the hooks of its kind and is delivered. A filter that returns STOP
or STOP_AND_BUFFER closes a gate behind itself, which holds what has passed its hook (the head, pieces of the body) and lines up
what comes later; opening it lets all of that go on in order. Several filters may have closed gates at the same time.

What lines up is bounded: beyond the buffer limit the side that sends is no longer read, and a body that is being collected
is too large.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.filter import FilterStatus
from mesh_proxy.stream.filter_chain import DATA, HEADERS, TRAILERS, Direction

if TYPE_CHECKING:
    from mesh_filters.filter import Filter, Stream

Message = RequestHeaders | ResponseHeaders | Data | Trailers
_CONTINUE: Final = FilterStatus.CONTINUE


class Ends(Protocol):
    """Where events go after the last filter, and who is told when too much has gathered."""

    def deliver(self, flow: Flow, kind: int, event: Message) -> None:
        """An event has passed all filters."""

    def too_large(self, flow: Flow) -> None:
        """A filter wanted to collect more than the limit."""

    def hold_source(self, flow: Flow, on: bool) -> None:
        """Stop, or start again, to read from the side that sends."""


class Gate:
    """What one filter holds back."""

    __slots__ = (
        "body",
        "collecting",
        "draining",
        "ended",
        "flow_size",
        "head",
        "position",
        "queue",
        "size",
        "stream_id",
        "trailers",
    )

    def __init__(self, position: int) -> None:
        self.position = position
        self.collecting = False
        """STOP_AND_BUFFER: later pieces still pass the filter's hook"""
        self.draining = False
        """it opens: whatever comes meanwhile lines up behind what is held"""
        self.head: RequestHeaders | ResponseHeaders | None = None
        self.body: list[bytes] = []
        self.size = 0
        """bytes in `body`"""
        self.flow_size = 0
        self.stream_id = 0
        self.ended = False
        """`body` has the end of the message"""
        self.trailers: Trailers | None = None
        self.queue: deque[tuple[int, Message]] = deque()
        """later events, which the filter has not seen"""

    def hold(self, kind: int, event: Message) -> None:
        """Keep what the filter has seen."""
        if kind == DATA:
            assert isinstance(event, Data)
            self.body.append(event.data)
            self.size += len(event.data)
            self.flow_size += event.flow_size
            self.ended = event.end_stream
            self.stream_id = event.stream_id
        elif kind == TRAILERS:
            assert isinstance(event, Trailers)
            self.trailers = event
        else:
            assert isinstance(event, (RequestHeaders, ResponseHeaders))
            self.head = event


class Flow:
    """One direction of one stream."""

    __slots__ = ("blocked", "direction", "ends", "filters", "gates", "limit", "over", "queued", "stream")

    def __init__(self, direction: Direction, filters: list[Filter], stream: Stream, ends: Ends, limit: int) -> None:
        self.direction = direction
        self.filters = filters
        self.stream = stream
        self.ends = ends
        self.limit = limit
        """bytes that may be collected by one filter, or line up before the sender is held"""
        self.gates: dict[int, Gate] | None = None
        """closed gates by position; None when there never was one"""
        self.over = False
        """nothing goes this way any more"""
        self.queued = 0
        """bytes that line up at gates"""
        self.blocked = False
        """the sender is held"""

    def enter(self, kind: int, event: Message) -> None:
        """An event arrives."""
        if not self.over:
            self._walk(kind, event, 0)

    def _walk(self, kind: int, event: Message, start: int) -> None:
        if self.gates:
            self._walk_by_gates(kind, event, start)
            return
        filters = self.filters
        stream = self.stream
        for position, index, hook in self.direction.by_kind[kind]:
            if position >= start:
                status = hook(filters[index], stream, event)
                if self.over:
                    return
                if status is not _CONTINUE:
                    self.close(position, kind, event, status)
                    return
        self.ends.deliver(self, kind, event)

    def _walk_by_gates(self, kind: int, event: Message, start: int) -> None:
        gates = self.gates
        assert gates is not None
        hooks = self.direction.at[kind]
        indexes = self.direction.indexes
        for position in range(start, len(indexes)):
            gate = gates.get(position)
            if gate is not None:
                self._at_gate(gate, kind, event)
                return
            hook = hooks.get(position)
            if hook is not None:
                status = hook(self.filters[indexes[position]], self.stream, event)
                if self.over:
                    return
                if status is not _CONTINUE:
                    self.close(position, kind, event, status)
                    return
        self.ends.deliver(self, kind, event)

    def close(self, position: int, kind: int, event: Message, status: FilterStatus) -> None:
        """A filter stops the direction with this event."""
        gate = Gate(position)
        gate.collecting = status is FilterStatus.STOP_AND_BUFFER
        if self.gates is None:
            self.gates = {}
        self.gates[position] = gate
        self._hold(gate, kind, event)

    def _hold(self, gate: Gate, kind: int, event: Message) -> bool:
        """The filter has seen it and keeps it, if it is not too much."""
        gate.hold(kind, event)
        if gate.collecting and gate.size > self.limit:
            self.ends.too_large(self)
            return False
        return True

    def _at_gate(self, gate: Gate, kind: int, event: Message) -> None:
        if gate.draining or not gate.collecting:
            gate.queue.append((kind, event))
            if kind == DATA:
                assert isinstance(event, Data)
                self.queued += len(event.data)
                if self.queued > self.limit and not self.blocked:
                    self.blocked = True
                    self.ends.hold_source(self, True)
            return
        status = self._ask(gate, kind, event)
        if self.over:
            return
        if status is _CONTINUE:
            if self._hold(gate, kind, event):
                self._open(gate)
        else:
            gate.collecting = status is FilterStatus.STOP_AND_BUFFER
            self._hold(gate, kind, event)

    def _ask(self, gate: Gate, kind: int, event: Message) -> FilterStatus:
        hook = self.direction.at[kind].get(gate.position)
        if hook is not None:
            return hook(self.filters[self.direction.indexes[gate.position]], self.stream, event)
        if gate.collecting:
            # A filter that collects and has no hook for this lets go at the end of the message.
            ended = kind == TRAILERS or (isinstance(event, Data) and event.end_stream)
            return _CONTINUE if ended else FilterStatus.STOP_AND_BUFFER
        return _CONTINUE

    def add(self, who: Filter, event: Data) -> None:
        """More body from a filter on the way."""
        indexes = self.direction.indexes
        position = next(position for position, index in enumerate(indexes) if self.filters[index] is who)
        if not self.over:
            self._walk(DATA, event, position + 1)

    # -- opening

    def resume(self, who: Filter | None) -> None:
        """A filter lets go; without a name, the one furthest on the way."""
        gates = self.gates
        if self.over or not gates:
            return
        if who is None:
            gate: Gate | None = gates[max(gates)]
        else:
            indexes = self.direction.indexes
            gate = next((one for position, one in gates.items() if self.filters[indexes[position]] is who), None)
        if gate is not None and not gate.draining:
            self._open(gate)

    def _open(self, gate: Gate) -> None:
        gate.draining = True
        gate.collecting = False
        self._pass_held(gate)
        while gate.queue:
            kind, event = gate.queue.popleft()
            if kind == DATA:
                assert isinstance(event, Data)
                self.queued -= len(event.data)
            status = self._ask(gate, kind, event)
            if self.over:
                return
            if status is _CONTINUE:
                if gate.collecting:
                    if not self._hold(gate, kind, event):
                        return
                    gate.collecting = False
                    self._pass_held(gate)
                else:
                    self._walk(kind, event, gate.position + 1)
            else:
                gate.collecting = status is FilterStatus.STOP_AND_BUFFER
                self._hold(gate, kind, event)
                if not gate.collecting:
                    break
        if self.over:
            return
        gate.draining = False
        if gate.collecting or gate.queue or gate.head is not None or gate.body or gate.trailers is not None:
            return  # closed again
        assert self.gates is not None
        del self.gates[gate.position]
        if self.blocked and self.queued <= self.limit:
            self.blocked = False
            self.ends.hold_source(self, False)

    def _pass_held(self, gate: Gate) -> None:
        """The head, the body as one piece, the trailers."""
        after = gate.position + 1
        head, gate.head = gate.head, None
        if head is not None:
            self._walk(HEADERS, head, after)
        if (gate.body or gate.ended) and not self.over:
            body = gate.body
            piece = Data(gate.stream_id, body[0] if len(body) == 1 else b"".join(body), gate.ended, gate.flow_size)
            gate.body = []
            gate.size = gate.flow_size = 0
            gate.ended = False
            self._walk(DATA, piece, after)
        trailers, gate.trailers = gate.trailers, None
        if trailers is not None and not self.over:
            self._walk(TRAILERS, trailers, after)

    def finish(self) -> None:
        """Nothing goes this way any more: forget what is held."""
        self.over = True
        if self.gates is not None:
            for gate in self.gates.values():
                gate.queue.clear()  # one of them may be opening right now
            self.gates = None
        if self.blocked:
            self.blocked = False
            self.ends.hold_source(self, False)
