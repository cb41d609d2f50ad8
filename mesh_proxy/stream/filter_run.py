"""One stream's filters, in both directions. Who owns them may speak any protocol."""

from __future__ import annotations

from typing import Any, Final, Protocol

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.filter import Filter, FilterStatus
from mesh_proxy.stream.filter_chain import DATA, HEADERS, TRAILERS, FilterChain
from mesh_proxy.stream.filter_gate import Flow, Message

_CONTINUE: Final = FilterStatus.CONTINUE


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
    """The filters of one stream.

    As long as no filter stops anything, an event runs through the hooks right here; a `Flow` is made for a direction when one
    does.
    """

    __slots__ = (
        "_begun",
        "_request_over",
        "_response_over",
        "_sent",
        "chain",
        "filters",
        "limit",
        "owner",
        "request",
        "response",
    )

    def __init__(self, owner: Any, chain: FilterChain, limit: int) -> None:
        self.owner: Any = owner
        """an `Owner` and a `Stream`"""
        self.chain = chain
        self.filters: list[Filter] = chain.make()
        self.limit = limit
        """bytes that may be collected by one filter, or line up before the sender is held"""
        self.request: Flow | None = None
        self.response: Flow | None = None
        self._request_over = False
        self._response_over = False
        self._begun = False
        """the response's head has entered"""
        self._sent = False
        """the response's head was delivered"""

    # -- events in

    def stopped(self, position: int, event: RequestHeaders, status: FilterStatus) -> None:
        """The filter at a position has stopped the request's head, and those before it have let it pass."""
        if not self._request_over:
            self._request_flow().close(position, HEADERS, event, status)

    def request_headers(self, event: RequestHeaders) -> None:
        """The request's head enters the first filter."""
        filters = self.filters
        owner = self.owner
        for position, index, hook in self.chain.request.headers:
            status = hook(filters[index], owner, event)
            if self._request_over:
                return
            if status is not _CONTINUE:
                self._request_flow().close(position, HEADERS, event, status)
                return
        owner.route_request()

    def request_data(self, event: Data) -> None:
        """A piece of the request's body."""
        if self.request is None and not self.chain.request.data:
            if not self._request_over:
                self.owner.forward_data(event)
        elif not self._request_over:
            self._request_flow().enter(DATA, event)

    def request_trailers(self, event: Trailers) -> None:
        """The request's trailers."""
        if not self._request_over:
            self._request_flow().enter(TRAILERS, event)

    def response_headers(self, event: ResponseHeaders) -> None:
        """The response's head enters the last filter."""
        owner = self.owner
        owner.response_code = event.status
        hooks = self.chain.response.headers
        if hooks or self.response is not None:
            owner.response = event
            self._begun = True
            filters = self.filters
            for position, index, hook in hooks:
                status = hook(filters[index], owner, event)
                if self._response_over:
                    return
                if status is not _CONTINUE:
                    self._response_flow().close(position, HEADERS, event, status)
                    return
        self._sent = True
        owner.encode_headers(event)

    def response_data(self, event: Data) -> None:
        """A piece of the response's body."""
        if self.response is None and not self.chain.response.data:
            if not self._response_over:
                self.owner.encode_data(event)
        elif not self._response_over:
            self._response_flow().enter(DATA, event)

    def response_trailers(self, event: Trailers) -> None:
        """The response's trailers."""
        if not self._response_over:
            self._response_flow().enter(TRAILERS, event)

    def _request_flow(self) -> Flow:
        flow = self.request
        if flow is None:
            flow = self.request = Flow(self.chain.request, self.filters, self.owner, self, self.limit)
        return flow

    def _response_flow(self) -> Flow:
        flow = self.response
        if flow is None:
            flow = self.response = Flow(self.chain.response, self.filters, self.owner, self, self.limit)
        return flow

    # -- filters let go

    def resume_request(self, who: Filter | None) -> None:
        """A filter that stopped the request lets it go on."""
        if self.request is not None:
            self.request.resume(who)

    def resume_response(self, who: Filter | None) -> None:
        """A filter that stopped the response lets it go on."""
        if self.response is not None:
            self.response.resume(who)

    def add_response_data(self, who: Filter, data: bytes) -> None:
        """A filter adds to the body that it let pass."""
        if not self._response_over:
            self._response_flow().add(who, Data(self.owner.stream_id, data, False))

    def limit_request(self, size: int) -> None:
        """How much of the request may be collected."""
        self.limit = size
        if self.request is not None:
            self.request.limit = size

    # -- answers of our own

    def _end_request(self) -> None:
        self._request_over = True
        if self.request is not None:
            self.request.finish()

    def _end_response(self) -> None:
        self._response_over = True
        if self.response is not None:
            self.response.finish()

    def take_back_response(self) -> bool:
        """A local reply is to take the place of a response: whether that is possible, because the head was not sent yet."""
        if not self._begun or self._sent:
            return False
        self._end_response()
        self.owner.response = None
        return True

    def local_reply(self, event: ResponseHeaders, body: bytes) -> None:
        """An answer of ours takes the response's way; in place of a response that filters have seen, it goes past them."""
        self._end_request()
        owner = self.owner
        for index in self.chain.local_reply:
            self.filters[index].on_local_reply(owner, event)
        if self._begun:
            owner.encode_headers(event)
            if not event.end_stream:
                owner.encode_data(Data(event.stream_id, body, True))
            return
        self.response_headers(event)
        if not event.end_stream:
            self.response_data(Data(event.stream_id, body, True))

    def complete(self) -> None:
        """The stream is over."""
        self._end_request()
        self._end_response()
        for index in self.chain.complete:
            self.filters[index].on_complete(self.owner)

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
                owner.forward_data(event)
            else:
                owner.forward_trailers(event)
        elif kind == HEADERS:
            self._sent = True
            owner.encode_headers(event)
        elif kind == DATA:
            owner.encode_data(event)
        else:
            owner.encode_trailers(event)

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
