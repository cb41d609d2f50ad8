"""Peers that send or read slowly: they are timed out where a time-out is configured, and cost nobody else anything."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest
from e2e_support import Load, Peer, Sidecar, forward, head_of, http_listener, one_listener, static_cluster, until
from e2e_support.peers import connect
from e2e_support.sidecar import memory_kb
from parity.config import bootstrap, http
from parity.wire import Response, Stream, read_response

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
LARGE = 64 << 20
SLACK_KB = 4096
"""What a worker may grow by for other reasons (first use of code, fragments of its heap): a sixteenth of one body."""
WAIT_S = 30.0
"""Only a failure waits so long. What is limited to about a second ends long before, also on a slow machine."""
PIECE = os.urandom(1 << 16)
GET = b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: %d\r\n\r\n"


def answer_of(sock: socket.socket) -> Response:
    return read_response(Stream(sock, WAIT_S), "POST")


# Slow senders


def drip(sock: socket.socket, data: bytes, interval: float, stop: float) -> float:
    """Send byte by byte until the peer answers or `stop` seconds have passed; how long that took."""
    began = time.monotonic()
    sock.settimeout(interval)
    for at in range(len(data)):
        with contextlib.suppress(TimeoutError):
            if sock.recv(1, socket.MSG_PEEK) is not None:
                break
        if time.monotonic() - began > stop:
            break
        sock.send(data[at : at + 1])
    return time.monotonic() - began


def test_slow_head(start: Start) -> None:
    """request_headers_timeout counts from the first byte; bytes that drip in do not prolong it. Others are served meanwhile."""
    sidecar = start(one_listener("back", "request_headers_timeout: 1s"))
    port = sidecar.port("in")
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(connect(port)) for _ in range(200)]
        for sock in crowd:
            sock.sendall(b"GET / HTTP/1.1\r\nhost:")
        with Load(port, kept=4, fresh=2) as load, connect(port) as sock:
            took = drip(sock, b"GET / HTTP/1.1\r\nhost: shop\r\nx-padding: " + b"x" * 1000, 0.05, WAIT_S)
            answer = answer_of(sock)
            load.stop()
        assert (answer.status, answer.error) == (408, "")
        assert 0.9 < took < WAIT_S
        assert not load.failed()
        for sock in crowd:
            assert answer_of(sock).status == 408
    until("all are counted", lambda: sidecar.settled({"http.in.downstream_rq_header_timeout": 201}))
    # A connection that says nothing at all is idle, not slow: it stays.
    with connect(port) as quiet:
        time.sleep(1.3)
        quiet.sendall(GET)
        assert answer_of(quiet).status == 200


def test_slow_head_after_a_request(start: Start) -> None:
    """The second head on a connection is watched like the first one, also when it began in the same segment as a request."""
    sidecar = start(one_listener("back", "request_headers_timeout: 1s"))
    with connect(sidecar.port("in")) as sock:
        sock.sendall(GET + b"GET / HT")
        stream = Stream(sock, WAIT_S)
        assert read_response(stream, "GET").status == 200
        assert read_response(stream, "GET").status == 408


@pytest.mark.parametrize(
    ("settings", "details"),
    [
        ("request_timeout: 1s", "request_overall_timeout"),
        ("stream_idle_timeout: 1s", "stream_idle_timeout"),
    ],
)
def test_slow_body(start: Start, settings: str, details: str) -> None:
    """The body stops coming: 408, the connection ends, and the upstream's part of it too."""
    with Peer(lambda sock: swallow(sock)) as peer:
        sidecar = start(one_listener(peer.port, settings))
        with connect(sidecar.port("in")) as sock:
            began = time.monotonic()
            sock.sendall(UPLOAD % 100 + b"half of it")
            answer = answer_of(sock)
            took = time.monotonic() - began
            assert answer.status == 408
            assert 0.8 < took < WAIT_S
            assert sock.recv(1) == b""
        idle = {"http.in.downstream_rq_active": 0, "cluster.back.upstream_rq_active": 0, "cluster.back.upstream_cx_active": 0}
        until("all is over", lambda: sidecar.settled(idle))
        assert f"details={details}\t" in sidecar.new_lines("in.log", 1)[0]


