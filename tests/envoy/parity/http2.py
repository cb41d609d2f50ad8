"""HTTP/2 endpoints of the recording upstream: `$(up2.NAME)`. The name says what the endpoint's SETTINGS are (`SETTINGS`)."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from h2.settings import SettingCodes
from http2_support.peer import CONNECT, MAX_STREAMS, WINDOW, Pairs, PeerConnection, Request

from .wire import Fields

if TYPE_CHECKING:
    from .upstream import Received, Reply, Upstream

SETTINGS: dict[str, dict[SettingCodes, int]] = {
    "one": {MAX_STREAMS: 1},
    "connect": {CONNECT: 1},
    "narrow": {WINDOW: 1000},
}
"""endpoint name -> what it says beside the defaults"""
NO_ERROR = 0
STREAM = "<stream>"
"""stands for the stream id in the frames of a `raw` reply"""


def pairs(fields: Fields | tuple[tuple[str, str], ...]) -> Pairs:
    return [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]


def fields(found: Pairs) -> Fields:
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in found]


def serve(upstream: Upstream, name: str, sock: socket.socket, ordinal: int) -> None:
    """One connection: answer each request when it is complete (or at once, if the reply is `early`)."""
    from .upstream import Received

    sock.settimeout(30)
    peer = sock.getpeername()
    connection = PeerConnection(sock, SETTINGS.get(name))
    waiting: dict[int, tuple[Request, Received, Reply]] = {}
    watched: list[tuple[Request, Received]] = []
    try:
        while True:
            while connection.fresh:
                request = connection.fresh.popleft()
                one = Received(name, version="2", connection=ordinal, peer=f"{peer[0]}:{peer[1]}")
                one.headers = [(n, v) for n, v in fields(request.headers) if n not in (":method", ":path")]
                one.method, one.target = request.get(b":method").decode(), request.path.decode("latin-1")
                waiting[request.stream_id] = (request, *upstream.record(one))
            for request, one, reply in list(waiting.values()):
                tunnel = one.method == "CONNECT"
                if request.ended or request.reset is not None or reply.early or tunnel:
                    del waiting[request.stream_id]
                    watched.append((request, one))
                    answer(upstream, connection, request, one, reply)
                    one.body, one.trailers = request.body, fields(request.trailers)
                    if not (tunnel or reply.early) or request.ended or connection.closed:
                        one.done.set()
            for request, one in watched:
                if request.reset is not None and not one.outcome.startswith("reset by proxy"):
                    one.outcome = f"reset by proxy: {request.reset}"
                if one.method == "CONNECT":
                    echo(connection, request, one)
                if request.ended or request.reset is not None:
                    one.body, one.trailers = request.body, fields(request.trailers)
                    one.done.set()
            if connection.fresh:
                continue
            if not connection.step():
                break
    finally:
        if connection.fault:
            upstream.record(Received(name, outcome=connection.fault))[0].done.set()
        for _, one, _ in waiting.values():
            one.outcome = "aborted"
            one.done.set()
        for _, one in watched:
            one.done.set()


def echo(connection: PeerConnection, request: Request, one: Received) -> None:
    """What came through a tunnel since the last time goes back."""
    if one.outcome != "tunnel":
        return
    new = request.body[len(one.body) :]
    one.body = request.body
    if new:
        connection.data(request, new)
    if request.ended:
        connection.data(request, b"", end=True)
        one.outcome = "answered"


def answer(upstream: Upstream, connection: PeerConnection, request: Request, one: Received, reply: Reply) -> None:
    if request.reset is not None:
        return
    if reply.delay and not _sleep(connection, request, reply.delay):
        one.outcome = "aborted"
        return
    while reply.held and not upstream.released.is_set():
        if not _sleep(connection, request, 0.02):
            one.outcome = "aborted"
            return
    one.outcome = "answered"
    action, _, argument = reply.h2.partition(" ")
    code = int(argument) if argument.isdigit() else NO_ERROR
    if action == "raw":
        connection.raw(bytes.fromhex(argument.replace(STREAM, request.stream_id.to_bytes(4, "big").hex())))
    elif action == "refuse":
        connection.refuse(request)
    elif action == "reset":
        connection.reset(request, code)
    elif action == "goaway":  # without having looked at this request
        connection.go_away(request.stream_id - 2 if request.stream_id > 1 else 0, code)
    elif reply.ending == "close_before":
        connection.sock.shutdown(socket.SHUT_RDWR)
    elif one.method == "CONNECT" and reply.status == 200:
        connection.headers(request, 200, pairs(reply.headers))
        one.outcome = "tunnel"
    else:
        _respond(connection, request, reply, action, code, one.endpoint)


def _respond(connection: PeerConnection, request: Request, reply: Reply, action: str, code: int, endpoint: str) -> None:
    body = f"hello from {endpoint}".encode() if reply.body is None else reply.body
    head = pairs(reply.headers)
    for status, informational in reply.informational:
        connection.headers(request, status, pairs(informational))
    if reply.framing == "length":
        head.append((b"content-length", b"%d" % len(body)))
    if request.get(b":method") == b"HEAD" or reply.framing == "none":
        body = b""
    connection.headers(request, reply.status, head, end=not body and not reply.trailers and not action)
    if action == "reset_after_headers":
        connection.reset(request, code)
        return
    if reply.body_delay and not _sleep(connection, request, reply.body_delay):
        return
    if reply.ending == "close_middle" or action == "reset_middle":
        connection.data(request, body[: len(body) // 2])
        if action:
            connection.reset(request, code)
        else:
            connection.sock.shutdown(socket.SHUT_RDWR)
        return
    if action == "goaway_first":  # a graceful one, this request still included
        connection.go_away(request.stream_id, code)
    if reply.trailers:
        connection.data(request, body)
        connection.trailers(request, pairs(reply.trailers))
    elif body or action:
        connection.data(request, body, end=True)
    if action == "reset_after":  # as bytes: for h2 the stream is over
        connection.raw(b"\0\0\4\3\0" + request.stream_id.to_bytes(4, "big") + code.to_bytes(4, "big"))
    if action == "goaway_after":
        connection.go_away(request.stream_id, code)


def _sleep(connection: PeerConnection, request: Request, seconds: float) -> bool:
    """Wait, reading what comes; False when the request was given up meanwhile."""
    timer = threading.Event()
    connection.sock.settimeout(seconds)
    try:
        while request.reset is None and not timer.is_set():
            try:
                data = connection.sock.recv(65536)
            except TimeoutError:
                return True
            if not data:
                connection.closed = True
                return False
            connection.take(data)
    finally:
        connection.sock.settimeout(30)
    return request.reset is None
