"""Values and conditions on requests."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.definition import FieldError
from mesh_filters.expression import DEEPEST, compile_condition
from mesh_filters.source import LONGEST_METADATA, PEER_METADATA, labels_in
from mesh_filters.values import value_source, with_baggage, with_tracestate
from mesh_filters.view import RequestView

PAIRS = [
    (b"user-id", b"120"), (b"n", b"-3"), (b"word", b"it's gray"), (b"cookie", b'a=1; beta="off"'), (b"cookie", b"c=3"),
    (b"baggage", b"k=v, tag=gr%20ay;p=1"), (b"tracestate", b"a=1,tag=x"),
]  # fmt: skip


def stream(path: bytes = b"/p?tag=a+b&x=%31", **more: Any) -> Any:
    request = RequestHeaders(1, b"GET", b"http", b"shop", path, Headers(PAIRS), True)
    metadata = {"envoy.filters.http.jwt_authn": {"provider": {"realm": {"tag": "vip"}, "admin": True}}, "f": {"a": {"b": 5}}}
    connection = SimpleNamespace(remote_ip=b"10.1.2.3", tls=None)
    return SimpleNamespace(request=request, dynamic_metadata=metadata, connection=connection, **more)


@pytest.mark.parametrize(
    ("config", "value"),
    [
        ({"header": "User-Id"}, b"120"),
        ({"attachment": "none"}, None),
        ({"cookie": "beta"}, b"off"),
        ({"cookie": "c"}, b"3"),
        ({"cookie": "d"}, None),
        ({"query": "tag"}, b"a b"),
        ({"query": "x"}, b"1"),
        ({"query": "y"}, None),
        ({"baggage": "tag"}, b"gr ay"),
        ({"tracestate": "tag"}, b"x"),
        ({"jwt": "realm.tag"}, b"vip"),
        ({"jwt": "admin"}, b"true"),
        ({"jwt": "realm"}, None),
        ({"metadata": ["f", "a", "b"]}, b"5"),
        ({"metadata": ["g", "a"]}, None),
        ({"path": True}, b"/p?tag=a+b&x=%31"),
        ({"source_ip": True}, b"10.1.2.3"),
    ],
)
def test_values(config: dict[str, Any], value: bytes | None) -> None:
    assert value_source(config, "x")(stream()) == value


@pytest.mark.parametrize("config", [{}, {"header": ""}, {"header": "a", "cookie": "b"}, {"metadata": ["a"]}, {"header": 5}])
def test_no_value(config: dict[str, Any]) -> None:
    with pytest.raises(FieldError):
        value_source(config, "x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("header user-id % 100 == 20", True),
        ("header user-id % 100 == 21", False),
        ("header user-id % 0 == 0", False),
        ("header word % 2 == 0", False),
        ("header user-id > 119 and header user-id <= 120", True),
        ("header user-id < 120 or header n < 0", True),
        ("header n == -3", True),
        ("header word > 1", False),
        ('header word == "it\'s gray"', True),
        ("header word contains gray", True),
        ("header word startswith its", False),
        ("not header word startswith its", True),
        ("header none != a", False),
        ("not header none == a", True),
        ("header none exists", False),
        ("header user-id in (1, 120)", True),
        ("header user-id % 7 in (0, 1)", True),
        ("cookie beta == off and (query tag == 'a b' or path == /)", True),
        ("(header a exists or header b exists) and method == GET", False),
        ("not (not (method == GET))", True),
        ("source_ip startswith 10.1. and authority endswith op", True),
        ("jwt realm.tag == vip", True),
        ("method == GET or header a == b and header c == d", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert compile_condition(text, "x")(stream()) is expected


@pytest.mark.parametrize(
    "text",
    ["", "header", "header a", "header a ==", "header a % b == 1", "header a < b", "foo a == b", "header a == b c",
     "(header a == b", "header a == b)", "header a in b", "header a in (b", "header a ~ b", 'header a == "b',
     "and", "not", "(" * (DEEPEST + 1) + "path == /"],
)  # fmt: skip
def test_no_condition(text: str) -> None:
    with pytest.raises(FieldError):
        compile_condition(text, "x")


def test_members_of_w3c_headers() -> None:
    assert with_baggage(None, b"a", b"x y") == b"a=x%20y"
    assert with_baggage(b"b=1, a=2;p", b"a", b"3") == b"b=1,a=3"
    assert with_tracestate(b"b=1, a=2", b"a", b"3") == b"a=3,b=1"
    assert with_tracestate(b",".join(b"k%d=1" % i for i in range(40)), b"a", b"3").count(b",") == 31


def test_one_view_of_all_protocols() -> None:
    def view(path: bytes, *pairs: tuple[bytes, bytes], version: bytes = b"HTTP/2") -> RequestView:
        request = RequestHeaders(1, b"POST", b"http", b"shop", path, Headers(pairs), True, http_version=version)
        tls = SimpleNamespace(peer_uri_san=("spiffe://a/b",))
        return RequestView(SimpleNamespace(request=request, connection=SimpleNamespace(tls=tls, remote_ip=b"1.2.3.4")))  # type: ignore[arg-type]

    plain = view(b"/a/b")
    assert (plain.kind, plain.service, plain.method, plain.group) == ("http", b"shop", b"POST", b"")
    grpc = view(b"/demo.Hello/Say", (b"content-type", b"application/grpc"))
    assert (grpc.kind, grpc.service, grpc.method) == ("grpc", b"demo.Hello", b"Say")
    tri = (b"tri-service-group", b"g"), (b"tri-service-version", b"1")
    triple = view(b"/demo.Hello/Say", (b"content-type", b"application/grpc"), *tri)
    assert (triple.kind, triple.service, triple.method, triple.group, triple.version) == (
        "triple",
        b"demo.Hello",
        b"Say",
        b"g",
        b"1",
    )
    dubbo = view(b"/demo.Hello/Say", (b"group", b"g"), (b"version", b"1"), version=b"Dubbo")
    assert (dubbo.kind, dubbo.service, dubbo.method, dubbo.group, dubbo.version) == ("dubbo", b"demo.Hello", b"Say", b"g", b"1")
    assert dubbo.source_identities == ("spiffe://a/b",)
    assert dubbo.source_ip == b"1.2.3.4"


def described(path: bytes = b"/", *pairs: tuple[bytes, bytes], tls: object = None, version: bytes = b"HTTP/2") -> Any:
    request = RequestHeaders(1, b"POST", b"http", b"shop", path, Headers(pairs), True, http_version=version)
    return SimpleNamespace(request=request, connection=SimpleNamespace(tls=tls, remote_ip=b"1.2.3.4"))


def struct(**fields: object) -> Any:
    made = Struct()
    made.update(fields)
    return made


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("identity", b"spiffe://mesh/ns/shop/sa/cart"),
        ("trust_domain", b"mesh"),
        ("namespace", b"shop"),
        ("service_account", b"cart"),
        ("cluster", b"cart.shop"),
        ("node", b"sidecar-7"),
    ],
)
def test_who_sends(part: str, value: bytes) -> None:
    pairs = (b"x-envoy-downstream-service-cluster", b"cart.shop"), (b"x-envoy-downstream-service-node", b"sidecar-7")
    stream = described(b"/", *pairs, tls=SimpleNamespace(peer_uri_san=("spiffe://mesh/ns/shop/sa/cart",)))
    assert value_source({"source": part}, "x")(stream) == value
    assert value_source({"source": part}, "x")(described()) is None
    assert compile_condition(f"source {part} == {value.decode()}", "x")(stream)


def test_a_name_that_is_no_spiffe_id() -> None:
    stream = described(tls=SimpleNamespace(peer_uri_san=("urn:other",)))
    assert value_source({"source": "namespace"}, "x")(stream) is None
    with pytest.raises(FieldError, match="must be one of identity"):
        value_source({"source": "pod"}, "x")


def test_labels_of_the_callers_workload() -> None:
    metadata = struct(NAME="cart-7", LABELS={"version": "gray", "app": "cart", "n": 3}, PLATFORM={"a": True}, LIST=[1, None])
    header = base64.b64encode(metadata.SerializeToString())
    for text in (header, header.rstrip(b"=")):
        stream = described(b"/", (PEER_METADATA, text))
        assert value_source({"source_label": "version"}, "x")(stream) == b"gray"
        assert value_source({"source_label": "n"}, "x")(stream) is None
        assert compile_condition("source_label app == cart", "x")(stream)
    assert value_source({"source_label": "version"}, "x")(described()) is None


@given(st.binary(max_size=200))
def test_metadata_that_are_none(junk: bytes) -> None:
    labels_in(junk)
    labels_in(base64.b64encode(junk))


def test_metadata_that_are_too_long_or_cut() -> None:
    whole = struct(LABELS={"version": "gray"}).SerializeToString()
    for end in range(len(whole)):
        assert labels_in(base64.b64encode(whole[:end])).get("version") in (None, "gray", "gra", "gr", "g", "")
    assert labels_in(b"A" * (LONGEST_METADATA + 1)) == {}


def test_one_name_for_dubbo_and_triple() -> None:
    """Group and version of a call, whatever they are on the wire."""
    condition = compile_condition("service == demo.Hello and group == g and version startswith 1.", "x")
    tri = (b"content-type", b"application/grpc"), (b"tri-service-group", b"g"), (b"tri-service-version", b"1.0")
    triple = described(b"/demo.Hello/Say", *tri)
    dubbo = described(b"/demo.Hello/Say", (b"group", b"g"), (b"version", b"1.0"), version=b"Dubbo")
    grpc = described(b"/demo.Hello/Say", (b"content-type", b"application/grpc"), (b"group", b"g"), (b"version", b"1.0"))
    assert [condition(one) for one in (triple, dubbo, grpc)] == [True, True, False]
    assert [value_source({"protocol": True}, "x")(one) for one in (triple, dubbo, grpc)] == [b"triple", b"dubbo", b"grpc"]
