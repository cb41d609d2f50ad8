"""A described Dubbo call on its way to the point where an endpoint would be chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from struct import pack
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from mesh_codecs.dubbo import DubboCodec, DubboMessage, Refusal
from mesh_codecs.dubbo.frame import FLAG_REQUEST, FLAG_TWO_WAY, HESSIAN2, MAGIC
from mesh_codecs.hessian2.write import dumps
from mesh_proxy.explain.candidates import candidates
from mesh_proxy.explain.scratch import QuietFilterContext, copied, dismiss, scratch_context, watch
from mesh_proxy.network.filter_context import compile_filters
from mesh_proxy.stats.dubbo_group import DubboStats
from mesh_proxy.stream.dubbo_call import DubboCall
from mesh_proxy.stream.dubbo_consumer import DubboConsumer
from mesh_proxy.stream.dubbo_stream import DubboStream

if TYPE_CHECKING:
    from mesh_proxy.explain.question import Question
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.stream.info import ConnectionInfo
    from mesh_proxy.upstream.cluster import LbContext


class _Stream(DubboStream):
    __slots__ = ()

    def start_task(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Nobody is asked."""
        return cast("asyncio.Task[None]", dismiss(work))


class Consumer(DubboConsumer):
    """The connection of nobody, on which described calls arrive."""

    __slots__ = ()

    def __init__(self, manager: DubboManager, info: ConnectionInfo, owner: Listener) -> None:
        self.manager = manager
        self.stats = manager.stats
        self.info = info
        self.owner = owner
        self.closed = False
        self.pinned = None

    def answer(self, call: DubboCall, frame: bytes) -> None:
        """Nobody waits for it."""


class ExplainedCall(DubboCall):
    """A real call, but for its last step."""

    __slots__ = ("cluster_name", "lb_context", "refused")

    def __init__(self, consumer: DubboConsumer, message: DubboMessage, now: float) -> None:
        super().__init__(consumer, message, now)
        self.cluster_name = ""
        self.lb_context: LbContext | None = None
        self.refused = ""

    def start(self, message: DubboMessage, now: float) -> None:
        """Always with a stream, which keeps the notes."""
        self.stream = _Stream(self, message, now)
        self.stream.start(now)

    def _dispatch(self, message: DubboMessage, name: str, now: float) -> None:
        """Here an endpoint would be chosen."""
        self.cluster_name = name
        cluster = self.manager.clusters.get(name)
        if cluster is None:
            if not self._fall_back(message, name, now):
                self.refuse(Refusal.NO_CLUSTER, name, now)
            return
        self.cluster = cluster
        assert self.target is not None
        self.lb_context = self._lb_context(self.target)

    def refuse(self, reason: Refusal, why: str, now: float) -> None:
        """The consumer would get an error."""
        self.refused = reason.name.lower()
        super().refuse(reason, why, now)


def frame_of(question: Question) -> bytes:
    """The call as a consumer would write it, in Hessian 2, without arguments."""
    attachments = {"path": question.service, **dict(question.headers)}
    for name, value in (("group", question.group), ("version", question.version)):
        if value:
            attachments.setdefault(name, value)
    body = dumps("2.0.2", question.service, question.version or "0.0.0", question.method, question.parameter_types)
    body += dumps(attachments)
    return MAGIC + pack(">BBqi", FLAG_REQUEST | FLAG_TWO_WAY | HESSIAN2, 0, 1, len(body)) + body


def explain(question: Question, manager: DubboManager, info: ConnectionInfo, listener: Listener) -> dict[str, Any]:
    """What became of the call."""
    notes: list[dict[str, Any]] = []
    quiet = copied(manager)
    quiet.context = scratch_context(manager.context)
    quiet.stats = quiet.context.registry.get(DubboStats, manager.stats.prefix)
    quiet.access_loggers = ()
    quiet.filter_chains = compile_filters(
        manager.config.filters, quiet.context, manager.stats.prefix, watch(notes), QuietFilterContext
    )
    answer: dict[str, Any] = {"network_filter": "dubbo_proxy", "filters": notes}
    (message,) = DubboCodec(manager.memo).receive_data(frame_of(question))
    assert isinstance(message, DubboMessage)
    now = monotonic()
    call = ExplainedCall(Consumer(quiet, info, listener), message, now)
    call.start(message, now)
    stream = call.stream
    assert stream is not None
    if call.target is not None:
        answer["route"] = {"name": call.target.route_name, "action": "forward"}
    answer["labels"] = [list(one) for one in stream.labels or ()]
    answer["narrowings"] = {
        name: dict(value) if isinstance(value, dict) else value for name, value in (stream.dynamic_metadata or {}).items()
    }
    if call.cluster is not None and not call.done:
        answer["result"] = "forwarded"
        answer["cluster"] = candidates(call.cluster, call.lb_context)
        found = message.attachments
        answer["request"] = {
            "service": question.service,
            "method": question.method,
            "attachments": {
                name.decode("latin-1"): value.decode("latin-1") for name, value in (found.values if found else {}).items()
            },
        }
    else:
        answer["result"] = "answered"
        answer["answer"] = {
            "status": stream.response_code,
            "details": stream.details,
            "refused": call.refused,
            "cluster": call.cluster_name,
        }
    return answer
