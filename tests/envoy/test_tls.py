"""Mutual TLS between Envoy and us, each as the caller's side and as the endpoint's, over HTTP/1 and HTTP/2.

All four mixes of front and back get the same configuration. What the endpoint behind them is told (x-forwarded-client-cert), what
the callers get and what the statistics say must be alike.
"""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

import pytest
from parity import envoy_binary
from parity.config import address, bootstrap, cluster
from parity.config import http as http_listener
from parity.proxy import Side
from tls_support import client

from mesh_proxy.tls.authority import Authority

pytestmark = pytest.mark.envoy

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
MESH = Authority("mesh.local")
OTHER = Authority("other.local")
BACK = MESH.issue(uris=["spiffe://mesh.local/ns/shop/sa/back"], dns=["back.shop"], subject="back")
FRONT = MESH.issue(uris=["spiffe://mesh.local/ns/shop/sa/front"], dns=["front.shop", "front"], subject="front")
STRANGER = OTHER.issue(uris=["spiffe://mesh.local/ns/shop/sa/front"])
LAST = "ssl.fail_verify_no_cert"
KINDS = ("envoy", "mesh-proxy")


def _common(pair: Any, *names: dict[str, Any], alpn: tuple[str, ...] = ()) -> dict[str, Any]:
    def inline(data: bytes) -> dict[str, str]:
        return {"inline_string": data.decode()}

    validation: dict[str, Any] = {"trusted_ca": inline(MESH.pem)}
    if names:
        validation["match_typed_subject_alt_names"] = list(names)
    common: dict[str, Any] = {
        "tls_certificates": [{"certificate_chain": inline(pair.chain), "private_key": inline(pair.key)}],
        "validation_context": validation,
    }
    return common | ({"alpn_protocols": list(alpn)} if alpn else {})


def _uri(text: str) -> dict[str, Any]:
    return {"san_type": "URI", "matcher": {"exact": text}}


def back_config() -> dict[str, Any]:
    """Demands the front's certificate, and says all about it."""
    settings = (
        "forward_client_cert_details: SANITIZE_SET\n"
        "set_current_client_cert_details: {subject: true, cert: true, chain: false, dns: true, uri: true}\n"
    )
    one = http_listener("in", [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}], settings)
    common = _common(BACK, _uri("spiffe://mesh.local/ns/shop/sa/front"), alpn=("h2", "http/1.1"))
    socket = {"@type": f"{TLS}DownstreamTlsContext", "common_tls_context": common, "require_client_certificate": True}
    one["filter_chains"][0]["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": socket}
    return bootstrap([one], [cluster("up", "up")])


def front_config(port: int) -> dict[str, Any]:
    """`/1` goes over HTTP/1, `/2` over HTTP/2, `/wrong` expects somebody else, `/stranger` shows the wrong certificate."""
    clusters = []
    for name, pair, expected, version in (
        ("1", FRONT, "back", 1),
        ("2", FRONT, "back", 2),
        ("wrong", FRONT, "somebody", 1),
        ("stranger", STRANGER, "back", 1),
    ):
        common = _common(
            pair, _uri(f"spiffe://mesh.local/ns/shop/sa/{expected}"), alpn=("h2",) if version == 2 else ("http/1.1",)
        )
        socket = {"@type": f"{TLS}UpstreamTlsContext", "common_tls_context": common, "sni": "back.shop"}
        explicit = {f"http{'2' if version == 2 else ''}_protocol_options": {}}
        one = cluster(name, "up")
        one["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]  # type: ignore[arg-type]
        one["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": socket}
        one["typed_extension_protocol_options"] = {
            OPTIONS: {"@type": f"type.googleapis.com/{OPTIONS}", "explicit_http_config": explicit}
        }
        clusters.append(one)
    routes = [{"match": {"prefix": f"/{one['name']}"}, "route": {"cluster": one["name"]}} for one in clusters]
    return bootstrap([http_listener("in", routes)], clusters)


@contextlib.contextmanager
def chain(front: str, back: str) -> Iterator[tuple[Side, Side]]:
    if envoy_binary() is None:
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    with contextlib.ExitStack() as stack:
        behind = Side(back, "back", back_config())
        stack.callback(behind.stop)
        behind.start()
        before = Side(front, "front", front_config(behind.ports["port.in"]))
        stack.callback(before.stop)
        before.start()
        yield before, behind


def get(port: int, path: str, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    if context is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
    else:
        connection = HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    try:
        connection.request("GET", path, headers={"x-forwarded-client-cert": "Hash=forged"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _seen(front: str, back: str) -> dict[str, Any]:
    with chain(front, back) as (before, behind):
        found: dict[str, Any] = {}
        for path in ("/1", "/2", "/1/again"):
            behind.upstream.begin()
            status, _ = get(before.ports["port.in"], path)
            (received,) = behind.upstream.finish()
            found[path] = status, [value for name, value in received.headers if name.lower() == b"x-forwarded-client-cert"]
        for path in ("/wrong", "/stranger"):
            found[path] = get(before.ports["port.in"], path)[0]
        with pytest.raises((OSError, HTTPException)):
            get(behind.ports["port.in"], "/", client(MESH.pem))
        stats, theirs = before.stats(), behind.stats()
        for name in ("1", "2"):
            found[f"handshakes {name}"] = stats[f"cluster.{name}.ssl.handshake"]
        found["wrong"] = stats["cluster.wrong.ssl.fail_verify_san"] > 0
        (prefix,) = (key.removesuffix(LAST) for key in theirs if key.startswith("listener.") and key.endswith(LAST))
        for name in ("fail_verify_no_cert", "fail_verify_san", "no_certificate"):
            found[name] = theirs[f"{prefix}ssl.{name}"]
        found["a stranger was refused"] = theirs[f"{prefix}ssl.fail_verify_error"] > 0
        return found


def test_all_mixes_say_the_same() -> None:
    seen = {mix: _seen(*mix) for mix in itertools.product(KINDS, KINDS)}
    expected = seen["envoy", "envoy"]
    assert expected["/1"][0] == expected["/2"][0] == 200
    assert expected["/wrong"] == expected["/stranger"] == 503
    for mix, found in seen.items():
        assert found == expected, mix