def test_dripping_body(start: Start) -> None:
    """A body that drips in is not idle; request_timeout ends it nevertheless."""
    with Peer(lambda sock: swallow(sock)) as peer:
        sidecar = start(one_listener(peer.port, "stream_idle_timeout: 2s\nrequest_timeout: 4s"))
        with connect(sidecar.port("in")) as sock:
            sock.sendall(UPLOAD % 1000)
            took = drip(sock, b"x" * 900, 0.05, WAIT_S)
            assert answer_of(sock).status == 408
            assert 3.5 < took < WAIT_S


def test_silent_upstream(start: Start) -> None:
    """The upstream stops within its answer: the stream is idle, the caller sees that it is cut."""

    def serve(sock: socket.socket) -> None:
        head_of(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")
        sock.recv(1)

    with Peer(serve) as peer:
        sidecar = start(one_listener(peer.port, "stream_idle_timeout: 1s"))
        with connect(sidecar.port("in")) as sock:
            sock.sendall(GET)
            answer = answer_of(sock)
            assert answer.status == 200
            assert answer.error
        until("all is over", lambda: sidecar.settled({"cluster.back.upstream_cx_active": 0, "http.in.downstream_cx_active": 0}))


def swallow(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


# Slow readers


def pour(sock: socket.socket) -> None:
    """An upstream with a large answer."""
    head_of(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE)
    for _ in range(LARGE // len(PIECE)):
        sock.sendall(PIECE)


def test_slow_reader_of_a_large_answer(start: Start) -> None:
    """What is not read stays with the upstream: the worker grows by no more than water marks, and serves others."""
    with Peer(pour) as peer:
        config = bootstrap(
            [http("in", [forward("large", "/large", timeout="300s"), forward("back")])],
            [static_cluster("large", peer.port), static_cluster("back", "back")],
        )
        sidecar = start(config)
        (worker,) = sidecar.workers()
        port = sidecar.port("in")
        with Load(port, kept=4, fresh=2) as load:
            load.wait_for(200)
        before = memory_kb(worker)
        readers = 8
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connect(port, receive_buffer=4096)) for _ in range(readers)]
            for sock in slow:
                sock.sendall(GET.replace(b" / ", b" /large "))
            until("all upstreams are held up", lambda: flow_paused(sidecar) >= readers)
            with Load(port, kept=4, fresh=2) as load:
                load.wait_for(300)
            grown = memory_kb(worker) - before
            slowest = max(one.ended - one.began for one in load.outcomes)
            assert not load.failed()
            # In the end everybody gets everything.
            digest, wanted = hashlib.sha256(), hashlib.sha256()
            left = LARGE
            sock = slow[0]
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            began = time.monotonic()
            while left:
                data = sock.recv(1 << 20)
                assert data
                digest.update(data)
                left -= len(data)
            took = time.monotonic() - began
            for _ in range(LARGE // len(PIECE)):
                wanted.update(PIECE)
            assert digest.digest() == wanted.digest()
    print(
        f"{readers} readers of {LARGE >> 20} MB each stand still: the worker grew by {grown} KB; others served, slowest "
        f"{slowest * 1000:.0f} ms; then one read it all in {took:.2f} s"
    )
    assert grown < readers * 1024 + SLACK_KB
    assert slowest < 10


def flow_paused(sidecar: Sidecar) -> int:
    return sidecar.stats()["cluster.large.upstream_flow_control_paused_reading_total"]


def test_slow_upstream_for_a_large_upload(start: Start) -> None:
    """The upstream reads nothing for a while: the callers are held up, not the memory."""
    go = threading.Event()
    digests: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        data = head_of(sock).partition(b"\r\n\r\n")[2]
        assert go.wait(60)
        digest = hashlib.sha256(data)
        left = LARGE - len(data)
        while left:
            data = sock.recv(1 << 20)
            if not data:
                return
            digest.update(data)
            left -= len(data)
        digests.append(digest.digest())
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    uploads = 2
    with Peer(serve, receive_buffer=4096) as peer:
        config = bootstrap(
            [http("in", [forward("large", "/large", timeout="300s"), forward("back")])],
            [static_cluster("large", peer.port), static_cluster("back", "back")],
        )
        sidecar = start(config)
        (worker,) = sidecar.workers()
        port = sidecar.port("in")
        with Load(port, kept=4, fresh=2) as load:
            load.wait_for(200)
        before = memory_kb(worker)
        statuses: list[int] = []

        def upload() -> None:
            with connect(port, timeout=60) as sock:
                sock.sendall(UPLOAD.replace(b" / ", b" /large ") % LARGE)
                for _ in range(LARGE // len(PIECE)):
                    sock.sendall(PIECE)
                statuses.append(answer_of(sock).status)

        threads = [threading.Thread(target=upload) for _ in range(uploads)]
        for thread in threads:
            thread.start()
        held = "http.in.downstream_flow_control_paused_reading_total"
        until("all callers are held up", lambda: sidecar.stats()[held] >= uploads)
        with Load(port, kept=4, fresh=2) as load:
            load.wait_for(300)
        grown = memory_kb(worker) - before
        assert not load.failed()
        go.set()
        for thread in threads:
            thread.join()
    wanted = hashlib.sha256()
    for _ in range(LARGE // len(PIECE)):
        wanted.update(PIECE)
    print(f"{uploads} uploads of {LARGE >> 20} MB each stand still: the worker grew by {grown} KB")
    assert statuses == [200] * uploads
    assert set(digests) == {wanted.digest()}
    assert grown < uploads * 1024 + SLACK_KB


def test_upload_before_the_upstream_is_there(start: Start) -> None:
    """No connection can be had yet: the caller is held up at per_connection_buffer_limit_bytes, and refused in the end."""
    config = bootstrap(
        [http_listener("in", "hole", extra="per_connection_buffer_limit_bytes: 100000")],
        [static_cluster("hole", "blackhole.hole", "connect_timeout: 4s")],
    )
    sidecar = start(config)
    (worker,) = sidecar.workers()
    before = memory_kb(worker)
    with connect(sidecar.port("in"), timeout=1.5) as sock:
        with pytest.raises(TimeoutError):
            sock.sendall(UPLOAD % LARGE + bytes(LARGE))
        grown = memory_kb(worker) - before
        sock.settimeout(WAIT_S)
        answer = answer_of(sock)
    print(f"an upload to nowhere: the worker grew by {grown} KB")
    assert answer.status == 503
    assert grown < 1024 + SLACK_KB


def test_who_never_reads_is_cut(start: Start) -> None:
    """The last answer on a connection is never read. If it is here whole, delayed_close_timeout without progress ends it, if some
    of it is still upstream, stream_idle_timeout does. The sizes are spread so that both happen, whatever the kernel takes."""

    def serve(sock: socket.socket) -> None:
        head = head_of(sock)
        size = int(head.split(b" ")[1][1:]) if head else 0
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))

    with Peer(serve) as peer, contextlib.ExitStack() as stack:
        sidecar = start(one_listener(peer.port, "delayed_close_timeout: 0.5s\nstream_idle_timeout: 1.5s"))
        for size in range(2_000_000, 3_600_000, 80_000):
            sock = stack.enter_context(connect(sidecar.port("in"), receive_buffer=4096))
            sock.sendall(b"GET /%d HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n" % size)
        until(
            "they are all gone", lambda: sidecar.settled({"http.in.downstream_cx_active": 0, "http.in.downstream_cx_total": 20})
        )
        idle = sidecar.stats()["http.in.downstream_rq_idle_timeout"]
        print(f"{idle} of 20 were cut by stream_idle_timeout")
        assert 0 < idle < 20


def test_refused_before_the_upload_ends(start: Start) -> None:
    """The upstream answers after the head and reads nothing more: the caller gets that answer although he is still sending, and
    nothing of the upload keeps the upstream's connection alive."""
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        head_of(sock)
        time.sleep(0.5)  # until everything between is full
        sock.sendall(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 8\r\n\r\ntoo much")
        assert done.wait(60)  # the socket stays open, and full

    with Peer(serve, receive_buffer=4096) as peer:
        sidecar = start(one_listener(peer.port))
        with connect(sidecar.port("in")) as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(UPLOAD % LARGE)
                for _ in range(LARGE // len(PIECE)):
                    sock.sendall(PIECE)
            answer = answer_of(sock)
        assert (answer.status, answer.body, answer.error) == (413, b"too much", "")
        gone = {"cluster.back.upstream_cx_active": 0, "http.in.downstream_cx_active": 0, "http.in.downstream_rq_active": 0}
        until("nothing is left", lambda: sidecar.settled(gone))
        done.set()
