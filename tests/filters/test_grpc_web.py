"""The text form of gRPC-Web in every cutting, and the statistics of calls. tests/envoy/test_grpc_filters.py has the rest."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh_codecs.grpc import frame
from mesh_filters import grpc_call_stats
from mesh_filters.grpc_call_stats import CallStatsTable, service_and_method
from mesh_filters.grpc_web import TextDecoder, TextEncoder

MESSAGES = st.lists(st.binary(max_size=40), max_size=5)


def pieces(data: st.DataObject, whole: bytes) -> list[bytes]:
    found = []
    while whole:
        cut = data.draw(st.integers(1, len(whole)))
        found.append(whole[:cut])
        whole = whole[cut:]
    return found


@given(MESSAGES, st.data())
@settings(max_examples=60)
def test_encoder(messages: list[bytes], data: st.DataObject) -> None:
    """Each message is encoded by itself, whatever the cutting; at most two bytes wait."""
    encoder = TextEncoder()
    whole = b"".join(map(frame, messages))
    out = b"".join(encoder.feed(piece, False) for piece in pieces(data, whole))
    assert out + encoder.feed(b"", True) == b"".join(base64.b64encode(frame(message)) for message in messages)


def test_encoder_of_a_body_that_breaks_off() -> None:
    encoder = TextEncoder()
    assert encoder.feed(b"\0\0\0\0\x09abcd", False) == base64.b64encode(b"\0\0\0\0\x09abcd")
    assert encoder.feed(b"e", True) == b"ZQ=="
    assert encoder.feed(frame(b"x", 0x80), True) == base64.b64encode(frame(b"x", 0x80)), "what follows is a message of its own"


@given(MESSAGES, st.booleans(), st.data())
@settings(max_examples=60)
def test_decoder(messages: list[bytes], apart: bool, data: st.DataObject) -> None:
    """One encoding of the whole, or one for each message with its own padding."""
    frames = [frame(message) for message in messages]
    encoded = b"".join(map(base64.b64encode, frames)) if apart else base64.b64encode(b"".join(frames))
    decoder = TextDecoder()
    out = b"".join(decoder.feed(piece, False) for piece in pieces(data, encoded))
    assert out + decoder.feed(b"", True) == b"".join(frames)


@pytest.mark.parametrize("bad", [b"AA!?", b"A===", b"====", b"AAAA=AAA", b"A\nAA"])
def test_decoder_refuses(bad: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        TextDecoder().feed(bad, True)
    with pytest.raises(ValueError, match="cut off"):
        TextDecoder().feed(b"AAAAA", True)


class Context:
    """Statistics that a test can look at."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def stats(self, prefix: str, *, counters: tuple[str, ...] = (), **_: Any) -> Any:
        context = self

        class Group:
            def __getattr__(self, name: str) -> int:
                return context.counts.get(prefix + name, 0)

            def __setattr__(self, name: str, value: int) -> None:
                assert name in counters
                context.counts[prefix + name] = value

        return Group()

    def cluster_stat_prefix(self, name: str) -> str | None:
        return f"cluster.{name}." if name else None


def test_statistics_come_with_their_first_count() -> None:
    context: Any = Context()
    table = CallStatsTable(context, "grpc")
    one = table.of("a", ("p.S", "M"))
    assert one is not None
    assert table.of("a", ("p.S", "M")) is one
    one.charge(None)
    assert context.counts == {}
    for status in (b"0", b"14", b"0", b"x", b"99999"):
        one.charge(status)
    assert context.counts == {
        f"cluster.a.grpc.p.S.M.{k}": v for k, v in {"0": 2, "14": 1, "invalid": 2, "success": 2, "failure": 3, "total": 5}.items()
    }
    assert table.of("", ("p.S", "M")) is None


def test_names_that_callers_make_up_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_call_stats, "MAX_METHODS", 2)
    context: Any = Context()
    table = CallStatsTable(context, "grpc")
    known = [table.of("a", ("S", f"M{i}")) for i in range(2)]
    assert table.of("a", ("S", "M2")) is table.of("a", ("S", "M3")) is table.of("a", None)
    assert table.of("a", ("S", "M1")) is known[1]


@pytest.mark.parametrize(
    ("path", "call"),
    [
        (b"/a.B/c", ("a.B", "c")),
        (b"/a.B/c?d=/e", ("a.B", "c")),
        (b"//a.B//c/", ("a.B", "c")),
        (b"/a.B", None),
        (b"/a/b/c", None),
        (b"/a/" + b"x" * 300, None),
    ],
)
def test_service_and_method(path: bytes, call: tuple[str, str] | None) -> None:
    assert service_and_method(path) == call
