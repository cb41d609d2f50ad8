"""Programs that others wrote, on both sides: curl, wrk, nginx. What is not installed is skipped."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_support import Load, Sidecar, forward, one_listener, static_cluster, until
from e2e_support.nginx import LARGE, Nginx
from e2e_support.peers import connect
from parity.config import bootstrap, http
from parity.wire import Stream, read_response
from peer_programs import program

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]

ORIGIN = """
server {{ listen 127.0.0.1:{port}; root {dir};
  location = / {{ return 200 "from nginx"; }}
  location = /load {{ return 200 "from nginx"; }}
  location = /echo {{ proxy_pass http://127.0.0.1:{port}/sink; proxy_pass_request_body on; }}
  location = /sink {{ return 200 "$content_length"; }}
  location = /gone {{ return 204; }}
  location = /moved {{ return 301 /; }}
  location = /short {{ keepalive_timeout 0; return 200 "closing"; }} }}
"""
HTTP2_ORIGIN = """
server {{ listen 127.0.0.1:{port} http2; root {dir}; keepalive_requests {kept}; http2_max_concurrent_streams {streams};
  location = /load {{ return 200 "from nginx"; }}
  location = /sink {{ return 200 "$content_length"; }} }}
"""
HTTP2 = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""
FRONT = """
upstream sidecar {{ server 127.0.0.1:{target}; keepalive 8; }}
server {{ listen 127.0.0.1:{port};
  location / {{ proxy_pass http://sidecar; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
"""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., Nginx]]:
    started: list[Nginx] = []

    def make(server: str, **values: object) -> Nginx:
        started.append(Nginx(tmp_path / f"nginx{len(started)}", server, **values))
        return started[-1]

    yield make
    for one in started:
        one.stop()


def test_nginx_on_both_sides(start: Start, nginx: Callable[..., Nginx]) -> None:
    """caller -> nginx -> sidecar -> nginx, all with keep-alive: nothing fails, and few connections do."""
    origin = nginx(ORIGIN)
    sidecar = start(one_listener(origin.port), concurrency=2)
    front = nginx(FRONT, target=sidecar.port("in"))
    with Load(front.port, kept=16, fresh=4) as load:
        load.wait_for(1000, 120)
    print(load.summary())
    assert not load.failed()
    stats = sidecar.stats()
    assert stats["http.in.downstream_rq_total"] >= 1000
    # nginx keeps 8 connections; under 20 callers it opens some more, but not one for each request.
    assert stats["http.in.downstream_cx_total"] < stats["http.in.downstream_rq_total"] / 2
    assert stats["cluster.back.upstream_cx_total"] < 64


def test_nginx_as_upstream(start: Start, nginx: Callable[..., Nginx]) -> None:
    """Bodies, ranges, no content, redirects, connections that nginx closes."""
    origin = nginx(ORIGIN)
    sidecar = start(one_listener(origin.port))
    with connect(sidecar.port("in")) as sock:
        stream = Stream(sock, 30.0)

        def ask(path: str, fields: str = "", method: str = "GET", body: bytes = b"") -> tuple[int, bytes, str]:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nhost: shop\r\n{fields}\r\n".encode() + body)
            answer = read_response(stream, method)
            return answer.status, answer.body, answer.error

        assert ask("/") == (200, b"from nginx", "")
        assert ask("/large") == (200, LARGE, "")
        assert ask("/large", "range: bytes=1000-1999\r\n") == (206, LARGE[1000:2000], "")
        assert ask("/large", method="HEAD") == (200, b"", "")
        assert ask("/gone") == (204, b"", "")
        assert ask("/moved")[0] == 301
        assert ask("/echo", f"content-length: {len(LARGE)}\r\n", "POST", LARGE) == (200, str(len(LARGE)).encode(), "")
        for _ in range(5):
            assert ask("/short") == (200, b"closing", "")
        assert ask("/missing")[0] == 404
    assert sidecar.stats()["http.in.downstream_cx_total"] == 1


def curl(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program("curl"), "-sS", "-m", "60", *arguments], input=data, capture_output=True, timeout=90, check=True
    )


def test_curl(start: Start) -> None:
    """Two URLs over one connection, uploads with and without a length, Expect, HEAD, a refused upgrade, HTTP/1.0."""
    program("curl")
    sidecar = start(one_listener("back"))
    url = f"http://127.0.0.1:{sidecar.port('in')}"
    twice = curl("-v", f"{url}/one", f"{url}/two")
    assert twice.stdout == b"hello from backhello from back"
    assert re.search(rb"Re-using existing .*connection", twice.stderr)
    assert b"HTTP/1.1 200 OK" in curl("-I", f"{url}/head").stdout
    upload = curl("-v", "-H", "Expect: 100-continue", "--data-binary", "@-", f"{url}/expect", data=LARGE)
    assert b"< HTTP/1.1 100 Continue" in upload.stderr
    curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@-", f"{url}/chunked", data=LARGE)
    curl("-T", "-", f"{url}/put", data=LARGE)
    digests = {one.target: hashlib.sha256(one.body).digest() for one in sidecar.upstream.finish() if one.body}
    assert digests == {path: hashlib.sha256(LARGE).digest() for path in ("/expect", "/chunked", "/put")}
    refused = curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", f"{url}/ws")
    assert refused.stdout == b"403"
    assert curl("--http1.0", "-o", "/dev/null", "-w", "%{http_code}", url).stdout == b"426"


def test_wrk(start: Start) -> None:
    """Two seconds of wrk: no socket error, no answer but 200."""
    wrk = program("wrk")
    direct = {"match": {"path": "/direct"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    sidecar = start(
        bootstrap([http("in", [direct, forward("back")], "access_log: []")], [static_cluster("back", "back")]), concurrency=2
    )
    url = f"http://127.0.0.1:{sidecar.port('in')}/direct"
    command = [wrk, "-t1", "-c32", "-d2s", "--timeout", "20s", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    print(done.stdout)
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
    sent = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
    counted = sidecar.stats()["http.in.downstream_rq_2xx"]
    assert sent <= counted <= sent + 32


def test_http2_connections_of_nginx_go_away_and_no_request_is_lost(start: Start, nginx: Callable[..., Nginx]) -> None:
    """It says GOAWAY after every tenth request, in the middle of the others."""
    origin = nginx(HTTP2_ORIGIN, kept=10, streams=4)
    sidecar = start(one_listener(origin.port, cluster_extra=HTTP2))
    with Load(sidecar.port("in")) as load:
        load.wait_for(1000, 60)
    assert not load.failed(), load.summary()
    stats = sidecar.stats()
    assert stats["cluster.back.upstream_cx_close_notify"] > 10
    assert stats["cluster.back.upstream_rq_200"] == len(load.outcomes)
    until("all is idle", lambda: sidecar.settled({"cluster.back.upstream_rq_active": 0, "cluster.back.http2.streams_active": 0}))


def test_http2_and_large_bodies_both_ways(start: Start, nginx: Callable[..., Nginx]) -> None:
    origin = nginx(HTTP2_ORIGIN, kept=1000, streams=128)
    sidecar = start(one_listener(origin.port, cluster_extra=HTTP2))
    with connect(sidecar.port("in"), 30.0) as sock:
        stream = Stream(sock, 30.0)
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        assert read_response(stream, "GET").body == LARGE
        sock.sendall(b"HEAD /large HTTP/1.1\r\nhost: a\r\n\r\n")
        assert read_response(stream, "HEAD").status == 200
        sock.sendall(b"POST /sink HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(LARGE) + LARGE)
        # nginx answers before it has read the body, which ends the caller's connection.
        assert read_response(stream, "POST").body == b"%d" % len(LARGE)
