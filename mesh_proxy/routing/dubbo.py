"""The route table of a Dubbo manager.

The first route in configured order that matches wins. What the head of a call decides (interface, version, method) is worked
out once per distinct head and kept on the head itself, which all calls of the method share; most calls then cost one comparison.
Only routes that ask for it look further into the message: at the attachments if a group or a header is wanted, at arguments if a
parameter is, at the first argument of a generic call if methods are told apart.

Attachments that cannot be had count as absent, so that a call in any serialization passes: those behind more values than
`max_search_values` (a hostile graph costs much time to step over), those that the serialization hides, and malformed ones, which
are the provider's to refuse. Each such call is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from mesh_codecs.dubbo.invocation import InvocationHead
from mesh_codecs.errors import RemoteProtocolError
from mesh_proxy.config.model.common import StringMatcherConfig, StringMatchKind
from mesh_proxy.config.model.dubbo import DubboProxyConfig, DubboRouteConfig
from mesh_proxy.routing.dubbo_decision import Decision
from mesh_proxy.routing.dubbo_route import CompiledRoute, DubboTarget
from mesh_proxy.routing.matchers import compile_string_matcher
from mesh_proxy.routing.name_index import NameIndex

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage

__all__ = ["DubboRouteTable", "DubboTarget"]

MAX_KEPT: Final = 4096
"""services, and methods of one service, whose decisions are kept; beyond it all are forgotten and worked out again"""
MAX_TAILS: Final = 512
"""attachments, and decisions that have the same ones, for which targets are kept; beyond it all are forgotten"""
_ANY_TEXT: Final = StringMatcherConfig(kind=StringMatchKind.REGEX, value=".*")
"""how a route says "any method" in Envoy, which wants a matcher always"""
_NOTHING: Final[Mapping[bytes, bytes]] = {}


class UnreadableCounter(Protocol):
    """Who counts the calls whose attachments could not be had (`DubboStats`)."""

    request_attachments_unreadable: int


class _NoCounter:
    __slots__ = ("request_attachments_unreadable",)

    def __init__(self) -> None:
        self.request_attachments_unreadable = 0


class Plan:
    """What is known of a call by its head. Hung onto the head; void for any table but the one that made it."""

    __slots__ = ("decision", "service", "table", "target")

    def __init__(self, table: DubboRouteTable, service: Service, decision: Decision | None) -> None:
        self.table = table
        self.service = service
        self.decision = decision
        """None: the method is not known before the first argument was read (generic calls)"""
        self.target = decision.target if decision is not None else None


class Service:
    """The routes that an interface and a version lead to."""

    __slots__ = ("_any_method", "_by_match", "_by_method", "_methods", "_routes")

    def __init__(self, routes: Iterable[tuple[CompiledRoute, StringMatcherConfig | None]]) -> None:
        self._routes: dict[int, CompiledRoute] = {}
        self._any_method: list[int] = []
        self._methods = NameIndex()
        self._by_method: dict[bytes, Decision] = {}
        self._by_match: dict[tuple[int, ...], Decision] = {}
        for route, method in routes:
            self._routes[route.order] = route
            if method is None or method == _ANY_TEXT:
                self._any_method.append(route.order)
            else:
                _add_pattern(self._methods, method, route.order)

    @property
    def kept(self) -> Mapping[bytes, Decision]:
        """Decisions by method, as far as they are kept."""
        return self._by_method

    @property
    def tells_methods_apart(self) -> bool:
        """Whether any route asks for the method."""
        return bool(self._methods)

    def decision(self, method: bytes) -> Decision:
        """What is left to decide for calls of a method."""
        decision = self._by_method.get(method)
        if decision is None:
            matched = self._methods.find(method)
            decision = self._by_match.get(matched)
            if decision is None:
                orders = sorted((*self._any_method, *matched))
                decision = Decision(self._routes[order] for order in orders)
                if len(self._by_match) >= MAX_KEPT:
                    self._by_match.clear()
                self._by_match[matched] = decision
            if len(self._by_method) >= MAX_KEPT:
                self._by_method.clear()
            self._by_method[method] = decision
        return decision


class DubboRouteTable:
    """See above. A new configuration is a new table, for which the plans of the old one are void."""

    __slots__ = ("_by_match", "_by_tail", "_interfaces", "_opaque", "_opaque_route", "_routes", "_versions", "counter")

    def __init__(
        self,
        configs: Iterable[DubboRouteConfig],
        *,
        opaque: DubboTarget | None = None,
        counter: UnreadableCounter | None = None,
    ) -> None:
        self.counter: UnreadableCounter = counter if counter is not None else _NoCounter()
        self._interfaces = NameIndex()
        self._versions: list[bytes] = []
        """per route configuration; empty = any"""
        self._routes: list[list[tuple[CompiledRoute, StringMatcherConfig | None]]] = []
        """per route configuration"""
        self._by_match: dict[tuple[int, ...], Service] = {}
        self._by_tail: dict[bytes, dict[Decision, DubboTarget]] = {}
        """by all bytes from the attachments on, as far as many calls have the same ones"""
        self._opaque = opaque
        self._opaque_route: CompiledRoute | None = None
        order = 0
        for number, config in enumerate(configs):
            _add_interface(self._interfaces, config.interface.encode(), number)
            self._versions.append(config.version.encode())
            routes: list[tuple[CompiledRoute, StringMatcherConfig | None]] = []
            for route in config.routes:
                compiled = CompiledRoute(route, config.group, order)
                routes.append((compiled, route.method))
                order += 1
                takes_all = config.interface == "*" and not config.version and route.method in (None, _ANY_TEXT)
                if takes_all and self._opaque_route is None and not compiled.conditions and not compiled.parameters:
                    self._opaque_route = compiled
            self._routes.append(routes)

    @classmethod
    def of(cls, config: DubboProxyConfig, counter: UnreadableCounter | None = None) -> DubboRouteTable:
        """The table of a manager."""
        opaque = None
        if config.opaque_cluster:
            opaque = DubboTarget(config.opaque_cluster, None, config.default_options, "opaque_cluster")
        return cls(config.routes, opaque=opaque, counter=counter)

    @property
    def services(self) -> Mapping[tuple[int, ...], Service]:
        """By the route configurations that match, as far as they are kept."""
        return self._by_match

    @property
    def compiled(self) -> list[CompiledRoute]:
        """All routes in configured order."""
        return [route for routes in self._routes for route, _ in routes]

    @property
    def known_tails(self) -> Mapping[bytes, Mapping[Decision, DubboTarget]]:
        """Where calls with these attachments go, by what is left to decide."""
        return self._by_tail

    def find(self, message: DubboMessage, pick: int | None = None) -> DubboTarget | None:
        """Where a request goes; None when no route takes it.

        `pick` is a random number of at least 0 for weighted clusters; None = draw one if it is needed.

        Raises:
            RemoteProtocolError: the head of the call is malformed.
        """
        head = message.head
        if head is None:
            return self._find_opaque(message, pick)
        plan = head.plan
        if not isinstance(plan, Plan) or plan.table is not self:
            plan = self._plan(head)
        if plan.target is not None:
            return plan.target
        decision = plan.decision
        if decision is None:
            decision = plan.service.decision(_real_method(message, head))
            if decision.target is not None:
                return decision.target
        if not decision.by_tail:
            return decision.decide(self, message, pick)
        tail = message.tail(head)
        if tail is None:
            return decision.decide(self, message, pick)
        known = self._by_tail.get(tail)
        if known is not None:
            target = known.get(decision)
            if target is not None:
                return target
        target = decision.decide(self, message, pick)
        if target is not None:
            self._learn(tail, decision, target, message)
        return target

    def _learn(self, tail: bytes, decision: Decision, target: DubboTarget, message: DubboMessage) -> None:
        """Remember where calls with these attachments go, if others had them before."""
        try:
            found = message.attachments
        except RemoteProtocolError:
            return
        if found is None or found.known is None:
            return
        known = self._by_tail.get(tail)
        if known is None:
            if len(self._by_tail) >= MAX_TAILS:
                self._by_tail.clear()
            self._by_tail[tail] = known = {}
        elif len(known) >= MAX_TAILS:
            known.clear()
        known[decision] = target

    def _find_opaque(self, message: DubboMessage, pick: int | None) -> DubboTarget | None:
        """The way of a call in a serialization that nobody can read."""
        route = self._opaque_route
        if self._opaque is not None or route is None:
            return self._opaque
        return route.target or route.choose(self, message, pick)

    def _plan(self, head: InvocationHead) -> Plan:
        version = head.service_version or b""
        versions = self._versions
        matched = tuple(
            number for number in self._interfaces.find(head.service) if not versions[number] or versions[number] == version
        )
        service = self._by_match.get(matched)
        if service is None:
            service = Service(route for number in matched for route in self._routes[number])
            if len(self._by_match) >= MAX_KEPT:
                self._by_match.clear()
            self._by_match[matched] = service
        later = head.generic and service.tells_methods_apart
        plan = Plan(self, service, None if later else service.decision(head.method))
        head.plan = plan
        return plan

    def values(self, message: DubboMessage) -> Mapping[bytes, bytes]:
        """The attachments of a request; none if they cannot be had, which is counted."""
        try:
            found = message.attachments
        except RemoteProtocolError:
            found = None
        if found is not None:
            return found.values
        self.counter.request_attachments_unreadable += 1
        return _NOTHING


def _real_method(message: DubboMessage, head: InvocationHead) -> bytes:
    try:
        return message.real_method
    except RemoteProtocolError:
        return head.method


def _add_interface(index: NameIndex, pattern: bytes, number: int) -> None:
    """Envoy's forms, as version 1.40 reads them: a star at the end or at the start stands for one character at least."""
    if pattern == b"*":
        index.add_test(bool, number)
    elif pattern.startswith(b"*"):
        suffix = pattern[1:]
        index.add_suffix(suffix, number, longer=True)
    elif pattern.endswith(b"*"):
        index.add_prefix(pattern[:-1], number, longer=True)
    else:
        index.add_exact(pattern, number)


def _add_pattern(index: NameIndex, config: StringMatcherConfig, number: int) -> None:
    value = config.value.encode()
    if config.ignore_case or config.kind in (StringMatchKind.REGEX, StringMatchKind.CONTAINS):
        index.add_test(compile_string_matcher(config), number)
    elif config.kind is StringMatchKind.PREFIX:
        index.add_prefix(value, number)
    elif config.kind is StringMatchKind.SUFFIX:
        index.add_suffix(value, number)
    else:
        index.add_exact(value, number)
