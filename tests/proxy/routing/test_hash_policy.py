from __future__ import annotations

import pytest

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model import HashPolicyConfig
from mesh_proxy.routing.hash_policy import client_ip, compile_hash_policies
from mesh_proxy.upstream.xxhash64 import xxhash64


def request(path: bytes = b"/", *pairs: tuple[bytes, bytes]) -> RequestHeaders:
    return RequestHeaders(1, b"GET", b"http", b"a.test", path, Headers(list(pairs)), True)


def value(given: RequestHeaders, *policies: HashPolicyConfig, client: bytes = b"10.0.0.1:5") -> int | None:
    compiled = compile_hash_policies(policies)
    assert compiled is not None
    return compiled(given, client)


def policy(kind: str, name: str = "", terminal: bool = False) -> HashPolicyConfig:
    return HashPolicyConfig(kind=kind, name=name, terminal=terminal)


def test_none() -> None:
    assert compile_hash_policies(()) is None


@pytest.mark.parametrize(
    ("config", "hashed"),
    [
        (policy("header", "x-h"), b"one"),
        (policy("header", "x-two"), b"ab"),  # sorted
        (policy("header", "x-none"), None),
        (policy("header", ":path"), b"/p?q=1%20&q=2&r"),
        (policy("header", ":method"), b"GET"),
        (policy("header", ":authority"), b"a.test"),
        (policy("cookie", "c"), b"v=w"),
        (policy("cookie", "d"), b"quoted"),
        (policy("cookie", "e"), b"second line"),
        (policy("cookie", "f"), None),
        (policy("source_ip"), b"10.0.0.1"),
        (policy("query_parameter", "q"), b"1%20"),
        (policy("query_parameter", "r"), b""),
        (policy("query_parameter", "s"), None),
        (policy("filter_state", "k"), None),
    ],
    ids=lambda one: f"{one.kind}-{one.name}" if isinstance(one, HashPolicyConfig) else "",
)
def test_each_kind(config: HashPolicyConfig, hashed: bytes | None) -> None:
    given = request(
        b"/p?q=1%20&q=2&r",
        (b"x-h", b"one"),
        (b"x-two", b"b"),
        (b"x-two", b"a"),
        (b"cookie", b'x=1; c=v=w ;d="quoted"; f'),
        (b"cookie", b"e=second line"),
    )
    assert value(given, config) == (xxhash64(hashed) if hashed is not None else None)


def test_several_are_combined_by_rotation() -> None:
    given = request(b"/", (b"a", b"1"))
    one = xxhash64(b"1")
    a, none = policy("header", "a"), policy("header", "none")
    rotated = (one << 1 | one >> 63) & (1 << 64) - 1
    assert value(given, a, a) == rotated ^ one
    assert value(given, none, a, none) == one
    assert value(given, none) is None


def test_terminal_ends_only_after_a_find() -> None:
    given = request(b"/", (b"a", b"1"), (b"b", b"2"))
    assert value(given, policy("header", "a", True), policy("header", "b")) == xxhash64(b"1")
    assert value(given, policy("header", "none", True), policy("header", "b")) == xxhash64(b"2")


def test_client_addresses() -> None:
    assert client_ip(b"[::1]:80") == b"::1"
    assert client_ip(b"10.0.0.1:80") == b"10.0.0.1"
    assert client_ip(b"/run/x.sock") is None
