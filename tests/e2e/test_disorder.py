"""Callers and upstreams that do anything, all at once, by a seed. Whoever behaves gets his own answer; nothing is left over.

The path of a request says what the upstream is to do with it, and carries a mark of which the answer's body is made, so that an
answer that reached the wrong caller shows.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from e2e_support import Peer, Sidecar, http_listener, static_cluster, until
from e2e_support.peers import abort, connect
from e2e_support.sidecar import sockets_of
from parity.config import bootstrap
from parity.wire import Stream, read_response

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
CALLERS = 24
SECONDS = float(os.environ.get("DISORDER_SECONDS", "6"))

SOUND = ("ok", "chunked", "close", "early", "slow", "hint", "ended")
BROKEN = ("reset", "leave", "reset_within", "leave_within", "garbage", "extra")


def body_of(mark: str, size: int) -> bytes:
    return (mark.encode() * (size // len(mark) + 1))[:size]


class Upstream:
    """Does what the path says: `/<behaviour>/<mark>/<size>`."""

    def __call__(self, sock: socket.socket) -> None:
        rest = b""
        while True:
            data = rest
            while b"\r\n\r\n" not in data:
                piece = sock.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, rest = data.partition(b"\r\n\r\n")
            _, behaviour, mark, size = head.split(b" ")[1].decode().split("/")
            if behaviour != "early":
                rest = self.take_body(sock, head.lower(), rest)
            if not self.answer(sock, behaviour, body_of(mark, int(size)), head.startswith(b"HEAD")):
                return
            if behaviour == "early":
                rest = self.take_body(sock, head.lower(), rest)

    def take_body(self, sock: socket.socket, head: bytes, data: bytes) -> bytes:
        """Read the request's body; what comes behind it."""
        if b"content-length: " in head:
            left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(data) < left:
                data += self.more(sock)
            return data[left:]
        if b"transfer-encoding" in head:
            while b"0\r\n\r\n" not in data:  # there is no zero in the body
                data += self.more(sock)
            return data.partition(b"0\r\n\r\n")[2]
        return data

    def more(self, sock: socket.socket) -> bytes:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError
        return data

    def answer(self, sock: socket.socket, behaviour: str, body: bytes, head_only: bool) -> bool:
        """Answer; False when that ends the connection."""
        plain = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        sent = b"" if head_only else body
        if behaviour in ("ok", "early"):
            sock.sendall(plain + sent)
        elif behaviour == "slow":
            time.sleep(0.02)
            sock.sendall(plain)
            time.sleep(0.02)
            sock.sendall(sent)
        elif behaviour == "hint":
            sock.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + plain + sent)
        elif behaviour == "chunked":
            sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            if not head_only:
                half = len(body) // 2
                for piece in (body[:half], body[half:]):
                    sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b"")
                sock.sendall(b"0\r\n\r\n")
        elif behaviour == "close":
            sock.sendall(plain.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + sent)
            return False
        elif behaviour == "ended":
            # Without a body nothing tells that the connection ends, but these words.
            sock.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n" % (b"connection: close\r\n" if head_only else b"") + sent)
            return False
        elif behaviour == "extra":
            sock.sendall(plain + sent + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        elif behaviour == "garbage":
            sock.sendall(b"\x16\x03\x01" + body[:100])
        else:
            if behaviour.endswith("within"):
                sock.sendall(plain + body[: len(body) // 2])
            if behaviour.startswith("reset"):
                abort(sock)
            return False
        return True


class Caller:
    """One caller's life: connection after connection, each with some requests, most of them ending well."""

    def __init__(self, ports: list[int], seed: int, until_time: float) -> None:
        self.ports = ports
        self.random = random.Random(seed)
        self.until_time = until_time
        self.number = seed
        self.where = 0
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        turn = 0
        while time.monotonic() < self.until_time:
            turn += 1
            try:
                self.connection(turn)
            except ConnectionError:
                self.seen["ended by the sidecar"] += 1
            except OSError as error:
                self.wrong.append(f"caller {self.number}, connection {turn}: {type(error).__name__} {error}")

    def request(self, mark: str) -> tuple[str, str, int, bytes]:
        """behaviour, method, size of the answer's body, bytes."""
        choose = self.random
        behaviour = choose.choice(SOUND if choose.random() < 0.75 else BROKEN)
        size = choose.choice((0, 1, 10, 1000, 70_000, 300_000))
        method = choose.choice(("GET", "GET", "GET", "POST", "POST", "HEAD"))
        if behaviour == "extra":
            size = 10  # so that what is too much comes in the same segment, and not for the next request
        elif behaviour.endswith("within"):
            size, method = 1000, "POST"  # an answer that has a middle
        head = f"{method} /{behaviour}/{mark}/{size} HTTP/1.1\r\nhost: shop\r\n"
        if method != "POST":
            return behaviour, method, size, f"{head}\r\n".encode()
        body = b"x" * choose.choice((0, 5, 5000, 100_000, 500_000))
        if choose.random() < 0.5:
            return behaviour, method, size, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
        return behaviour, method, size, f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n"

    def connection(self, turn: int) -> None:
        choose = self.random
        self.where = choose.choice(self.ports)
        with connect(self.where, receive_buffer=choose.choice((0, 4096))) as sock:
            stream = Stream(sock, 60.0)
            for part in range(choose.randint(1, 5)):
                marks = [f"{self.number}.{turn}.{part}.{i}-" for i in range(choose.choice((1, 1, 1, 2, 4)))]
                requests = [self.request(mark) for mark in marks]
                writer = threading.Thread(target=self.write, args=(sock, b"".join(one[3] for one in requests)))
                writer.start()
                how = choose.random()
                try:
                    if how < 0.1:
                        self.vanish(sock, how < 0.05)
                        self.seen["vanished"] += 1
                        return
                    if how < 0.2:
                        time.sleep(0.05)
                    for mark, (behaviour, method, size, _) in zip(marks, requests, strict=True):
                        if not self.check(stream, mark, behaviour, method, size):
                            return
                finally:
                    writer.join()

    def write(self, sock: socket.socket, data: bytes) -> None:
        try:
            while data:
                size = self.random.choice((1, 100, 100_000, 1 << 20))
                sock.sendall(data[:size])
                data = data[size:]
        except OSError:
            pass  # answered and closed before the end, or we vanished ourselves

    def vanish(self, sock: socket.socket, reset: bool) -> None:
        time.sleep(self.random.random() * 0.03)
        if reset:
            abort(sock)
        else:
            sock.close()

    def check(self, stream: Stream, mark: str, behaviour: str, method: str, size: int) -> bool:
        """Read one answer; True when another may follow."""
        answer = read_response(stream, method)
        wanted = b"" if method == "HEAD" else body_of(mark, size)
        got = f"{answer.status} {answer.error} {len(answer.body)} bytes {answer.body[:40]!r}"
        what = f"{self.where} {method} {behaviour} {mark} {size}: {got}"
        self.seen[f"{behaviour} {answer.error.partition(' ')[0] or answer.status}"] += 1
        if not answer.error and answer.status == 200:
            if answer.body != wanted:
                self.wrong.append(f"not his answer: {what}")
            if behaviour == "garbage" or behaviour.endswith("within"):
                self.wrong.append(f"a broken answer looks whole: {what}")
        elif behaviour in SOUND or (not answer.error and answer.status not in (502, 503)):
            self.wrong.append(what)
        return not answer.error and ("connection", "close") not in answer.headers


def test_disorder(start: Start) -> None:
    same = bool(os.environ.get("MESH_PROXY_SAME_EXAMPLES"))
    seed = int(os.environ.get("DISORDER_SEED", str(int(same)))) or random.randrange(1 << 30)
    print(f"DISORDER_SEED={seed}")
    with Peer(Upstream()) as peer:
        config = bootstrap(
            [
                http_listener("one", "back", timeout="60s"),
                http_listener("two", "tight", timeout="60s"),
                http_listener("three", "back", timeout="60s", retry_policy={"retry_on": "reset,5xx", "num_retries": 2}),
            ],
            [
                static_cluster("back", peer.port),
                static_cluster("tight", peer.port, "circuit_breakers: {thresholds: [{max_connections: 4}]}"),
            ],
        )
        sidecar = start(config)
        (worker,) = sidecar.workers()
        sockets = len(sockets_of(worker))
        ends = time.monotonic() + SECONDS
        names = ("one", "two", "three")
        callers = [Caller([sidecar.port(name) for name in names], seed + i, ends) for i in range(CALLERS)]
        threads = [threading.Thread(target=caller.run) for caller in callers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen: Counter[str] = sum((caller.seen for caller in callers), Counter())
        wrong = [line for caller in callers for line in caller.wrong]
        print(f"{sum(seen.values())} requests: " + ", ".join(f"{what} {count}" for what, count in sorted(seen.items())))
        assert sidecar.workers() == [worker]
        assert not wrong, "\n".join(wrong[:20])
        peer.close()
        idle = {f"http.{name}.downstream_{what}_active": 0 for name in names for what in ("cx", "rq")}
        idle |= {f"cluster.{name}.upstream_{what}_active": 0 for name in ("back", "tight") for what in ("cx", "rq", "rq_pending")}
        until("nothing is left", lambda: sidecar.settled(idle))
        until("no socket is left", lambda: len(sockets_of(worker)) <= sockets)
