"""A mesh of three hops for tests: entry → A → B → C, every instance behind a sidecar of its own, and callers who check the way
of every request.

Services and protocols are those of `mesh_apps`. The entry colours by user: 1 in 10 gray, 1 in 10 blue. A and C have a gray
version and B does not; B has a blue one that A's sidecars know of only from the second configuration on.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from typing import Any, cast

import uvloop
from parity.config import address, bootstrap, cluster, http
from parity.dubbo import dubbo

TYPE = "type.googleapis.com/"
ROUTER = {
    "name": "router",
    "typed_config": {"@type": TYPE + "envoy.extensions.filters.http.router.v3.Router"},
}
ALL = [{"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "120s"}}]
MANY = {"thresholds": [{"max_connections": 5000, "max_pending_requests": 5000, "max_requests": 5000}]}
DEADLINE_S = 120.0
"""a slow machine is no failure"""
PAUSE_S = 0.05
"""of a caller who goes on and on: the machine is to have time for the sidecars that start meanwhile"""
LABEL = "x-mesh-tag"


def struct(name: str, kind: str, value: dict[str, Any], *, dubbo: bool = False) -> dict[str, Any]:
    """A filter of ours."""
    config = {
        "@type": TYPE + "xds.type.v3.TypedStruct",
        "type_url": TYPE + "mesh_proxy.filters." + kind,
        "value": value,
    }
    return {"name": name, "config" if dubbo else "typed_config": config}


def labels(header: str, *sources: dict[str, Any], dubbo: bool = False, **more: Any) -> dict[str, Any]:
    """A label filter."""
    one = {"name": LABEL, "header": header, "sources": list(sources), **more}
    return struct("label", "TrafficLabel", {"labels": [one]}, dubbo=dubbo)


def tags(header: str, *, dubbo: bool = False) -> dict[str, Any]:
    """A tag router over the label `version`."""
    return struct("tags", "TagRouter", {"label": header, "key": "version", "base": "base"}, dubbo=dubbo)


def a_cluster(name: str, ends: list[dict[str, Any]], protocol: str = "") -> dict[str, Any]:
    """`protocol`: http2."""
    made = cluster(name) | {
        "connect_timeout": "30s",
        "circuit_breakers": MANY,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": ends}]},
    }
    if protocol == "http2":
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        chosen = {"@type": TYPE + kind, "explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {kind: chosen}
    return made


def an_end(port: int, **labels: str) -> dict[str, Any]:
    """On loopback."""
    end: dict[str, Any] = {"endpoint": {"address": address(cast("Any", port))}}
    return end | ({"metadata": {"filter_metadata": {"envoy.lb": labels}}} if labels else {})


def next_cluster(versions: dict[str, int], protocol: str = "") -> dict[str, Any]:
    """version → port."""
    return a_cluster("next", [an_end(port, version=version) for version, port in versions.items()], protocol)


def local(port: int, protocol: str = "") -> dict[str, Any]:
    """The instance itself."""
    return a_cluster("local", [an_end(port)], protocol)


def _http(name: str, *filters: dict[str, Any], to: str = "next") -> dict[str, Any]:
    routes = [{**ALL[0], "route": {"cluster": to, "timeout": "120s"}}]
    made = http(name, routes)
    made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"] = [*filters, ROUTER]
    return made


def _dubbo(name: str, *filters: dict[str, Any], to: str = "next") -> dict[str, Any]:
    made = dubbo(name, f"[{{name: r, interface: '*', routes: [{{match: {{}}, route: {{cluster: {to}}}}}]}}]")
    typed = made["filter_chains"][0]["filters"][0]["typed_config"]
    typed["dubbo_filters"] = [*filters, {"name": "envoy.filters.dubbo.router"}]
    return made


def entry(a: dict[str, int]) -> dict[str, Any]:
    """Colours, and routes by a chain of dimensions."""
    sources = [{"expression": f"header user-id % 10 == {rest}", "value": value} for rest, value in ((1, "gray"), (2, "blue"))]
    version = {
        "name": "version",
        "sources": [{"header": LABEL}, {"constant": "base"}],
        "fallback": [{"to": "base"}],
        "mode": "strict",
    }
    chain = struct("chain", "RouteChain", {"dimensions": [version]})
    label = labels(LABEL, *sources)
    return bootstrap([_http("out", label, chain)], [next_cluster(a, "http2")])


INBOUND = ({"header": LABEL},)
OUTBOUND = ({"header": LABEL}, {"trace": True})


def sidecar_a(app: int, b: dict[str, int]) -> dict[str, Any]:
    """HTTP in, gRPC out."""
    listeners = [
        _http("in", labels(LABEL, *INBOUND, remember=True), to="local"),
        _http("out", labels(LABEL, *OUTBOUND), tags(LABEL)),
    ]
    return bootstrap(listeners, [local(app), next_cluster(b, "http2")])


def sidecar_b(app: int, c: dict[str, int]) -> dict[str, Any]:
    """gRPC in, Dubbo out."""
    label = labels("dubbo.tag", {"attachment": "dubbo.tag"}, {"trace": True}, dubbo=True)
    listeners = [
        _http("in", labels(LABEL, *INBOUND, remember=True), to="local"),
        _dubbo("out", label, tags("dubbo.tag", dubbo=True)),
    ]
    return bootstrap(listeners, [local(app, "http2"), next_cluster(c)])


def sidecar_c(app: int) -> dict[str, Any]:
    """Dubbo in."""
    label = labels("dubbo.tag", {"attachment": "dubbo.tag"}, remember=True, dubbo=True)
    return bootstrap([_dubbo("in", label, to="local")], [local(app)])


class Callers:
    """Keep-alive connections to the entry, each with one request after the other; every answer is compared with the rule."""

    def __init__(self, port: int, rule: dict[str, set[bytes]]) -> None:
        self.rule = rule
        """colour of a user → ways that are right for requests that are sent now"""
        self.done: Counter[bytes] = Counter()
        self.wrong: Counter[str] = Counter()
        self.stopping = False
        self._port = port
        self._users = itertools.count()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="callers")
        self._open: set[_Caller] = set()

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    @property
    def total(self) -> int:
        """Answers so far, right and wrong."""
        return sum(self.done.values()) + sum(self.wrong.values())

    def burst(self, connections: int, each: int = 1) -> None:
        """So many connections at once, each for so many requests; returns when all are answered."""
        before = self.total
        self._connect(connections, each)
        self.wait_for(before + connections * each)

    def begin(self, connections: int) -> None:
        """Go on and on until `end`."""
        self.stopping = False
        self._connect(connections, 1 << 30)

    def end(self) -> None:
        """Let what is in flight end."""
        self.stopping = True
        self._until(lambda: not self._open)

    def wait_for(self, total: int) -> None:
        """Until there were so many answers."""
        self._until(lambda: self.total >= total)

    def _until(self, ready: Any) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not ready():
            assert time.monotonic() < deadline, f"{self.done} {self.wrong}, {len(self._open)} open"
            time.sleep(0.005)

    def _connect(self, connections: int, each: int) -> None:
        async def connect() -> None:
            for _ in range(connections):
                await self._loop.create_connection(lambda: _Caller(self, each), "127.0.0.1", self._port)
            for one in tuple(self._open):
                one.begin()

        asyncio.run_coroutine_threadsafe(connect(), self._loop).result(DEADLINE_S)

    def colour(self, user: int) -> str:
        """The rule of the entry."""
        return {1: "gray", 2: "blue"}.get(user % 10, "none")


class _Caller(asyncio.Protocol):
    def __init__(self, callers: Callers, left: int) -> None:
        self.callers = callers
        self.left = left
        self.buffer = b""
        self.allowed: set[bytes] = set()
        self.busy = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.callers._open.add(self)

    def begin(self) -> None:
        if not self.busy:
            self.next()

    def next(self) -> None:
        callers = self.callers
        if callers.stopping or self.transport.is_closing():
            self.transport.close()
            return
        self.left -= 1
        self.busy = True
        user = next(callers._users)
        self.colour = callers.colour(user)
        self.allowed = callers.rule[self.colour]
        trace = (
            b"traceparent: 00-%032x-00000000000000aa-01" % (user + 1),
            b"b3: %016x-00000000000000aa-1" % (user + 1),
            b"x-request-id: r-%d" % user,
        )[user % 3]
        self.transport.write(b"GET /shop HTTP/1.1\r\nhost: shop\r\nuser-id: %d\r\n%b\r\n\r\n" % (user, trace))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        if len(body) < length:
            return
        self.buffer = b""
        if head.startswith(b"HTTP/1.1 200") and body in self.allowed:
            self.callers.done[body] += 1
        else:
            self.callers.wrong[f"{self.colour}: {head[:12]!r} {body[:80]!r}"] += 1
        self.busy = False
        if self.left and not self.callers.stopping:
            asyncio.get_running_loop().call_later(PAUSE_S, self.next)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self.callers.wrong[f"connection lost: {exc}"] += 1
        self.callers._open.discard(self)
