"""Every payload of the HTTP/1 corpus through a running sidecar, cut in every way, with a strict reader on both ends.

What is refused must be answered as the corpus says, and no complete request that is not in the payload may ever reach the
upstream. What is accepted must arrive as the requests that it is, well-formed. The payloads run in lanes, each with a listener
and an endpoint of its own, so that what an endpoint saw belongs to one payload.
"""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from e2e_support import Peer, Sidecar, head_of, http_listener, static_cluster, until
from e2e_support.peers import connect
from http1_corpus import REQUESTS, RESPONSES
from http1_support import SETTINGS, asked, ended, random_cut, serve
from parity import Received, bootstrap
from parity.wire import Stream, read_response, values

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.http1 import DownstreamHttp1

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
LANES = 8
DEADLINE_S = 20.0
LONGEST_BYTE_BY_BYTE = 4096
"""Of longer payloads only the last bytes come one by one: sixty thousand writes prove nothing more."""
ENDING = b"GET /ending HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"

LAST = ("GET", "/ending", b"")
BROKEN_OFF = re.compile(r"(closed|reset)( \d+ bytes too early| after .*)?", re.DOTALL)
"""A request whose end never came: what an upstream throws away."""
REFUSED_BY_MANAGER = {"get without host": [400], "get with nothing at all": [400], "options asterisk": [404, 200]}
"""Well-formed, but the connection manager does not take them: what is answered to them and, if they are, to the last request."""


def cuttings(payload: bytes, seed: int) -> Iterator[list[bytes]]:
    yield [payload]
    head = max(0, len(payload) - LONGEST_BYTE_BY_BYTE)
    yield [payload[:head], *(payload[i : i + 1] for i in range(head, len(payload)))]
    rng = random.Random(seed)
    yield random_cut(payload, rng)
    yield random_cut(payload, rng)


def requests_in(payload: bytes) -> list[tuple[str, str, bytes]]:
    """The complete requests in a payload, before the first fault: method, path, body."""
    found: list[tuple[str, str, bytes]] = []
    events, _ = serve(DownstreamHttp1(SETTINGS), [payload])
    method = path = ""
    body = b""
    for event in events:
        if isinstance(event, RequestHeaders):
            method, path, body = event.method.decode(), event.path.decode(), b""
        elif isinstance(event, Data):
            body += event.data
        if ended(event):
            found.append((method, path, body))
    return found


