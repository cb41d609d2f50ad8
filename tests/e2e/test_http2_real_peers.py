"""curl, nghttp and h2load as HTTP/2 callers of a listener that detects the protocol; one set of answers for HTTP/1 and HTTP/2."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_support import Sidecar, one_listener
from e2e_support.peers import Peer
from http2_support.blocking import BODY, serve_http2
from parity.wire import Stream, WireError, content_length, is_chunked, read_head
from peer_programs import program

pytestmark = pytest.mark.slow

UPLOAD = os.urandom(3 << 20)
REQUEST_LINE = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1\r\n")
HTTP2_UPSTREAM = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""


def echo(sock: object) -> None:
    """An HTTP/1.1 endpoint that returns what it was sent, or BODY."""
    stream = Stream(sock, 30.0)  # type: ignore[arg-type]
    while True:
        try:
            head = read_head(stream, REQUEST_LINE)
        except WireError:
            return
        body = stream.chunked()[0] if is_chunked(head.fields) else stream.exactly(content_length(head.fields) or 0)
        body = body or BODY
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)  # type: ignore[attr-defined]


@pytest.fixture(params=["http1", "http2"])
def sidecar(request: pytest.FixtureRequest) -> Iterator[Sidecar]:
    http2 = request.param == "http2"
    with Peer(serve_http2 if http2 else echo) as peer:
        one = Sidecar(one_listener(peer.port, cluster_extra=HTTP2_UPSTREAM if http2 else ""))
        try:
            one.start()
            yield one
        finally:
            one.stop(keep=True)
            log = one.log()
            one.remove()
    assert "Traceback" not in log, log[-4000:]


def output_of(*command: str) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout


def test_curl(sidecar: Sidecar, tmp_path: Path) -> None:
    curl = program("curl")
    if b"HTTP2" not in output_of(curl, "--version"):
        pytest.skip("this curl does not speak HTTP/2")
    url = f"http://127.0.0.1:{sidecar.port('in')}/x"
    (tmp_path / "upload").write_bytes(UPLOAD)
    say = ("-w", "\n%{http_version} %{http_code}")
    for flag, version in (("--http2-prior-knowledge", b"2"), ("--http1.1", b"1.1")):
        assert output_of(curl, "-s", flag, *say, url) == BODY + b"\n" + version + b" 200"
        assert output_of(curl, "-s", flag, "-I", *say, url).endswith(b"\n" + version + b" 200")
        answer, _, status = output_of(
            curl, "-s", flag, *say, "-H", "expect:", "--data-binary", f"@{tmp_path}/upload", url
        ).rpartition(b"\n")
        assert status == version + b" 200"
        assert answer in (UPLOAD, BODY)
    stats = sidecar.stats()
    assert stats["http.in.downstream_rq_http2_total"] == stats["http.in.downstream_rq_http1_total"] == 3


def test_nghttp(sidecar: Sidecar) -> None:
    """Several resources on one connection, with trailers and padding."""
    url = f"http://127.0.0.1:{sidecar.port('in')}/"
    out = output_of(program("nghttp"), "-nvs", "--trailer=x-sum: 7", "--padding=20", url, url + "a", url + "b")
    assert out.count(b":status: 200") == 3
    assert b"RST_STREAM" not in out


def test_h2load(sidecar: Sidecar) -> None:
    url = f"http://127.0.0.1:{sidecar.port('in')}/"
    out = output_of(program("h2load"), "-n", "3000", "-c", "8", "-m", "10", url).decode()
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in out, out
    assert sidecar.stats()["http.in.downstream_rq_http2_total"] == 3000
