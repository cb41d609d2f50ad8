"""`/route_explain`: what a worker is asked, and its answer passed on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from mesh_proxy.explain.question import Question
from mesh_proxy.worker import messages as m

Ask = Callable[..., tuple[int, str]]


def test_described_in_the_query(ask: Ask, supervisor: Any) -> None:
    supervisor.answers = {1: {"result": "forwarded", "way": "listener web -> cluster a"}}
    status, body = ask("/route_explain?path=/x&header.x-tag=gray&listener=web")
    assert (status, json.loads(body)) == (200, supervisor.answers[1])
    assert supervisor.asked == m.Explain(1, Question(listener="web", path="/x", headers=(("x-tag", "gray"),)))
    assert ask("/route_explain?format=text") == (200, "listener web -> cluster a\n")


def test_described_in_a_body(ask: Ask, supervisor: Any) -> None:
    supervisor.answers = {0: {"result": "forwarded"}}
    description = {"protocol": "dubbo", "service": "a.B", "method": "c", "attachments": {"dubbo.tag": "gray"}}
    assert ask("/route_explain", "POST", body=json.dumps(description).encode())[0] == 200
    assert supervisor.asked.question == Question(protocol="dubbo", service="a.B", method="c", headers=(("dubbo.tag", "gray"),))
    assert ask("/route_explain", "POST", origin="http://evil.example")[0] == 403


@pytest.mark.parametrize(
    ("target", "body", "why"),
    [
        ("/route_explain?pth=x", b"", "pth: unknown field"),
        ("/route_explain", b"{", "the body is not JSON"),
        ("/route_explain", b"[" * 60_000, "the body is not JSON"),
        ("/route_explain", b"[]", "must be an object"),
        ("/route_explain?path=x", b"{}", "not in both"),
    ],
)
def test_bad_descriptions(ask: Ask, target: str, body: bytes, why: str) -> None:
    status, text = ask(target, "POST", body=body)
    assert status == 400
    assert why in text


def test_nobody_there(ask: Ask, supervisor: Any) -> None:
    supervisor.answers = {}
    assert ask("/route_explain")[0] == 503
