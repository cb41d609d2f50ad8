"""Driving the HTTP/1 codecs in tests: cutting payloads, answering requests, comparing events."""

from __future__ import annotations

import random
from collections.abc import Iterator

from mesh_codecs.events import ConnectionFailed, Data, Event, RequestHeaders, ResponseHeaders, Trailers
from mesh_codecs.headers import Headers
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UpstreamHttp1, requests

SETTINGS = Http1Settings()
GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"


def forget_heads() -> None:
    """No request has been seen yet in this process."""
    for table in (requests._table, requests._traced):
        table.entries.clear()
        table.hits = table.resting = table.size = 0


def cuttings(payload: bytes, seed: int = 0) -> Iterator[list[bytes]]:
    """The payload whole, byte by byte, and cut at random three times."""
    yield [payload]
    yield [payload[i : i + 1] for i in range(len(payload))]
    rng = random.Random(seed)
    for _ in range(3):
        yield random_cut(payload, rng)


def random_cut(payload: bytes, rng: random.Random) -> list[bytes]:
    """Cut at one to eight places."""
    places = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randint(1, 8)))
    return [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]


def normal(events: list[Event]) -> list[object]:
    """Events without what may depend on the cutting: pieces of one body are joined, errors become their code."""
    joined: list[object] = []
    for event in events:
        if isinstance(event, Data):
            last = joined[-1] if joined else None
            if isinstance(last, Data) and last.stream_id == event.stream_id and not last.end_stream:
                joined[-1] = Data(event.stream_id, last.data + event.data, event.end_stream)
            else:
                joined.append(Data(event.stream_id, event.data, event.end_stream))
        elif isinstance(event, ConnectionFailed):
            joined.append(("failed", event.stream_id, event.error.code, event.error.status))
        else:
            joined.append(event)
    # An empty piece says nothing but its end.
    return [event for event in joined if not (isinstance(event, Data) and not event.data and not event.end_stream)]


def ended(event: Event) -> bool:
    """The event completes its message."""
    return isinstance(event, Trailers) or (isinstance(event, (RequestHeaders, ResponseHeaders, Data)) and event.end_stream)


def serve(codec: DownstreamHttp1, pieces: list[bytes]) -> tuple[list[Event], bytes]:
    """Feed the pieces and answer every complete request with an empty 200; all events and all output."""
    events: list[Event] = []
    for piece in pieces:
        new = codec.receive_data(piece)
        while new:
            events += new
            last = new[-1]
            if not ended(last):
                break
            codec.send(ResponseHeaders(last.stream_id, 200, Headers(), True))
            new = codec.receive_data(b"")
    return events, b"".join(codec.data_to_send())


def asked(settings: Http1Settings = SETTINGS, method: bytes = b"GET", protocol: bytes = b"") -> UpstreamHttp1:
    """An upstream that waits for the response to a request without a body."""
    codec = UpstreamHttp1(settings)
    stream = codec.open_stream()
    assert stream == 1
    path = b"" if method == b"CONNECT" else b"/"
    end_stream = not protocol and method != b"CONNECT"
    codec.send(RequestHeaders(stream, method, b"http", b"shop:80", path, Headers(), end_stream, protocol))
    codec.data_to_send()
    return codec


def fields(*pairs: tuple[bytes, bytes]) -> Headers:
    return Headers(list(pairs))


def request(payload: bytes, settings: Http1Settings = SETTINGS) -> RequestHeaders:
    """What a request's head becomes."""
    events = DownstreamHttp1(settings).receive_data(payload)
    assert isinstance(events[0], RequestHeaders)
    return events[0]


def waiting(payload: bytes = GET, settings: Http1Settings = SETTINGS) -> DownstreamHttp1:
    """A codec that waits for the response to this request."""
    codec = DownstreamHttp1(settings)
    assert isinstance(codec.receive_data(payload)[0], RequestHeaders)
    return codec


def written(codec: DownstreamHttp1 | UpstreamHttp1, *events: Event) -> bytes:
    """What these events become."""
    for event in events:
        codec.send(event)
    return b"".join(codec.data_to_send())


def with_fields(lines: bytes) -> bytes:
    """A request with these lines."""
    return b"GET / HTTP/1.1\r\nHost: shop\r\n" + lines + b"\r\n\r\n"
