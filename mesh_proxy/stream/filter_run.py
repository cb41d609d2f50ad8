"""One stream's walk through its filters, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.filter import Filter, FilterStatus

if TYPE_CHECKING:
    from mesh_proxy.stream.http_stream import HttpStream

Message = RequestHeaders | ResponseHeaders | Data | Trailers
Hook = Callable[[Any, Any], FilterStatus]

HEADERS: Final = 0
DATA: Final = 1
TRAILERS: Final = 2
_REQUEST_HOOKS: Final = ("on_request_headers", "on_request_data", "on_request_trailers")
_RESPONSE_HOOKS: Final = ("on_response_headers", "on_response_data", "on_response_trailers")


class Direction:
    """The state of one direction: who holds it, what is held, what is collected."""

    __slots__ = ("buffer", "buffer_size", "buffering", "deliver", "held", "hooks", "over_limit", "queue", "queued", "stopped_at")

    def __init__(
        self,
        filters: Sequence[Filter],
        names: tuple[str, str, str],
        deliver: tuple[Callable[[Any], None], ...],
        over_limit: Callable[[], None],
    ) -> None:
        self.hooks: list[tuple[Hook | None, Hook | None, Hook | None]] = []
        for one in filters:
            kind = type(one)
            found = [getattr(one, name) if getattr(kind, name) is not getattr(Filter, name) else None for name in names]
            self.hooks.append((found[0], found[1], found[2]))
        self.deliver = deliver
        """what happens to an event after the last filter, by kind"""
        self.over_limit = over_limit
        self.stopped_at = -1
        """index of the filter that stopped the direction, -1 when none does"""
        self.buffering = False
        """it stopped with STOP_AND_BUFFER"""
        self.held: Message | None = None
        """the head that the stopping filter has seen and that the next one has not"""
        self.buffer: list[bytes] = []
        self.buffer_size = 0
        self.queue: list[tuple[int, Message]] = []
        """later events while stopped, not yet seen by the stopping filter"""
        self.queued = 0


class FilterRun:
    """The filters of one stream."""

    __slots__ = ("_blocked", "_replying", "filters", "limit", "request", "response", "stream")

    def __init__(self, stream: HttpStream, factories: tuple[Callable[[], Filter], ...]) -> None:
        self.stream = stream
        self.filters = [factory() for factory in factories]
        self.limit = stream.downstream.owner.buffer_limit
        self._blocked = False
        self._replying = False
        self.request = Direction(
            self.filters,
            _REQUEST_HOOKS,
            (self._route, stream.forward_data, stream.forward_trailers),
            lambda: stream.send_local_reply(413, b"Payload Too Large", details="request_payload_too_large"),
        )
        self.response = Direction(
            self.filters[::-1],
            _RESPONSE_HOOKS,
            (stream.encode_headers, stream.encode_data, stream.encode_trailers),
            self._response_too_large,
        )

    def _route(self, event: RequestHeaders) -> None:
        self.stream.route_request()

    def _response_too_large(self) -> None:
        stream = self.stream
        if self._replying:
            # Not even our own answer fits: there is nothing left to say.
            stream.reset_downstream()
            return
        self.response.stopped_at = -1
        self.response.held = None
        stream.response = None
        stream.send_local_reply(502, b"Response Payload Too Large", details="response_payload_too_large")

    # -- events in

    def request_headers(self, event: RequestHeaders) -> None:
        """The request's head enters the first filter."""
        self._enter(self.request, HEADERS, event)

    def request_data(self, event: Data) -> None:
        """A piece of the request's body."""
        self._enter(self.request, DATA, event)

    def request_trailers(self, event: Trailers) -> None:
        """The request's trailers."""
        self._enter(self.request, TRAILERS, event)

    def response_headers(self, event: ResponseHeaders) -> None:
        """The response's head enters the last filter."""
        self.stream.response = event
        try:
            self._enter(self.response, HEADERS, event)
        finally:
            if self.response.stopped_at >= 0:
                # Nothing was sent yet: a local reply is still possible.
                self.stream.response = None

    def response_data(self, event: Data) -> None:
        """A piece of the response's body."""
        self._enter(self.response, DATA, event)

    def response_trailers(self, event: Trailers) -> None:
        """The response's trailers."""
        self._enter(self.response, TRAILERS, event)

    def local_reply(self, event: ResponseHeaders, body: bytes) -> None:
        """An answer of ours takes the response's way, whatever was held there before."""
        self._replying = True
        for one in self.filters:
            if type(one).on_local_reply is not Filter.on_local_reply:
                one.on_local_reply(self.stream, event)
        direction = self.response
        direction.stopped_at = -1
        direction.held = None
        direction.queue.clear()
        direction.buffer.clear()
        self.request.queue.clear()
        self.response_headers(event)
        if not event.end_stream:
            self.response_data(Data(event.stream_id, body, True))

    def complete(self) -> None:
        """The stream is over."""
        self._unblock(self.request)
        for one in self.filters:
            if type(one).on_complete is not Filter.on_complete:
                one.on_complete(self.stream)

    # -- the walk

    def _enter(self, direction: Direction, kind: int, event: Message) -> None:
        at = direction.stopped_at
        if at < 0:
            self._walk(direction, kind, event, 0)
        elif direction.buffering:
            self._walk(direction, kind, event, 0, until=at)
        else:
            direction.queue.append((kind, event))
            if isinstance(event, Data):
                direction.queued += len(event.data)
                if direction.queued > self.limit:
                    self._block(direction)

    def _walk(self, direction: Direction, kind: int, event: Message, start: int, until: int = -1) -> None:
        """Pass an event through the filters from `start` on. `until` is the filter that collects the body, if one does."""
        hooks = direction.hooks
        stream = self.stream
        for index in range(start, len(hooks)):
            hook = hooks[index][kind]
            collecting = index == until
            if hook is None:
                if not collecting:
                    continue
                # A filter that collects in its headers hook and has no data hook lets go at the end of the body.
                ended = kind == TRAILERS or (isinstance(event, Data) and event.end_stream)
                status = FilterStatus.CONTINUE if ended else FilterStatus.STOP_AND_BUFFER
            else:
                status = hook(stream, event)
                if stream.done or (direction is self.request and stream.details and stream.response is not None):
                    return
            if collecting:
                if status is FilterStatus.CONTINUE:
                    self._collect(direction, event)
                    self._resume(direction, kind, event)
                else:
                    self._collect(direction, event)
                return
            if status is FilterStatus.CONTINUE:
                continue
            direction.stopped_at = index
            direction.buffering = status is FilterStatus.STOP_AND_BUFFER
            if kind == DATA and direction.buffering:
                self._collect(direction, event)
            elif direction.held is None:
                direction.held = event
            return
        direction.deliver[kind](event)

    def _collect(self, direction: Direction, event: Message) -> None:
        if isinstance(event, Data) and event.data:
            direction.buffer.append(event.data)
            direction.buffer_size += len(event.data)
            if direction.buffer_size > self.limit:
                direction.buffer.clear()
                direction.over_limit()

    def _resume(self, direction: Direction, kind: int, event: Message) -> None:
        """Let go what a collecting filter held: the head, the whole body as one piece, the trailers."""
        if self.stream.done:
            return
        after = direction.stopped_at + 1
        direction.stopped_at = -1
        direction.buffering = False
        head, direction.held = direction.held, None
        body = b"".join(direction.buffer)
        direction.buffer = []
        direction.buffer_size = 0
        ended = isinstance(event, Data) and event.end_stream
        if head is not None:
            self._walk(direction, HEADERS, head, after)
        if body or ended:
            self._again(direction, DATA, Data(event.stream_id, body, ended), after)
        if kind == TRAILERS:
            self._again(direction, TRAILERS, event, after)

    def _again(self, direction: Direction, kind: int, event: Message, start: int) -> None:
        """Pass an event on after another of the same direction, which a filter may have stopped meanwhile."""
        if self.stream.done:
            return
        if direction.stopped_at >= 0:
            direction.queue.append((kind, event))
        else:
            self._walk(direction, kind, event, start)

    def continue_direction(self, direction: Direction) -> None:
        """A filter that stopped lets the direction go on."""
        at = direction.stopped_at
        if at < 0 or self.stream.done:
            return
        direction.stopped_at = -1
        direction.buffering = False
        held, direction.held = direction.held, None
        body = b"".join(direction.buffer)
        direction.buffer = []
        direction.buffer_size = 0
        queue, direction.queue = direction.queue, []
        direction.queued = 0
        if direction is self.response and isinstance(held, ResponseHeaders):
            self.stream.response = held
        if held is not None:
            kind = (
                HEADERS if isinstance(held, (RequestHeaders, ResponseHeaders)) else DATA if isinstance(held, Data) else TRAILERS
            )
            self._walk(direction, kind, held, at + 1)
        if body:
            self._again(direction, DATA, Data(self.stream.stream_id, body, False), at + 1)
        for kind, event in queue:
            self._again(direction, kind, event, at)
        self._unblock(direction)

    def _block(self, direction: Direction) -> None:
        if not self._blocked and direction is self.request:
            self._blocked = True
            self.stream.downstream.pause_reading()

    def _unblock(self, direction: Direction) -> None:
        if self._blocked and direction is self.request:
            self._blocked = False
            self.stream.downstream.resume_reading()