class Lane:
    """One listener, one endpoint, one payload at a time."""

    def __init__(self, sidecar: Sidecar, number: int) -> None:
        self.sidecar = sidecar
        self.name = f"a{number}"
        self.port = sidecar.port(self.name)
        self.problems: list[str] = []

    def seen(self) -> list[Received]:
        return [one for one in self.sidecar.upstream.finish() if one.endpoint == self.name]

    def run(self, name: str, payload: bytes, status: int | None, cut: list[bytes], how: str) -> None:
        before = len(self.seen())
        where = f"{name} ({how}):"
        wanted = requests_in(payload)
        with connect(self.port) as sock:
            statuses = self.exchange(sock, payload, cut, [method for method, _, _ in wanted], status)
        expected = [200] * len(wanted)
        if status is not None:
            expected.append(status)
        elif name in REFUSED_BY_MANAGER:
            expected = REFUSED_BY_MANAGER[name]
            wanted = [LAST] * (len(expected) - 1)
        elif b"Connection: close" not in payload:
            expected.append(200)
            wanted.append(LAST)
        if statuses != expected:
            self.problems.append(f"{where} answered {statuses}, not {expected}")
        complete = [one for one in self.seen()[before:] if one.outcome == "answered"]
        got = [(one.method, one.target, one.body) for one in complete]
        if got != wanted:
            self.problems.append(f"{where} the upstream saw {got}, not {wanted}")
        for one in self.seen()[before:]:
            self.check_received(where, one)
        if status is not None:
            self.check_fresh(where)

    def exchange(
        self, sock: socket.socket, payload: bytes, cut: list[bytes], methods: list[str], status: int | None
    ) -> list[int]:
        """Send the payload, and a last request when it is a good one; the statuses of all answers until the connection ends."""
        for piece in cut:
            try:
                sock.sendall(piece)
            except ConnectionError:
                break  # refused already
        if status is None:
            sock.sendall(ENDING)
            methods = [*methods, "GET"]
        statuses: list[int] = []
        stream = Stream(sock, DEADLINE_S)
        while True:
            method = methods[len(statuses)] if len(statuses) < len(methods) else "GET"
            answer = read_response(stream, method)
            if answer.error:
                if answer.error != "connection closed without an answer":
                    self.problems.append(f"{payload[:60]!r}: {answer.error}")
                return statuses
            statuses.append(answer.status)

    def check_received(self, where: str, one: Received) -> None:
        """The strict reader has checked lines, lengths and chunks; here is what only the sum of the fields shows."""
        if one.outcome not in ("answered", "aborted") and not BROKEN_OFF.fullmatch(one.outcome):
            self.problems.append(f"{where} the upstream could not read the request: {one.outcome}")
        if len(values(one.headers, "host")) != 1:
            self.problems.append(f"{where} {len(values(one.headers, 'host'))} Host fields reached the upstream")
        for hop in ("connection", "upgrade", "keep-alive", "te", "proxy-connection"):
            if values(one.headers, hop) not in ([], ["trailers"]):
                self.problems.append(f"{where} {hop} reached the upstream")

    def check_fresh(self, where: str) -> None:
        before = len(self.seen())
        with connect(self.port) as sock:
            sock.sendall(b"GET /fresh HTTP/1.1\r\nHost: shop\r\n\r\n")
            answer = read_response(Stream(sock, DEADLINE_S), "GET")
        if (answer.status, answer.error) != (200, ""):
            self.problems.append(f"{where} then a good request got {answer.status} {answer.error}")
        seen = [one.target for one in self.seen()[before:] if one.outcome == "answered"]
        if seen != ["/fresh"]:
            self.problems.append(f"{where} then the upstream saw {seen}")


def in_lanes(lanes: list[Lane], jobs: list[Callable[[Lane], None]]) -> list[str]:
    """Run the jobs, each on the next free lane; what went wrong."""
    waiting = iter(jobs)
    lock = threading.Lock()

    def work(lane: Lane) -> None:
        while True:
            with lock:
                job = next(waiting, None)
            if job is None:
                return
            try:
                job(lane)
            except Exception as error:
                lane.problems.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [problem for lane in lanes for problem in lane.problems]


def test_requests(start: Start) -> None:
    names = [f"a{i}" for i in range(LANES)]
    sidecar = start(
        bootstrap(
            [http_listener(n, n, "codec_type: HTTP1") for n in names],
            [static_cluster(n, n, "circuit_breakers: {}") for n in names],
        ),
        concurrency=2,
    )
    lanes = [Lane(sidecar, i) for i in range(LANES)]
    jobs: list[Callable[[Lane], None]] = []
    for index, (name, payload, status) in enumerate(REQUESTS):
        for how, cut in enumerate(cuttings(payload, index)):
            jobs.append(
                lambda lane, a=name, p=payload, s=status, c=cut, h=how: lane.run(a, p, s, c, ("whole", "bytes", "cut", "cut")[h])
            )
    problems = in_lanes(lanes, jobs)
    print(f"{len(jobs)} deliveries, {len(sidecar.upstream.received)} requests at the upstream")
    assert not problems, "\n".join(problems[:40])


