"""A hot upgrade and TLS: a session lives in the old process until it ends; new ones are the new process's."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from e2e_support import forward, until
from e2e_support.upgrades import Upgrades
from parity.config import bootstrap, cluster, http
from tls_support import client

from mesh_proxy.tls.authority import Authority

pytestmark = pytest.mark.slow

Chain = Callable[..., Upgrades]
MESH = Authority("mesh.local")
OWN = MESH.workload("web")
TIMEOUT_S = 60.0


def _config() -> dict[str, Any]:
    one = http("in", [forward("back")])
    pair = {"certificate_chain": {"inline_string": OWN.chain.decode()}, "private_key": {"inline_string": OWN.key.decode()}}
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    socket_config = {"@type": kind, "common_tls_context": {"tls_certificates": [pair]}}
    one["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": socket_config}
    return bootstrap([one], [cluster("back", "back")])


def _connect(port: int) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    return client(MESH.pem).wrap_socket(raw, server_hostname="in")


def _head(connection: ssl.SSLSocket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(4096)
        assert piece, received
        received += piece
    return received


def test_sessions_end_in_the_old_process(chain: Chain) -> None:
    proxy = chain(_config())
    old = proxy.newest
    with _connect(proxy.port("in")) as busy, _connect(proxy.port("in")) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b" 200 " in _head(idle)
        busy.sendall(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhe")
        until("the request is under way", lambda: proxy.stats().get("http.in.downstream_rq_active") == 1, TIMEOUT_S)
        new = proxy.launch().wait_live()
        # The new process takes new sessions while the old one still has the request.
        with _connect(proxy.port("in")) as fresh:
            fresh.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert b" 200 " in _head(fresh)
        assert old.process.poll() is None
        busy.sendall(b"llo")
        answer = _head(busy)
        assert b" 200 " in answer
        assert b"connection: close" in answer.lower()
    assert old.wait_exit() == 0, old.log()
    assert new.process.poll() is None
