"""A stream's walk through its filters: order, holding, collecting, local replies."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_filters.filter import Filter, FilterStatus
from mesh_proxy.stream.filter_run import FilterRun


class FakeStream:
    """Takes the place of HttpStream at the ends of the chain."""

    def __init__(self, limit: int = 100) -> None:
        self.log: list[str] = []
        self.done = False
        self.details = ""
        self.response: ResponseHeaders | None = None
        self.stream_id = 1
        self.paused = 0
        self.run: FilterRun | None = None
        self.downstream = SimpleNamespace(
            owner=SimpleNamespace(buffer_limit=limit), pause_reading=self._pause, resume_reading=self._resume
        )

    def _pause(self) -> None:
        self.paused += 1

    def _resume(self) -> None:
        self.paused -= 1

    def route_request(self) -> None:
        self.log.append("route")

    def forward_data(self, event: Data) -> None:
        self.log.append(f"request {event.data.decode()}{'.' if event.end_stream else ''}")

    def forward_trailers(self, event: Trailers) -> None:
        self.log.append("request trailers")

    def encode_headers(self, event: ResponseHeaders) -> None:
        self.log.append(f"response {event.status}")

    def encode_data(self, event: Data) -> None:
        self.log.append(f"response {event.data.decode()}{'.' if event.end_stream else ''}")

    def encode_trailers(self, event: Trailers) -> None:
        self.log.append("response trailers")

    def reset_downstream(self) -> None:
        self.log.append("reset")
        self.done = True

    def send_local_reply(self, status: int, body: bytes = b"", *, details: str, **_: Any) -> None:
        self.details = details
        assert self.run is not None
        self.run.local_reply(ResponseHeaders(1, status, Headers(), not body), body)
        self.done = True


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
    factories: list[Callable[[], Filter]] = [lambda one=one: one for one in filters]  # type: ignore[misc]
    run = stream.run = FilterRun(stream, tuple(factories))  # type: ignore[arg-type]
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
    run.continue_direction(run.request)
    assert stream.log[1:] == ["b.rq", "route", "a.rqd xx", "b.rqd xx", "request xx", "a.rqd yy", "b.rqd yy", "request yy."]
    assert stream.paused == 0
    run.continue_direction(run.request)  # nothing is held: no effect


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
    assert stream.response is None, "nothing was sent: a local reply is still possible"
    run.response_data(Data(1, b"y", True))
    run.continue_direction(run.response)
    assert stream.log == ["a.rs", "response 200", "a.rsd y", "response y."]
    assert stream.response is not None


def test_on_complete_reaches_those_who_have_it() -> None:
    class Last(Filter):
        def on_complete(self, stream: Any) -> None:
            stream.log.append("complete")

    stream = FakeStream()
    make(stream, Last(), Recorder("a", stream.log)).complete()
    assert stream.log == ["complete"]


def test_a_local_reply_that_does_not_fit_either_resets_the_stream() -> None:
    collect = FilterStatus.STOP_AND_BUFFER
    stream = FakeStream(limit=3)
    run = make(stream, Recorder("a", [], {"rs": [collect] * 9, "rsd": [collect] * 9}))
    run.response_headers(ResponseHeaders(1, 200, Headers(), False))
    run.response_data(Data(1, b"xxxx", False))
    assert stream.log == ["reset"]
