"""A stream's walk through its filters: order, holding, collecting, local replies."""

from __future__ import annotations

from typing import Any

import pytest

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_filters.filter import Filter, FilterStatus
from mesh_proxy.stream.filter_chain import FilterChain
from mesh_proxy.stream.filter_run import FilterRun


class FakeStream:
    """Takes the place of HttpStream at the ends of the chain."""

    def __init__(self, limit: int = 100) -> None:
        self.log: list[str] = []
        self.details = ""
        self.limit = limit
        self.response: ResponseHeaders | None = None
        self.stream_id = 1
        self.paused = 0
        self.upstream_paused = 0
        self.run: FilterRun

    def hold_request(self, on: bool) -> None:
        self.paused += 1 if on else -1

    def hold_response(self, on: bool) -> None:
        self.upstream_paused += 1 if on else -1

    def request_too_large(self) -> None:
        self.send_local_reply(413, details="request_payload_too_large")

    def response_too_large(self) -> None:
        self.send_local_reply(502, details="response_payload_too_large")

    def route_request(self) -> None:
        self.log.append("route")

    def forward_data(self, event: Data) -> None:
        self.log.append(f"request {event.data.decode()}{'.' if event.end_stream else ''}")

    def forward_trailers(self, event: Trailers) -> None:
        self.log.append("request trailers")

    def encode_headers(self, event: ResponseHeaders) -> None:
        self.response = event
        self.log.append(f"response {event.status}")

    def encode_data(self, event: Data) -> None:
        self.log.append(f"response {event.data.decode()}{'.' if event.end_stream else ''}")

    def encode_trailers(self, event: Trailers) -> None:
        self.log.append("response trailers")

    def send_local_reply(self, status: int, body: bytes = b"", *, details: str, **_: Any) -> None:
        self.details = details
        if self.response is not None and not self.run.take_back_response():
            self.log.append("reset")
            self.run.complete()
            return
        self.run.local_reply(ResponseHeaders(1, status, Headers(), not body), body)


class Recorder(Filter):
    """Logs what it sees and answers from a script: hook name -> statuses, CONTINUE when used up."""

    def __init__(self, name: str, log: list[str], script: dict[str, list[FilterStatus]] | None = None) -> None:
        self.name = name
        self.log = log
        self.script = script or {}

    def _see(self, hook: str, detail: str = "") -> FilterStatus:
        self.log.append(f"{self.name}.{hook}{detail}")
        left = self.script.get(hook)
        return left.pop(0) if left else FilterStatus.CONTINUE

    def on_request_headers(self, stream: Any, event: RequestHeaders) -> FilterStatus:
        return self._see("rq")

    def on_request_data(self, stream: Any, event: Data) -> FilterStatus:
        return self._see("rqd", f" {event.data.decode()}")

    def on_request_trailers(self, stream: Any, event: Trailers) -> FilterStatus:
        return self._see("rqt")

    def on_response_headers(self, stream: Any, event: ResponseHeaders) -> FilterStatus:
        return self._see("rs")

    def on_response_data(self, stream: Any, event: Data) -> FilterStatus:
        return self._see("rsd", f" {event.data.decode()}")

    def on_response_trailers(self, stream: Any, event: Trailers) -> FilterStatus:
        return self._see("rst")


def head() -> RequestHeaders:
    return RequestHeaders(1, b"POST", b"http", b"a", b"/", Headers(), False)


def make(stream: FakeStream, *filters: Filter) -> FilterRun:
    run = stream.run = FilterRun(stream, FilterChain(filters), stream.limit)
    return run


def test_requests_in_order_responses_in_reverse() -> None:
    stream = FakeStream()
    run = make(stream, Recorder("a", stream.log), Recorder("b", stream.log))
    run.request_headers(head())
    run.request_data(Data(1, b"x", False))
    run.request_trailers(Trailers(1, Headers()))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"y", False))
    run.response_trailers(Trailers(1, Headers()))
    assert stream.log == [
        "a.rq", "b.rq", "route", "a.rqd x", "b.rqd x", "request x", "a.rqt", "b.rqt", "request trailers",
        "b.rs", "a.rs", "response 200", "b.rsd y", "a.rsd y", "response y", "b.rst", "a.rst", "response trailers",
    ]  # fmt: skip


def test_stop_holds_head_and_body_until_continued() -> None:
    stream = FakeStream(limit=3)
    run = make(stream, Recorder("a", stream.log, {"rq": [FilterStatus.STOP]}), Recorder("b", stream.log))
    run.request_headers(head())
    run.request_data(Data(1, b"xx", False))
    assert stream.paused == 0
    run.request_data(Data(1, b"yy", True))
    assert stream.log == ["a.rq"]
    assert stream.paused == 1, "more than the buffer limit is held: the caller is no longer read"
    run.resume_request(None)
    assert stream.log[1:] == ["b.rq", "route", "a.rqd xx", "b.rqd xx", "request xx", "a.rqd yy", "b.rqd yy", "request yy."]
    assert stream.paused == 0
    run.resume_request(None)  # nothing is held: no effect


