"""A described HTTP, gRPC or Triple request on its way to the point where an endpoint would be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model.route import DirectResponseConfig, RedirectConfig
from mesh_proxy.explain.candidates import candidates
from mesh_proxy.explain.nobody import Caller
from mesh_proxy.explain.scratch import QuietFilterContext, copied, dismiss, scratch_context, watch
from mesh_proxy.network.filter_context import compile_filters
from mesh_proxy.stats.groups import HttpStats, ListenerHttpStats
from mesh_proxy.stream.http_stream import HttpStream
from mesh_proxy.upstream.cluster import LbContext

if TYPE_CHECKING:
    from mesh_proxy.config.model.route import MirrorPolicyConfig
    from mesh_proxy.explain.question import Question
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.info import ConnectionInfo


class ExplainedStream(HttpStream):
    """A real stream, but for its last step."""

    __slots__ = ("arrived", "lb_context", "mirrored")

    def __init__(self, caller: Any, manager: HttpManager, request: RequestHeaders, now: float) -> None:
        super().__init__(caller, manager, request, now)
        self.arrived = False
        self.lb_context: LbContext | None = None
        self.mirrored: list[str] = []

    def _attempt(self) -> None:
        """Here an endpoint would be chosen."""
        self.arrived = True
        self.lb_context = self._lb_context()

    def mirror_request(self, policies: tuple[MirrorPolicyConfig, ...]) -> None:
        """No copy is sent."""
        self.mirrored = [one.cluster for one in policies]

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Nobody is asked."""
        return cast("asyncio.Task[None]", dismiss(work))


def _quiet(manager: HttpManager, notes: list[dict[str, Any]]) -> HttpManager:
    """The same manager with the same route table, whose filters are looked at and whose counts are nobody's."""
    made = copied(manager)
    made.context = scratch_context(manager.context)
    made.stats = made.context.registry.get(HttpStats, manager.stats.prefix)
    made.listener_stats = made.context.registry.get(ListenerHttpStats, manager.listener_stats.prefix)
    made.access_loggers = ()
    made.request_queue = None
    made.max_duration_queue = None
    made.filter_chains = compile_filters(
        manager.config.filters, made.context, manager.stats.prefix, watch(notes), QuietFilterContext
    )
    return made


def _request(question: Question) -> RequestHeaders:
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in question.headers]
    method, version = question.method or "GET", b"HTTP/1.1"
    if question.protocol != "http":
        method, version = "POST", b"HTTP/2"
        names = {name for name, _ in pairs}
        if b"content-type" not in names:
            pairs.append((b"content-type", b"application/grpc"))
        if question.protocol == "triple":
            # Names of the Triple protocol for what an attachment says in Dubbo 2.
            for name, value in ((b"tri-service-version", question.version), (b"tri-service-group", question.group)):
                if value and name not in names:
                    pairs.append((name, value.encode("latin-1")))
    return RequestHeaders(
        stream_id=1,
        method=method.encode("latin-1"),
        scheme=b"http",
        authority=(question.authority or question.service or "localhost").encode("latin-1"),
        path=question.request_path.encode("latin-1"),
        headers=Headers(pairs),
        end_stream=True,
        http_version=version,
    )


def explain(question: Question, manager: HttpManager, info: ConnectionInfo, listener: Listener) -> dict[str, Any]:
    """What became of the request."""
    notes: list[dict[str, Any]] = []
    quiet = _quiet(manager, notes)
    caller = Caller(info, listener)
    now = monotonic()
    stream = ExplainedStream(caller, quiet, _request(question), now)
    stream.start(now)
    route = stream.route
    answer: dict[str, Any] = {"network_filter": "http_connection_manager", "filters": notes}
    if route is not None:
        answer["virtual_host"] = route.virtual_host_name
        answer["route"] = _describe_route(route)
    answer["labels"] = [list(one) for one in stream.labels or ()]
    answer["narrowings"] = {name: _plain(value) for name, value in (stream.dynamic_metadata or {}).items()}
    if stream.arrived and stream.cluster is not None:
        answer["result"] = "forwarded"
        answer["cluster"] = candidates(stream.cluster, stream.lb_context)
        request = stream.request
        answer["request"] = {
            "authority": request.authority.decode("latin-1"),
            "path": request.path.decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        }
        if stream.mirrored:
            answer["mirrored_to"] = stream.mirrored
    else:
        answer["result"] = "answered"
        answer["answer"] = {
            "status": caller.status,
            "details": stream.details,
            "body": caller.body[:1024].decode("latin-1"),
            "cluster": stream.cluster_name,
        }
    return answer


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _describe_route(route: Any) -> dict[str, Any]:
    config = route.config
    match = config.match
    conditions = [f"{match.kind.value} {match.path}".strip()]
    conditions += [f"{'not ' if one.invert else ''}header {one.name}" for one in match.headers]
    conditions += [f"query {one.name}" for one in match.query_parameters]
    if match.grpc:
        conditions.append("grpc")
    if match.runtime_fraction is not None:
        conditions.append("a share of the requests")
    action = config.action
    if isinstance(action, RedirectConfig):
        what = "redirect"
    elif isinstance(action, DirectResponseConfig):
        what = "direct response"
    else:
        what = "forward"
    return {"name": route.name, "match": conditions, "action": what}
