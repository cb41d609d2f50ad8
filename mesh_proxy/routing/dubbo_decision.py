"""What is left to decide once the head of a call is known: a tree over attachments, with routes at its leaves.

Where routes want an attachment to have some exact value (a tag, a group), one dictionary look-up stands for all of them: the
routes that want this value and those that do not ask, in configured order. A route that comes out of such a look-up need not be
tested for it again, so that routing by a tag among thousands costs the same as among two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mesh_proxy.routing.dubbo_route import CompiledRoute, Condition, DubboTarget, folded_names

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_proxy.routing.dubbo import DubboRouteTable

MAX_UNBOUND: Final = 64
"""routes that do not ask for an indexed attachment: they stand under every value, so that many of them would cost memory"""

GROW_FROM: Final = 12
"""routes of one value that get an index by another attachment; fewer are tried one by one, which is as quick"""

Open = tuple[CompiledRoute, tuple[Condition, ...]]
"""a route and the conditions that are still to be tested"""
Leaf = tuple[Open, ...]
Lookup = Callable[[bytes], bytes | None]


class Branch:
    """Routes told apart by the value of one attachment."""

    __slots__ = ("by_value", "name", "unbound")

    def __init__(self, name: bytes, by_value: dict[bytes, Branch | Leaf], unbound: Branch | Leaf) -> None:
        self.name = name
        self.by_value = by_value
        self.unbound = unbound


def _until_certain(routes: Iterable[Open]) -> Leaf:
    """The routes up to the first one without conditions: those behind it can never be reached."""
    kept: list[Open] = []
    for one in routes:
        kept.append(one)
        if not one[1] and not one[0].parameters:
            break
    return tuple(kept)


def _grow(routes: Leaf) -> Branch | Leaf:
    counts = Counter(name for _, conditions in routes for name in {c.name for c in conditions if c.exact is not None})
    if not counts:
        return routes
    name, bound = counts.most_common(1)[0]
    if len(routes) - bound > MAX_UNBOUND:
        return routes
    wanted: list[bytes | None] = [_wanted(conditions, name) for _, conditions in routes]
    values: dict[bytes, list[Open]] = {value: [] for value in wanted if value is not None}
    # A route is listed under its own value; one that does not ask, under all. Order is that of `routes` in every list.
    unbound = [one for one, value in zip(routes, wanted, strict=True) if value is None]
    for one, value in zip(routes, wanted, strict=True):
        if value is not None:
            rest = tuple(c for c in one[1] if not (c.name == name and c.exact == value))
            values[value].append((one[0], rest))
    by_value: dict[bytes, Branch | Leaf] = {}
    for value, own in values.items():
        leaf = _until_certain(sorted((*own, *unbound), key=lambda one: one[0].order))
        by_value[value] = _grow(leaf) if len(own) >= GROW_FROM else leaf
    return Branch(name, by_value, _grow(_until_certain(unbound)))


def _wanted(conditions: tuple[Condition, ...], name: bytes) -> bytes | None:
    for condition in conditions:
        if condition.name == name and condition.exact is not None:
            return condition.exact
    return None


class Decision:
    """For all calls whose heads match the same routes."""

    __slots__ = ("by_tail", "target", "tree")

    def __init__(self, routes: Iterable[CompiledRoute]) -> None:
        leaf = _until_certain((route, route.conditions) for route in routes)
        self.target: DubboTarget | None = None
        """set when the head decides alone"""
        if leaf and not leaf[0][1] and not leaf[0][0].parameters:
            self.target = leaf[0][0].target
        self.tree = _grow(leaf)
        self.by_tail = all(route.target is not None and not route.parameters for route, _ in leaf)
        """the attachments alone decide: neither arguments nor a draw among weighted clusters"""

    def decide(self, table: DubboRouteTable, message: DubboMessage, pick: int | None) -> DubboTarget | None:
        """The target of one call; None when no route takes it."""
        node = self.tree
        values: Mapping[bytes, bytes] | None = None
        folded: Mapping[bytes, bytes] | None = None
        while isinstance(node, Branch):
            if values is None:
                values = table.values(message)
            value = values.get(node.name)
            if value is None and values:
                if folded is None:
                    folded = folded_names(values)
                value = folded.get(node.name)
            node = node.unbound if value is None else node.by_value.get(value, node.unbound)
        for route, conditions in node:
            for condition in conditions:
                if values is None:
                    values = table.values(message)
                value = values.get(condition.name)
                if value is None and values:
                    if folded is None:
                        folded = folded_names(values)
                    value = folded.get(condition.name)
                if not condition.test(value):
                    break
            else:
                if route.parameters and not route.takes(message):
                    continue
                return route.target or route.choose(table, message, pick)
        return None
