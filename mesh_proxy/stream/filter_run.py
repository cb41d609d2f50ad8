"""One stream's filters, in both directions. Who owns them may speak any protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.filter import Filter
from mesh_proxy.stream.filter_chain import DATA, HEADERS, TRAILERS, FilterChain
from mesh_proxy.stream.filter_gate import Flow, Message

if TYPE_CHECKING:
    from mesh_filters.filter import Stream


class Owner(Protocol):
    """What a stream gives to the walk through its filters, beside what the filters themselves ask of it."""

    stream_id: int
    response: ResponseHeaders | None
    response_code: int

    def route_request(self) -> None:
        """The request's head has passed all filters."""

    def forward_data(self, event: Data) -> None:
        """A piece of the request's body has."""

    def forward_trailers(self, event: Trailers) -> None:
        """The request's trailers have."""

    def encode_headers(self, event: ResponseHeaders) -> None:
        """The response's head has."""

    def encode_data(self, event: Data) -> None:
        """A piece of the response's body has."""

    def encode_trailers(self, event: Trailers) -> None:
        """The response's trailers have."""

    def hold_request(self, on: bool) -> None:
        """Stop, or start again, to read from the caller."""

    def hold_response(self, on: bool) -> None:
        """Stop, or start again, to read from the upstream."""

    def request_too_large(self) -> None:
        """A filter wanted to collect a body beyond the limit."""

    def response_too_large(self) -> None:
        """The same for the response."""


class FilterRun:
    """The filters of one stream."""

    __slots__ = ("_replying", "chain", "filters", "owner", "request", "response", "stream")

    def __init__(self, owner: Any, chain: FilterChain, limit: int) -> None:
        self.owner: Owner = owner
        self.stream: Stream = owner
        self.chain = chain
        self.filters: list[Filter] = chain.make()
        self._replying = False
        self.request = Flow(chain.request, self.filters, owner, self, limit)
        self.response = Flow(chain.response, self.filters, owner, self, limit) if chain.response else None
        """None: no filter looks at responses"""

    # -- events in

    def request_headers(self, event: RequestHeaders) -> None:
        """The request's head enters the first filter."""
        self.request.enter(HEADERS, event)

    def request_data(self, event: Data) -> None:
        """A piece of the request's body."""
        self.request.enter(DATA, event)

    def request_trailers(self, event: Trailers) -> None:
        """The request's trailers."""
        self.request.enter(TRAILERS, event)

    def response_headers(self, event: ResponseHeaders) -> None:
        """The response's head enters the last filter."""
        if self.response is None:
            self.owner.encode_headers(event)
        else:
            self.owner.response = event
            self.owner.response_code = event.status
            self.response.enter(HEADERS, event)

    def response_data(self, event: Data) -> None:
        """A piece of the response's body."""
        if self.response is None:
            self.owner.encode_data(event)
        else:
            self.response.enter(DATA, event)

    def response_trailers(self, event: Trailers) -> None:
        """The response's trailers."""
        if self.response is None:
            self.owner.encode_trailers(event)
        else:
            self.response.enter(TRAILERS, event)

    # -- filters let go

    def resume_request(self, who: Filter | None) -> None:
        """A filter that stopped the request lets it go on."""
        self.request.resume(who)

    def resume_response(self, who: Filter | None) -> None:
        """A filter that stopped the response lets it go on."""
        if self.response is not None:
            self.response.resume(who)

    def add_response_data(self, who: Filter, data: bytes) -> None:
        """A filter adds to the body that it let pass."""
        if self.response is not None:
            self.response.add(who, Data(self.owner.stream_id, data, False))

    # -- answers of our own

    def take_back_response(self) -> bool:
        """A local reply is to take the place of a response: whether that is possible, because the head was not sent yet."""
        flow = self.response
        if flow is None or not flow.begun or flow.sent:
            return False
        flow.finish()
        self.owner.response = None
        return True

    def local_reply(self, event: ResponseHeaders, body: bytes) -> None:
        """An answer of ours takes the response's way; in place of a response that filters have seen, it goes past them."""
        self.request.finish()
        for index in self.chain.local_reply:
            self.filters[index].on_local_reply(self.stream, event)
        flow = self.response
        if flow is None or flow.begun:
            self.owner.encode_headers(event)
            if not event.end_stream:
                self.owner.encode_data(Data(event.stream_id, body, True))
            return
        self.response_headers(event)
        if not event.end_stream:
            self.response_data(Data(event.stream_id, body, True))

    def complete(self) -> None:
        """The stream is over."""
        self.request.finish()
        if self.response is not None:
            self.response.finish()
        for index in self.chain.complete:
            self.filters[index].on_complete(self.stream)

    # -- what the flows ask (`filter_gate.Ends`)

    def deliver(self, flow: Flow, kind: int, event: Message) -> None:
        """An event has passed all filters."""
        owner = self.owner
        if kind == DATA and not event.data and not event.end_stream:  # type: ignore[union-attr]
            return  # a filter has kept all of it
        if flow is self.request:
            if kind == HEADERS:
                owner.route_request()
            elif kind == DATA:
                owner.forward_data(event)  # type: ignore[arg-type]
            else:
                owner.forward_trailers(event)  # type: ignore[arg-type]
        elif kind == HEADERS:
            owner.encode_headers(event)  # type: ignore[arg-type]
        elif kind == DATA:
            owner.encode_data(event)  # type: ignore[arg-type]
        else:
            owner.encode_trailers(event)  # type: ignore[arg-type]

    def too_large(self, flow: Flow) -> None:
        """A filter wanted to collect more than the limit."""
        if flow is self.request:
            self.owner.request_too_large()
        else:
            self.owner.response_too_large()

    def hold_source(self, flow: Flow, on: bool) -> None:
        """Too much lines up, or no longer."""
        if flow is self.request:
            self.owner.hold_request(on)
        else:
            self.owner.hold_response(on)
