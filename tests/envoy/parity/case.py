"""A case (what is sent, how the upstream answers, what Envoy must do with it), a suite of them, and the pair of proxies."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .compare import Flat, accepted, differences, normalise, report
from .patience import Meeting, taken
from .proxy import Side
from .upstream import Received, Reply
from .wire import Fields, Response, Stream, WireError, read_response

ANSWER_SECONDS = 20.0
"""Longest wait for one answer: nothing that is right takes so long."""


def under_test() -> str:
    """The proxy that stands against Envoy: `mesh-proxy`, or `envoy` to check the cases themselves."""
    return os.environ.get("MESH_PROXY_UNDER_TEST", "mesh-proxy")


def req(
    method: str = "GET", target: str = "/", *headers: str, host: str | None = "a.test", body: bytes = b"", length: bool = True
) -> bytes:
    """The exact bytes of a request; a content-length is added for a body unless `length` is false."""
    lines = [f"{method} {target} HTTP/1.1"]
    if host is not None:
        lines.append(f"host: {host}")
    lines += headers
    if body and length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Client:
    """One downstream connection, and what it has received."""

    def __init__(self, side: Side, listener: str) -> None:
        path = side.dir / f"{listener}.sock"
        if f"port.{listener}" not in side.ports:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
        else:
            host = "::1" if listener.endswith("6") else "127.0.0.1"
            # Bound, so that the kernel gives its number to no connection of the proxy meanwhile: a port says who it is.
            at = (host, side.ports[f"port.{listener}"])
            sock = socket.create_connection(at, timeout=ANSWER_SECONDS, source_address=(host, 0))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.side = side
        self.sock = sock
        self.port = 0 if sock.family == socket.AF_UNIX else int(sock.getsockname()[1])
        self.stream = Stream(sock, ANSWER_SECONDS)

    def send(self, *parts: bytes) -> None:
        for part in parts:
            try:
                self.sock.sendall(part)
            except OSError:
                return  # the proxy closed; the answer says so

    def response(self, method: str = "GET") -> Response:
        return read_response(self.stream, method)

    def half_close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the proxy was faster

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class Observation:
    """All that was seen of one case on one side."""

    responses: list[Response] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    """How each downstream connection stood at the end: `open`, `closed`, `reset`, `data`."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a case's own function wants compared."""
    client_ports: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    tcp: list[tuple[str, bytes]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    """Everything received on each downstream connection."""
    seconds: float = 0.0
    meeting: Meeting | None = field(default=None, repr=False)
    """Where the other side tells how its connections stand."""

    def stand(self, side: Side, look: Callable[[float], str], quiet: float) -> str:
        """How a connection stands by what `look(seconds)` says, waiting longer if the other side has seen it end."""
        return look(quiet) if self.meeting is None else self.meeting.stand(side.label, look, quiet)

    def flat(self) -> Flat:
        flat: Flat = {}
        for i, response in enumerate(self.responses):
            name = _numbered("response", i)
            flat |= {
                f"{name}.status": str(response.status),
                f"{name}.reason": response.reason,
                f"{name}.body": _text(response.body),
            }
            if response.error:
                flat[f"{name}.error"] = response.error
            flat |= _fields(f"{name}.headers", response.headers) | _fields(f"{name}.trailers", response.trailers)
            for n, (status, fields) in enumerate(response.informational):
                flat[f"{name}.1xx.{n}"] = str(status)
                flat |= _fields(f"{name}.1xx.{n}.headers", fields)
        for i, end in enumerate(self.ends):
            flat[_numbered("end", i)] = end
        for i, one in enumerate(self.received):
            name = _numbered("upstream", i)
            flat |= {f"{name}.endpoint": one.endpoint, f"{name}.method": one.method, f"{name}.target": one.target}
            flat |= {f"{name}.version": one.version, f"{name}.body": _text(one.body), f"{name}.outcome": one.outcome}
            flat |= _fields(f"{name}.headers", one.headers) | _fields(f"{name}.trailers", one.trailers)
        for i, (name, data) in enumerate(sorted(self.tcp)):
            flat[_numbered("tcp", i)] = f"{name} {_text(data)}"
        flat |= {f"note.{key}": value for key, value in self.notes.items()}
        for i, line in enumerate(self.log):
            if line.startswith("{"):
                flat |= _json(_numbered("log", i), json.loads(line))
                continue
            for part in line.split("\t"):
                key, _, value = part.partition("=")
                flat[f"{_numbered('log', i)}.{key}"] = value
        return flat


def _numbered(name: str, index: int) -> str:
    return f"{name}[{index}]" if index else name


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace") if len(data) <= 2000 else f"{len(data)} bytes {data[:40]!r}…{data[-40:]!r}"


def _fields(path: str, fields: Fields) -> Flat:
    """One entry per name; the order of values of one name counts, the order of names does not."""
    flat: Flat = {}
    for name, value in fields:
        key = f"{path}.{name}"
        flat[key] = f"{flat[key]} ⏎ {value}" if key in flat else value
    return flat


def _json(path: str, value: Any) -> Flat:
    """One entry per leaf; strings keep their quotes, so that types count."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _json(f"{path}.{key}", inner).items()}
    return {path: json.dumps(value, ensure_ascii=False)}


Script = Callable[["Pair", Side, Observation], None]


@dataclass(frozen=True)
class Case:
    """One row of a table. The positional fields are name, request bytes and the status that Envoy answers."""

    name: str
    send: bytes | tuple[bytes, ...] = b""
    """Written in one go, or in these pieces (each read by the proxy on its own)."""
    status: int | None = None
    """Envoy's status; None: it answers nothing, or `run` does the talking."""
    to: str | None = None
    """The endpoint that Envoy sends it to; empty: none."""
    want: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Further values of Envoy's observation without which the case would not show what it claims."""
    replies: tuple[Reply, ...] = field(default=(), kw_only=True)
    listener: str = field(default="main", kw_only=True)
    methods: tuple[str, ...] = field(default=(), kw_only=True)
    """The methods of the requests in `send`, if it is not one request."""
    log: int | None = field(default=None, kw_only=True)
    """Access-log lines it makes (default: one per request)."""
    run: Script | None = field(default=None, kw_only=True)
    """Does the talking instead of `send`."""
    end: float = field(default=0.03, kw_only=True)
    """Seconds to watch the connection after the last answer, if that did not say `connection: close`."""
    seconds: tuple[float, float] | None = field(default=None, kw_only=True)
    """Both sides must take between these many seconds."""
    accept: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Path pattern of a difference that is right -> why."""
    ours: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What our side must show where Envoy's answer is not accepted as the model (then `accept` says why)."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Suite:
    config: dict[str, Any]
    cases: tuple[Case, ...] = ()
    optional: str = ""
    """Why the proxy under test may refuse this configuration (the suite is skipped then)."""

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


class Pair:
    """Envoy and the proxy under test, both running the suite's configuration."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.keep = False
        self.sides: tuple[Side, ...] = ()
        self._pool = ThreadPoolExecutor(2)
        self._meetings: dict[str, Meeting] = {}
        self._meeting = threading.Lock()

    def start(self) -> None:
        made: list[Side] = []
        try:
            for kind, label in (("envoy", "envoy"), (under_test(), "ours")):
                made.append(Side(kind, label, self.suite.config))
            self.sides = tuple(made)
            self.both(lambda side: side.start())
        except BaseException:
            self.sides = tuple(made)
            self.stop()
            raise

    def stop(self) -> None:
        for side in self.sides:
            side.stop(keep=self.keep)
        self._pool.shutdown()

    def both(self, work: Callable[[Side], Any]) -> list[Any]:
        """Do the same on both sides at the same time."""
        futures = [self._pool.submit(work, side) for side in self.sides]
        for future in futures:
            future.exception()  # wait for both before raising
        return [future.result() for future in futures]

    @staticmethod
    def pause(seconds: float = 0.02) -> None:
        """Let something happen that cannot be seen from outside, such as a frame being read."""
        time.sleep(seconds)

    # One case

    def observe(self, case: Case, side: Side) -> Observation:
        seen = Observation(meeting=self._meet(case, side))
        try:
            return self._observe(case, side, seen)
        finally:
            if seen.meeting is not None:
                seen.meeting.leave(side.label)

    def _meet(self, case: Case, side: Side) -> Meeting | None:
        """The same one for both sides, a new one each time that the case is run."""
        if len(self.sides) != 2 or any(accepted(case.name, path, case.accept) for path in ("end", "note.connection")):
            return None  # nobody else, or the two need not end alike
        with self._meeting:
            found = self._meetings.get(case.name)
            if found is None or found.left(side.label):
                found = self._meetings[case.name] = Meeting()
            return found

    def _observe(self, case: Case, side: Side, seen: Observation) -> Observation:
        side.upstream.begin(case.replies)
        started = time.monotonic()
        if case.run is not None:
            try:
                case.run(self, side, seen)
            except (WireError, OSError) as error:
                seen.notes["broke off"] = str(error)  # a difference, unless the other side breaks off likewise
        else:
            self.talk(side, seen, case.send, case.methods, case.listener, case.end)
        seen.seconds = time.monotonic() - started
        seen.received = side.upstream.finish()
        seen.tcp = list(side.upstream.tcp)
        lines = case.log if case.log is not None else max(1, len(case.methods))
        seen.log = side.new_lines(f"{case.listener}.log", lines)
        return seen

    def talk(
        self,
        side: Side,
        seen: Observation,
        send: bytes | tuple[bytes, ...],
        methods: tuple[str, ...] = (),
        listener: str = "main",
        end: float = 0.03,
    ) -> None:
        """Open a connection, send, read the answers, see how it ends."""
        parts = (send,) if isinstance(send, bytes) else send
        with Client(side, listener) as client:
            for i, part in enumerate(parts):
                if i:
                    taken(client.sock)  # the proxy must read the pieces one by one
                client.send(part)
            for method in methods or (parts[0].split(b" ", 1)[0].decode("latin-1"),):
                seen.responses.append(client.response(method))
            self.leave(client, seen, end)

    def leave(self, client: Client, seen: Observation, end: float = 0.03) -> None:
        """Note how the connection stands, and what came over it."""
        last = seen.responses[-1] if seen.responses else None
        closing = last is not None and (bool(last.error) or ("connection", "close") in last.headers)
        if closing and not client.stream.ended:
            # Envoy lingers for a second (`delayed_close_timeout`) unless the client ends its side too.
            client.half_close()
        seen.ends.append(seen.stand(client.side, client.stream.wait_end, 2.0 if closing else end))
        seen.client_ports.append(client.port)
        seen.raw.append(bytes(client.stream.raw))

    def flat(self, side: Side, seen: Observation) -> Flat:
        ports = dict(side.ports)
        ports |= {_numbered("client", i): port for i, port in enumerate(seen.client_ports) if port}
        for i, one in enumerate(seen.received):
            if one.peer:
                ports[_numbered("local", i)] = int(one.peer.rpartition(":")[2])
        return normalise({path: value.replace(str(side.dir), "<dir>") for path, value in seen.flat().items()}, ports)

    def run(self, case: Case) -> tuple[list[Observation], list[Flat], list[str], list[tuple[str, str, str]]]:
        """Observations, flat observations, what is wrong with the case itself, differences."""
        seen = self.both(lambda side: self.observe(case, side))
        flats = [self.flat(side, one) for side, one in zip(self.sides, seen, strict=True)]
        wrong = _unmet(case, seen[0], flats[0])
        found = differences(case.name, flats[0], flats[1], case.accept)
        if self.sides[1].kind != "envoy":
            found += [(p, f"(demanded) {v}", flats[1].get(p, "<absent>")) for p, v in case.ours.items() if flats[1].get(p) != v]
        if case.seconds and not case.seconds[0] <= seen[1].seconds <= case.seconds[1]:
            found.append(("seconds", f"{seen[0].seconds:.2f}", f"{seen[1].seconds:.2f}, not in {case.seconds}"))
        return seen, flats, wrong, found

    def check(self, case: Case) -> None:
        """Run the case; raise `AssertionError` with all differences."""
        _, _, wrong, found = self.run(case)
        if wrong or found:
            self.keep = True
        where = f"\n(logs and configuration in {' and '.join(str(side.dir) for side in self.sides)})"
        assert not wrong, f"{case.name} does not show what it claims:\n  " + "\n  ".join(wrong) + where
        assert not found, report(case.name, found) + where


def _unmet(case: Case, seen: Observation, envoy: Flat) -> list[str]:
    """Where Envoy does not do what the case was written for."""
    want = dict(case.want)
    if case.status is not None:
        want["response.status"] = str(case.status)
    if case.to:
        want["upstream.endpoint"] = case.to
    wrong = [
        f"{path}: wanted {value!r}, Envoy has {envoy.get(path)!r}" for path, value in want.items() if envoy.get(path) != value
    ]
    if case.to == "" and seen.received:
        wrong.append(f"Envoy sent it to {seen.received[0].endpoint}")
    if case.seconds and not case.seconds[0] <= seen.seconds <= case.seconds[1]:
        wrong.append(f"Envoy took {seen.seconds:.2f} s, not within {case.seconds}")
    lines = case.log if case.log is not None else max(1, len(case.methods))
    if len(seen.log) != lines:
        wrong.append(f"{len(seen.log)} access-log lines, wanted {lines}")
    return wrong