def test_buffering_collects_the_body_and_lets_go_at_the_end() -> None:
    stream = FakeStream()
    collect = FilterStatus.STOP_AND_BUFFER
    run = make(stream, Recorder("a", stream.log, {"rq": [collect], "rqd": [collect]}), Recorder("b", stream.log))
    run.request_headers(head())
    run.request_data(Data(1, b"x", False))
    assert stream.log == ["a.rq", "a.rqd x"]
    run.request_data(Data(1, b"y", True))
    assert stream.log[2:] == ["a.rqd y", "b.rq", "route", "b.rqd xy", "request xy."]


def test_a_filter_that_buffers_without_a_data_hook() -> None:
    class Collector(Filter):
        def on_request_headers(self, stream: Any, event: RequestHeaders) -> FilterStatus:
            return FilterStatus.STOP_AND_BUFFER

    stream = FakeStream()
    run = make(stream, Collector())
    run.request_headers(head())
    run.request_data(Data(1, b"x", False))
    run.request_trailers(Trailers(1, Headers()))
    assert stream.log == ["route", "request x", "request trailers"]


@pytest.mark.parametrize("direction", ["request", "response"])
def test_buffer_limit(direction: str) -> None:
    stream = FakeStream(limit=3)
    collect = FilterStatus.STOP_AND_BUFFER
    script = {"rq": [collect], "rqd": [collect] * 3} if direction == "request" else {"rs": [collect], "rsd": [collect] * 3}
    run = make(stream, Recorder("a", [], script))
    if direction == "request":
        run.request_headers(head())
        run.request_data(Data(1, b"xxxx", False))
        assert stream.details == "request_payload_too_large"
        assert "response 413" in stream.log
    else:
        run.response_headers(ResponseHeaders(1, 200, Headers(), False))
        run.response_data(Data(1, b"xxxx", False))
        assert stream.details == "response_payload_too_large"
        assert "response 200" not in stream.log
        assert "response 502" in stream.log


def test_a_local_reply_ends_the_walk_and_passes_the_response_hooks() -> None:
    class Deny(Filter):
        def on_request_headers(self, stream: Any, event: RequestHeaders) -> FilterStatus:
            stream.send_local_reply(403, b"no", details="denied")
            return FilterStatus.STOP

        def on_local_reply(self, stream: Any, event: ResponseHeaders) -> None:
            event.headers.set(b"x-denied", b"1")

    stream = FakeStream()
    run = make(stream, Recorder("a", stream.log), Deny(), Recorder("c", stream.log))
    run.request_headers(head())
    assert stream.log == ["a.rq", "c.rs", "a.rs", "response 403", "c.rsd no", "a.rsd no", "response no."]
    assert stream.response is not None
    assert stream.response.headers.get(b"x-denied") == b"1"


def test_response_held_and_continued() -> None:
    stream = FakeStream()
    run = make(stream, Recorder("a", stream.log, {"rs": [FilterStatus.STOP]}))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"y", True))
    run.resume_response(None)
    assert stream.log == ["a.rs", "response 200", "a.rsd y", "response y."]
    assert stream.response is not None


def test_on_complete_reaches_those_who_have_it() -> None:
    class Last(Filter):
        def on_complete(self, stream: Any) -> None:
            stream.log.append("complete")

    stream = FakeStream()
    make(stream, Last(), Recorder("a", stream.log)).complete()
    assert stream.log == ["complete"]


def test_a_reply_in_place_of_a_response_goes_past_the_filters() -> None:
    collect = FilterStatus.STOP_AND_BUFFER
    stream = FakeStream(limit=3)
    run = make(stream, Recorder("a", [], {"rs": [collect] * 9, "rsd": [collect] * 9}))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"xxxx", False))
    assert stream.log == ["response 502"]


def test_several_filters_hold_at_once() -> None:
    stream = FakeStream()
    stop = FilterStatus.STOP
    a = Recorder("a", stream.log, {"rqd": [stop]})
    b = Recorder("b", stream.log, {"rq": [stop]})
    run = make(stream, a, b)
    run.request_headers(head())
    run.request_data(Data(1, b"x", False))
    run.request_data(Data(1, b"y", True))
    assert stream.log == ["a.rq", "b.rq", "a.rqd x"]
    run.resume_request(b)
    assert stream.log[3:] == ["route"]
    run.resume_request(a)
    assert stream.log[4:] == ["b.rqd x", "request x", "a.rqd y", "b.rqd y", "request y."]


def test_a_filter_that_stops_again_keeps_the_order() -> None:
    stream = FakeStream()
    stop = FilterStatus.STOP
    a = Recorder("a", stream.log, {"rq": [stop], "rqd": [stop]})
    run = make(stream, a)
    run.request_headers(head())
    for text in (b"x", b"y"):
        run.request_data(Data(1, text, False))
    run.resume_request(a)
    assert stream.log == ["a.rq", "route", "a.rqd x"]
    run.request_trailers(Trailers(1, Headers()))
    run.resume_request(a)
    assert stream.log[3:] == ["request x", "a.rqd y", "request y", "a.rqt", "request trailers"]


