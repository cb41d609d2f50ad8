"""h2spec, strict, against the running proxy: with an HTTP/1 upstream, with an HTTP/2 upstream, and with none that answers.

h2spec (github.com/summerwind/h2spec) is looked for in MESH_PROXY_H2SPEC, on the PATH and in the Go folder; `make conformance`
installs it where Go is there.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from e2e_support import Sidecar, one_listener
from e2e_support.peers import Peer
from http2_support.blocking import serve_http2
from peer_programs import program

pytestmark = pytest.mark.slow
STRICT_CASES = 146
"""of version 2.2, which Go installs; 2.6 has 147"""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 23\r\n\r\nhello from the upstream"
HTTP2_UPSTREAM = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""


@pytest.fixture(scope="session")
def h2spec() -> str:
    return program("h2spec", named_by="MESH_PROXY_H2SPEC", how="`make conformance` installs it where Go is there")


def serve_http1(sock: socket.socket) -> None:
    """Answer every request when it has ended; bodies come chunked."""
    rest = b""
    while True:
        while b"\r\n\r\n" not in rest:
            received = sock.recv(65536)
            if not received:
                return
            rest += received
        head, _, rest = rest.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head:
            while b"0\r\n\r\n" not in rest:
                received = sock.recv(65536)
                if not received:
                    return
                rest += received
            rest = rest.partition(b"0\r\n\r\n")[2]
        elif length := re.search(rb"content-length: (\d+)", head):
            while len(rest) < int(length[1]):
                received = sock.recv(65536)
                if not received:
                    return
                rest += received
            rest = rest[int(length[1]) :]
        sock.sendall(ANSWER)


@contextmanager
def silence() -> Iterator[int]:
    """A port where nobody accepts: the line of waiting connections is full, so that no connection comes about.

    A refused connection, or one given up that an earlier request began, would be answered before the end of the request that the
    case sends, which is allowed and which h2spec does not expect. The time-out of a route begins at that end.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.fixture(params=["http1", "http2", "dead"])
def sidecar(request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    kind = request.param
    with Peer(serve_http2 if kind == "http2" else serve_http1) as peer, silence() as nobody:
        if kind == "dead":
            config = one_listener(nobody, "codec_type: HTTP2", cluster_extra="connect_timeout: 60s", timeout="0.3s")
        else:
            config = one_listener(peer.port, "codec_type: HTTP2", cluster_extra=HTTP2_UPSTREAM if kind == "http2" else "")
        one = Sidecar(config)
        try:
            one.start()
            yield one
        finally:
            one.stop(keep=True)
            log = one.log()
            one.remove()
    assert "Traceback" not in log, log[-4000:]


def test_strict(h2spec: str, sidecar: Sidecar) -> None:
    command = [h2spec, "--strict", "-h", "127.0.0.1", "-p", str(sidecar.port("in")), "-o", "20"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False).stdout
    summary = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", out)
    assert summary is not None, out[-2000:]
    total, passed, skipped, failed = map(int, summary.groups())
    assert (skipped, failed) == (0, 0), out[out.find("Failures") :]
    assert total == passed >= STRICT_CASES
