"""Frames of the hot-restart protocol: every message there and back, and what is no message."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from mesh_hotrestart import messages as hr

SAMPLES: list[hr.Message] = [
    hr.Hello(program="0.1.0", pid=7),
    hr.PassSockets(listeners=[["in", "127.0.0.1:80"]], admin="127.0.0.1:1", restart_epoch_given=True),
    hr.Ready(),
    hr.Accepting(),
    hr.Adopted(number=3),
    hr.NotAdopted(number=3, why="no such listener"),
    hr.GiveUp(why="bad configuration"),
    hr.Release(),
    hr.AskStats(),
    hr.Welcome(program="0.1.0", pid=1, epoch=2, generation=3, started_at=1.5),
    hr.Refused(why="no"),
    hr.Sockets(entries=[{"kind": "control"}], last=False),
    hr.Proceed(),
    hr.Connection(number=1, protocol="http1", listener="in", facts={"requests": 4}, data=bytes(range(256))),
    hr.Late(number=1, data=b"answer"),
    hr.Stats(groups=[{"prefix": "server."}], connections=2, final=True),
    hr.Finished(moved=1, drained=2, cut=3),
    hr.NotUnderstood(what="Dance"),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_there_and_back(message: hr.Message) -> None:
    frame = hr.encode(message, 2)
    version, descriptors, text, data = hr.decode_head(frame)
    assert (version, descriptors, len(frame)) == (hr.PROTOCOL_VERSION, 2, hr.HEAD.size + text + data)
    assert hr.decode(frame[hr.HEAD.size : hr.HEAD.size + text], frame[hr.HEAD.size + text :]) == message


def test_every_message_has_a_sample() -> None:
    kinds = {kind for kind in vars(hr).values() if isinstance(kind, type) and issubclass(kind, hr.Message)}
    assert {type(sample) for sample in SAMPLES} == kinds - {hr.Message, hr.Unknown}


def test_messages_may_grow() -> None:
    text = json.dumps({"type": "Hello", "program": "9", "pid": 1, "colour": "blue"}).encode()
    assert hr.decode(text) == hr.Hello(program="9", pid=1)
    assert hr.decode(b'{"type": "Dance", "pid": 1}') == hr.Unknown(what="Dance")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no type"),
        (b'{"type": 1}', "no type"),
        (b'{"type": "Hello", "pid": 1}', "Hello lacks a field"),
        (b'{"type": "Hello", "program": 1, "pid": 1}', "Hello.program is not str"),
        (b'{"type": "Hello", "program": "", "pid": true}', "Hello.pid is not int"),
        (b'{"type": "PassSockets", "listeners": {}}', r"PassSockets.listeners is not list"),
        (b'{"type": "Connection", "number": 1, "protocol": "", "listener": "", "facts": []}', "facts is not dict"),
        (b'{"type": "Sockets", "last": 1}', "last is not bool"),
    ],
)
def test_what_is_no_message(text: bytes, why: str) -> None:
    with pytest.raises(hr.WireError, match=why):
        hr.decode(text)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "does not speak"),
        (hr.HEAD.pack(hr.MAGIC, 1, hr.MAX_DESCRIPTORS + 1, 0, 0), "too large"),
        (hr.HEAD.pack(hr.MAGIC, 1, 0, hr.MAX_TEXT + 1, 0), "too large"),
        (hr.HEAD.pack(hr.MAGIC, 1, 0, 0, hr.MAX_DATA + 1), "too large"),
    ],
)
def test_heads_out_of_bounds(head: bytes, why: str) -> None:
    with pytest.raises(hr.WireError, match=why):
        hr.decode_head(head)


def test_fields_are_plain_json() -> None:
    for sample in SAMPLES:
        fields: dict[str, Any] = {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}
        fields.pop("data")
        assert json.loads(json.dumps(fields)) == fields