def test_what_arrives_while_a_gate_opens_lines_up() -> None:
    class Eager(Filter):
        """Reads on as soon as it sees the head, as a connection does that was paused."""

        def on_request_headers(self, stream: Any, event: RequestHeaders) -> FilterStatus:
            stream.run.request_data(Data(1, b"z", True))
            return FilterStatus.CONTINUE

    stream = FakeStream()
    a = Recorder("a", stream.log, {"rq": [FilterStatus.STOP]})
    run = make(stream, a, Eager())
    run.request_headers(head())
    run.request_data(Data(1, b"x", False))
    run.resume_request(a)
    assert stream.log == ["a.rq", "route", "a.rqd x", "request x", "a.rqd z", "request z."]


def test_a_response_that_lines_up_holds_the_upstream() -> None:
    stream = FakeStream(limit=3)
    a = Recorder("a", stream.log, {"rs": [FilterStatus.STOP]})
    run = make(stream, a)
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"xxxx", False))
    assert stream.upstream_paused == 1
    run.resume_response(a)
    assert stream.upstream_paused == 0
    assert stream.log == ["a.rs", "response 200", "a.rsd xxxx", "response xxxx"]


def test_nobody_is_left_held_when_the_stream_ends() -> None:
    stream = FakeStream(limit=3)
    run = make(stream, Recorder("a", [], {"rs": [FilterStatus.STOP], "rq": [FilterStatus.STOP]}))
    run.request_headers(head())
    run.request_data(Data(1, b"xxxx", False))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"xxxx", False))
    assert (stream.paused, stream.upstream_paused) == (1, 1)
    run.complete()
    assert (stream.paused, stream.upstream_paused) == (0, 0)
    run.request_data(Data(1, b"x", False))  # too late
    run.resume_request(None)
    assert stream.log == []


@pytest.mark.parametrize("status", FilterStatus)
def test_after_a_local_reply_nothing_goes_on_even_if_the_reply_is_held(status: FilterStatus) -> None:
    class Deny(Filter):
        def on_request_headers(self, stream: Any, event: RequestHeaders) -> FilterStatus:
            stream.send_local_reply(403, details="denied")
            return status

    stream = FakeStream()
    hold = Recorder("a", stream.log, {"rs": [FilterStatus.STOP]})
    run = make(stream, hold, Deny(), Recorder("c", []))
    run.request_headers(head())
    run.request_data(Data(1, b"x", True))
    assert stream.log == ["a.rq", "a.rs"]
    run.resume_response(hold)
    assert stream.log[2:] == ["response 403"]


def test_a_filter_replaces_the_response() -> None:
    class Replace(Filter):
        def on_response_headers(self, stream: Any, event: ResponseHeaders) -> FilterStatus:
            stream.send_local_reply(500, b"no", details="bad")
            return FilterStatus.CONTINUE

    stream = FakeStream()
    run = make(stream, Recorder("a", stream.log), Replace(), Recorder("c", stream.log))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"x", True))  # of an upstream that is given up; late
    assert stream.log == ["c.rs", "response 500", "response no."]


def test_a_collected_body_keeps_its_credit() -> None:
    stream = FakeStream()
    seen: list[int] = []
    stream.forward_data = lambda event: seen.append(event.flow_size)  # type: ignore[method-assign]
    collect = FilterStatus.STOP_AND_BUFFER
    run = make(stream, Recorder("a", [], {"rq": [collect], "rqd": [collect]}))
    run.request_headers(head())
    run.request_data(Data(1, b"x", False, 3))
    run.request_data(Data(1, b"y", True, 4))
    assert seen == [7]


def test_a_smaller_limit_for_one_stream() -> None:
    collect = FilterStatus.STOP_AND_BUFFER
    stream = FakeStream()
    run = make(stream, Recorder("a", [], {"rq": [collect], "rqd": [collect] * 3}))
    run.limit_request(1)
    run.request_headers(head())
    run.request_data(Data(1, b"xx", False))
    assert stream.details == "request_payload_too_large"
    assert stream.log == ["response 413"]


def test_only_hooks_that_exist_are_in_a_chain() -> None:
    class Nothing(Filter):
        pass

    class Completes(Filter):
        def on_complete(self, stream: Any) -> None:
            pass

    chain = FilterChain([Nothing(), Completes, lambda: Recorder("a", [])])
    assert [len(chain.request.headers), len(chain.response.data), chain.complete] == [1, 1, (1,)]
    assert not FilterChain([Nothing()]).response
    one, other = chain.make(), chain.make()
    assert one[0] is other[0], "an instance given as a factory serves all streams"
    assert one[1] is not other[1]