class Answers:
    """An upstream that answers `/N/M` with the N-th payload in its M-th cutting, and anything else with `good`."""

    def __init__(self) -> None:
        self.left_open: list[str] = []
        """refused answers after which the sidecar did not end the connection"""
        self.over = {f"/{number}/{cut}": threading.Event() for number in range(len(RESPONSES)) for cut in range(4)}
        """path of an answer -> all of it was sent; if it is a refused one: its connection has ended"""

    def __call__(self, sock: socket.socket) -> None:
        while head := head_of(sock):
            path = head.split(b" ")[1].decode()
            if path == "/good":
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
                continue
            number, cut = map(int, path[1:].split("/"))
            name, payload, accepted = RESPONSES[number]
            try:
                for piece in list(cuttings(payload, number))[cut]:
                    sock.sendall(piece)
                if not accepted:
                    sock.settimeout(DEADLINE_S)
                    if sock.recv(1):
                        self.left_open.append(f"{name}: another request came on the connection")
            except ConnectionError:
                return  # refused already
            except TimeoutError:
                self.left_open.append(f"{name}: still open")
            finally:
                self.over[path].set()
            if not accepted or not self.framed(payload):
                return

    def framed(self, payload: bytes) -> bool:
        """The end of the connection is not what ends this answer."""
        return b"length" in payload.lower() or b"chunked" in payload or b" 204 " in payload


def answer_in(payload: bytes) -> tuple[int, bytes, bool]:
    """What our own codec finds in a payload: status (0 for none), body, whether the answer is complete."""
    codec = asked()
    status, body, complete = 0, b"", False
    for event in [*codec.receive_data(payload), *codec.receive_eof()]:
        if isinstance(event, ResponseHeaders):
            status = event.status
        elif isinstance(event, Data):
            body += event.data
        complete = complete or ended(event)
    return status, body, complete


def ask_for(lane: Lane, number: int, cut: int, answers: Answers) -> None:
    name, payload, accepted = RESPONSES[number]
    port, problems = lane.port, lane.problems
    where = f"{name} (cutting {cut}):"
    status, body, complete = answer_in(payload)
    with connect(port) as sock:
        stream = Stream(sock, DEADLINE_S)
        sock.sendall(b"GET /%d/%d HTTP/1.1\r\nHost: shop\r\n\r\n" % (number, cut))
        answer = read_response(stream, "GET")
        if not status:
            if (answer.status, answer.error) != (502, "") or accepted:
                problems.append(f"{where} {answer}, not 502")
        elif not complete:
            # The head may have been passed on before the fault; the end must not.
            if not answer.error and answer.status != 502:
                problems.append(f"{where} a cut answer looks whole: {answer}")
        elif (answer.status, answer.body, answer.error) != (status, body, ""):
            problems.append(f"{where} {answer}")
        # A fault may come after an answer that was good so far: no proxy can know, so let it come before the next request.
        if not accepted and not answers.over[f"/{number}/{cut}"].wait(DEADLINE_S):
            problems.append(f"{where} never came to its end")
        if not answer.error and "close" not in values(answer.headers, "connection"):
            sock.sendall(b"GET /good HTTP/1.1\r\nHost: shop\r\n\r\n")
            good = read_response(stream, "GET")
            if (good.status, good.body, good.error) != (200, b"good", ""):
                problems.append(f"{where} then on the same connection: {good}")
    with connect(port) as sock:
        sock.sendall(b"GET /good HTTP/1.1\r\nHost: shop\r\n\r\n")
        good = read_response(Stream(sock, DEADLINE_S), "GET")
        if (good.status, good.body, good.error) != (200, b"good", ""):
            problems.append(f"{where} then on a new connection: {good}")


def test_responses(start: Start) -> None:
    answers = Answers()
    names = [f"a{i}" for i in range(LANES)]
    with Peer(answers) as peer:
        sidecar = start(
            bootstrap([http_listener(n, n) for n in names], [static_cluster(n, peer.port) for n in names]), concurrency=2
        )
        lanes = [Lane(sidecar, i) for i in range(LANES)]
        jobs: list[Callable[[Lane], None]] = [
            lambda lane, n=number, c=cut: ask_for(lane, n, c, answers) for number in range(len(RESPONSES)) for cut in range(4)
        ]
        problems = in_lanes(lanes, jobs)
        idle = {f"http.{n}.downstream_rq_active": 0 for n in names} | {f"cluster.{n}.upstream_rq_active": 0 for n in names}
        until("nothing in progress", lambda: sidecar.settled(idle))
    print(f"{len(jobs)} answers")
    assert not problems + answers.left_open, "\n".join((problems + answers.left_open)[:40])
