"""HTTP/1.1: small requests, bodies, a connection per request, and small requests with something switched on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness import generators
from harness.comparison import Bench, Turn, Workload

from workloads import configuration as c


class Get(Workload):
    """Keep-alive `GET`s of twelve bytes. A point is the number of connections."""

    name = "http1"
    points = ("1", "8", "32", "100")
    rivals = ("nginx",)
    paced = "32"
    filters: tuple[c.Json, ...] = ()
    manager: Mapping[str, Any] = MappingProxyType({})
    path = "/"
    headers: Mapping[str, str] = MappingProxyType({})
    body_bytes = 0

    def start(self, bench: Bench) -> None:
        self.upstream = bench.nginx()

    def configuration(self, program: str, port: int, admin: int) -> str:
        if program == "nginx":
            return c.nginx(port, self.upstream)
        manager = c.http_manager([c.route_all()], self.filters, **self.manager)
        return c.bootstrap(port, admin, manager, [c.cluster("upstream", c.endpoint(self.upstream))])

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        url = f"http://127.0.0.1:{port}{self.path}"
        if rate is not None:
            return generators.h2load(url, f"{point}x1", seconds, http1=True, rate=rate)
        return generators.wrk(url, int(point), seconds, headers=self.headers, body_bytes=self.body_bytes)


class Post(Get):
    """`POST`s with a body of 1 KiB or 64 KiB."""

    points = ("8", "32")
    paced = ""

    def __init__(self, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self.name = f"http1-post-{body_bytes >> 10}k"


class NewConnections(Get):
    """A connection per request."""

    name = "http1-connect"
    points = ("8", "32")
    paced = ""
    headers = MappingProxyType({"Connection": "close"})


class Large(Get):
    """Responses of 1 MiB; a unit is a GB of body."""

    name = "http1-large"
    unit = "GB"
    points = ("8",)
    paced = ""
    path = "/large"

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        turn = super().load(port, point, seconds, rate)
        return Turn(turn.units * (1 << 20) / 1e9, turn.seconds, turn.latencies_us)


class AccessLog(Get):
    """With a log line per request, to /dev/null."""

    name = "http1-access-log"
    points = ("32",)
    paced = ""
    rivals = ()
    manager = MappingProxyType({"access_log": [c.ACCESS_LOG]})


class RateLimit(Get):
    """With a local rate limit that lets everything pass."""

    name = "http1-rate-limit"
    points = ("32",)
    paced = ""
    rivals = ()
    filters = (c.RATE_LIMIT,)


class TagRouting(Get):
    """Routed to a subset of the cluster by a header: route match, endpoint metadata."""

    name = "http1-tag"
    points = ("32",)
    paced = ""
    rivals = ()
    headers = MappingProxyType({"x-tag": "gray"})

    def configuration(self, program: str, port: int, admin: int) -> str:
        def tagged(tag: str) -> c.Json:
            return {"cluster": "upstream", "metadata_match": {"filter_metadata": {"envoy.lb": {"tag": tag}}}}

        gray = {
            "match": {"prefix": "/", "headers": [{"name": "x-tag", "string_match": {"exact": "gray"}}]},
            "route": tagged("gray"),
        }
        base = {"match": {"prefix": "/"}, "route": tagged("base")}
        cluster = c.cluster("upstream", c.endpoint(self.upstream, tag="gray"), c.endpoint(self.upstream, tag="base"))
        cluster["lb_subset_config"] = {"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["tag"]}]}
        return c.bootstrap(port, admin, c.http_manager([gray, base]), [cluster])


class Routes(Get):
    """The last of many prefix routes of one virtual host."""

    points = ("32",)
    paced = ""
    rivals = ()

    def __init__(self, count: int) -> None:
        self.count = count
        self.name = f"http1-routes-{count}"
        self.path = f"/service-{count - 1}/"

    def configuration(self, program: str, port: int, admin: int) -> str:
        routes = [{"match": {"prefix": f"/service-{i}/"}, "route": {"cluster": "upstream"}} for i in range(self.count)]
        return c.bootstrap(port, admin, c.http_manager(routes), [c.cluster("upstream", c.endpoint(self.upstream))])
