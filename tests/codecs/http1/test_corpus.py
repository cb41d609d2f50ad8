"""Every message of the corpus, whole, byte by byte and in random cuts: one verdict, the same events."""

from __future__ import annotations

import pytest
from http1_corpus import CODES, REQUESTS, RESPONSES
from http1_support import SETTINGS, asked, cuttings, ended, normal, serve
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.events import ConnectionEnded, ConnectionFailed, RequestHeaders, StreamReset
from mesh_codecs.http1 import DownstreamHttp1, Http1Settings, UnderscoreAction


@pytest.mark.parametrize(("name", "payload", "status"), REQUESTS, ids=[case[0] for case in REQUESTS])
def test_request(name: str, payload: bytes, status: int | None) -> None:
    outcomes = []
    for pieces in cuttings(payload):
        codec = DownstreamHttp1(SETTINGS)
        events, output = serve(codec, pieces)
        outcomes.append((normal(events), output, codec.closed))
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]
    events, output, closed = outcomes[0]
    answers = [int(line.split(b" ")[1]) for line in output.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    if status is None:
        heads = [event for event in events if isinstance(event, RequestHeaders)]
        assert heads
        assert answers == [200] * len(heads)
        assert ended(events[-1])  # type: ignore[arg-type]
        return
    assert closed
    assert answers[-1] == status
    assert set(answers[:-1]) <= {200}
    kind, _, code, failed_status = events[-1]  # type: ignore[misc]
    assert (kind, failed_status) == ("failed", status)
    assert code == CODES.get(name, code)
    assert b"\r\nconnection: close\r\n" in output


def test_codes_name_cases() -> None:
    assert set(CODES) <= {name for name, _, status in REQUESTS if status is not None}


@pytest.mark.parametrize(("payload", "good"), [case[1:] for case in RESPONSES], ids=[case[0] for case in RESPONSES])
def test_response(payload: bytes, good: bool) -> None:
    outcomes = []
    for pieces in cuttings(payload):
        codec = asked()
        events = [event for piece in pieces for event in codec.receive_data(piece)]
        events += codec.receive_eof()
        outcomes.append((normal(events), codec.closed))
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]
    events, closed = outcomes[0]
    assert closed
    if good:
        done = [event for event in events if not isinstance(event, ConnectionEnded)]
        assert ended(done[-1])  # type: ignore[arg-type]
    else:
        assert events[-1][0] == "failed"  # type: ignore[index]
        assert events[-1][3] == 502  # type: ignore[index]


MUTATIONS = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b":",
    b" ",
    b"\t",
    b",",
    b";",
    b"0",
    b"\x80",
    b"_",
    b"Host: a\r\n",
    b"Content-Length: 1\r\n",
]
MUTATIONS += [b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"GET / HTTP/1.1\r\n", b"5\r\n"]


@st.composite
def mutants(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    payload = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(payload)))
        drop = draw(st.sampled_from((0, 0, 1, 2, 5)))
        payload = payload[:place] + draw(st.sampled_from([b"", *MUTATIONS])) + payload[place + drop :]
    return payload


SMALL_REQUESTS = [payload for _, payload, _ in REQUESTS if len(payload) < 500]
SMALL_RESPONSES = [payload for _, payload, _ in RESPONSES if len(payload) < 500]
STRICT = Http1Settings(
    max_head_bytes=150,
    max_header_count=4,
    accept_http_10=True,
    enable_trailers=True,
    headers_with_underscores_action=UnderscoreAction.REJECT_REQUEST,
)


@settings(max_examples=200, deadline=None)
@given(payload=mutants(SMALL_REQUESTS), config=st.sampled_from((SETTINGS, STRICT)), seed=st.integers(0, 1000))
def test_mutated_request_has_one_verdict(payload: bytes, config: Http1Settings, seed: int) -> None:
    outcomes = []
    for pieces in cuttings(payload, seed):
        codec = DownstreamHttp1(config)
        events, output = serve(codec, pieces)
        faults = [event for event in events if isinstance(event, ConnectionFailed)]
        assert len(faults) <= 1
        assert not faults or (events[-1] is faults[0] and codec.closed)
        outcomes.append((normal(events), output, codec.closed))
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]


@settings(max_examples=200, deadline=None)
@given(payload=mutants(SMALL_RESPONSES), config=st.sampled_from((SETTINGS, STRICT)), seed=st.integers(0, 1000))
def test_mutated_response_has_one_verdict(payload: bytes, config: Http1Settings, seed: int) -> None:
    outcomes = []
    for pieces in cuttings(payload, seed):
        codec = asked(config)
        events = [event for piece in pieces for event in codec.receive_data(piece)]
        events += codec.receive_eof()
        faults = [event for event in events if isinstance(event, (ConnectionFailed, StreamReset))]
        assert not faults or (len(faults) == 1 and events[-1] is faults[0])
        assert codec.closed
        outcomes.append(normal(events))
    for outcome in outcomes[1:]:
        assert outcome == outcomes[0]
