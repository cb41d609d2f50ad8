"""Callers in a network namespace that go on until they are told to stop: every answer is checked, nothing is tried again.

Each caller is a thread that lives in the namespace. A connection that its peer announces to end (`connection: close`, READONLY)
or ends between two requests is followed by a new one, as HTTP and Dubbo clients do; anything else that goes wrong is a failure.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable

from dubbo_support import wire
from netns_support import Namespace

from e2e_support.backends import checksum
from e2e_support.peers import read_answer

TIMEOUT_S = 60.0
"""a slow machine is no failure"""


class SteadyLoad:
    """`address` is called from the namespace, on ports by kind: `http` and `dubbo`."""

    def __init__(self, namespace: Namespace, address: str, ports: dict[str, int]) -> None:
        self.done: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._namespace = namespace
        self._address = address
        self._ports = ports
        self._stop = threading.Event()
        kinds: dict[str, Callable[[], None]] = {
            "http kept alive": self._http_kept,
            "http fresh": self._http_fresh,
            "dubbo": self._dubbo,
        }
        self._threads = [threading.Thread(target=self._run, args=item, name=item[0]) for item in kinds.items()]

    def __enter__(self) -> SteadyLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S * 2)

    def _run(self, kind: str, work: Callable[[], None]) -> None:
        try:
            with self._namespace.inside():
                while not self._stop.is_set():
                    try:
                        work()
                    except (OSError, AssertionError) as error:
                        self.failures[f"{kind}: {type(error).__name__} {error}"[:200]] += 1
                        self._stop.wait(0.05)
        except BaseException as error:
            self.failures[f"{kind}: {type(error).__name__} {error}"[:200]] += 1
            raise

    def _connect(self, kind: str, port: str) -> socket.socket:
        self.connections[kind] += 1
        return socket.create_connection((self._address, self._ports[port]), TIMEOUT_S)

    def _http_kept(self) -> None:
        with self._connect("http kept alive", "http") as sock:
            while not self._stop.wait(0.005):
                sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\n\r\n")
                answer = read_answer(sock, timeout=TIMEOUT_S)
                assert (answer.status, answer.body) == (200, b"word"), (answer.status, answer.body)
                self.done["http kept alive"] += 1
                fields = {name.lower(): value for name, value in answer.headers}
                if fields.get("connection") == "close":
                    return

    def _http_fresh(self) -> None:
        with self._connect("http fresh", "http") as sock:
            sock.sendall(b"GET /0/word HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            answer = read_answer(sock, timeout=TIMEOUT_S)
            assert (answer.status, answer.body) == (200, b"word"), (answer.status, answer.body)
        self.done["http fresh"] += 1
        self._stop.wait(0.01)

    def _dubbo(self) -> None:
        """One connection, until the provider says READONLY."""
        with self._connect("dubbo", "dubbo") as sock:
            sock.settimeout(TIMEOUT_S)
            for number in itertools.count(1):
                call = wire.call(method="after0", request_id=number)
                sock.sendall(call)
                readonly = False
                while True:
                    flags, status, answered, size = wire.header(_exactly(sock, 16))
                    body = _exactly(sock, size)
                    if flags & 0x20:  # an event: READONLY, or a heartbeat
                        readonly = readonly or b"R" in body
                        continue
                    assert (status, answered) == (20, number)
                    assert checksum(call).encode() in body
                    break
                self.done["dubbo"] += 1
                if readonly or self._stop.wait(0.005):
                    return


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = sock.recv(size - len(found))
        if not data:
            raise ConnectionError("ended in the middle of an answer")
        found += data
    return found
