"""What the filters make of a Dubbo call, remembered for the next call of the method with the same attachments.

The consumers of a mesh send the same few attachments with all calls of a method. Where every filter can say how to repeat what it
did (`mesh_filters.filter.Repetition`), such a call needs no filter, no log and no `DubboStream`: the attachments that the filters
left are put in the place of those that came, and the labels are noted.

Calls are told apart by the objects that the codec keeps for the bytes of a head and for those of attachments. Whatever else the
filters' answer came of is tested for each call: nothing of the caller is in the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from mesh_codecs.dubbo.frame import HEADER_SIZE
from mesh_codecs.errors import RemoteProtocolError
from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.filter import FilterStatus, Repetition
from mesh_proxy.stream.dubbo_stream import DubboStream
from mesh_proxy.stream.dubbo_view import argument_text
from mesh_proxy.stream.request_plan import PLANS, REST

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_codecs.dubbo.body import KnownAttachments
    from mesh_codecs.dubbo.invocation import InvocationHead
    from mesh_filters.filter import Stream
    from mesh_proxy.network.dubbo_manager import DubboManager
    from mesh_proxy.stream.dubbo_call import DubboCall
    from mesh_proxy.stream.filter_chain import FilterChain
    from mesh_proxy.stream.info import ConnectionInfo

_CONTINUE: Final = FilterStatus.CONTINUE


class DubboPlan:
    """The outcome for one head and one set of attachments."""

    __slots__ = ("acts", "holds", "labels", "request", "rest", "tail")

    def __init__(self) -> None:
        self.rest = 0
        """calls for which filters need not be asked whether they can repeat what they did"""
        self.request: RequestHeaders | None = None
        """as the filters left it; None as long as they have not said how to repeat that. Then all below is of no use"""
        self.tail: bytes | None = None
        """what stands in the place of the attachments and what follows them; None: the same as before"""
        self.labels: tuple[tuple[str, str], ...] | None = None
        self.holds: tuple[Callable[[Any], bool], ...] = ()
        self.acts: tuple[Callable[[Any], None], ...] = ()


class PlannedCall:
    """What repetitions may see of a call."""

    __slots__ = ("connection", "message", "request")

    dynamic_metadata: None = None
    filter_state: None = None

    def __init__(self, connection: ConnectionInfo, request: RequestHeaders, message: DubboMessage) -> None:
        self.connection = connection
        self.request = request
        self.message = message

    def argument(self, index: int, fields: Sequence[str]) -> bytes | None:
        """See `mesh_filters.filter.Stream`."""
        return argument_text(self.message, index, fields)


class DubboPlans:
    """The plans of one manager, whose filters can all say how to repeat what they did."""

    __slots__ = ("_chain", "_manager", "_plans")

    def __init__(self, manager: DubboManager, chain: FilterChain) -> None:
        self._manager = manager
        self._chain = chain
        self._plans: dict[tuple[InvocationHead, KnownAttachments], DubboPlan] = {}

    def start(self, call: DubboCall, message: DubboMessage, now: float) -> bool:
        """Let the call go as planned, or learn from it. False: it has to go the usual way."""
        try:
            head = message.head
            if head is None or head.plan is None or head.generic:
                return False  # the first of its kind; or the method of the request view is in an argument
            found = message.attachments
        except RemoteProtocolError:
            return False
        if found is None or found.known is None:
            return False
        plan = self._plans.get((head, found.known))
        if plan is None:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[head, found.known] = plan = DubboPlan()
        request = plan.request
        if request is None:
            if plan.rest:
                plan.rest -= 1
                return False
            self._learn(plan, call, message, now)
            return True
        seen = PlannedCall(call.connection.info, request, message)
        for holds in plan.holds:
            if not holds(seen):
                plan.request = None
                plan.rest = REST
                return False
        for act in plan.acts:
            act(seen)
        tail = plan.tail
        if tail is not None:
            message.replace_rest(found.at, tail)
        call.labels = plan.labels
        call.route(message, now)
        return True

    def _learn(self, plan: DubboPlan, call: DubboCall, message: DubboMessage, now: float) -> None:
        """The usual way, and note how the filters can repeat it."""
        plan.rest = REST
        stream = call.stream = DubboStream(call, message, now)
        request = stream.request
        found = message.attachments
        assert request is not None, "its head and its attachments have been read"
        assert found is not None
        before = (request.method, request.authority, request.path)
        frame = message.frame
        learnt: list[Repetition] = []
        for position, one, _ in self._chain.light:
            status, repetition = one.learn(cast("Stream", stream), request)
            if status is not _CONTINUE or stream.response is not None:
                stream.stopped(self._chain, position, status)
                return
            if repetition is not None:
                learnt.append(repetition)
        if stream.apply_changes() and (
            len(learnt) == len(self._chain.light)
            and before == (request.method, request.authority, request.path)
            and not stream.forced_cluster
            and "envoy.lb" not in (stream.dynamic_metadata or ())
            and stream.filter_state is None
            and not stream.flags
            and not stream.details
            and message.frame[HEADER_SIZE : found.at] == frame[HEADER_SIZE : found.at]
        ):
            plan.tail = None if message.frame is frame else message.frame[found.at :]
            plan.labels = stream.labels
            plan.holds = tuple([test for one in learnt for test in one.holds])
            plan.acts = tuple([one.act for one in learnt])
            plan.request = RequestHeaders(
                0, request.method, request.scheme, request.authority, request.path, Headers(list(request.headers)), True
            )
            plan.request.http_version = request.http_version
        call.route(message, now)
