"""Finds the routes of a virtual host whose path condition holds, without looking at each of them.

Exact paths stand in a dict. Prefixes stand in a sorted list in which every entry knows its parent, the longest other prefix that
it begins with: the last entry not greater than a path either is a prefix of it or has one among its ancestors. Regular
expressions are tried one by one, but only those configured before the first route that is certain to match. The answer lists
candidates in configured order and ends with the first that has no further conditions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from mesh_proxy.config.model.route import PathMatchKind
from mesh_proxy.routing.narrowing import Candidates, candidates_of, until_certain
from mesh_proxy.routing.regex import compile_full_match
from mesh_proxy.routing.route import Route

SHARED_LIMIT: Final = 256
"""longest merged candidate list that a prefix keeps, in routes: bounds memory where many conditional prefixes nest"""

_order = attrgetter("order")


class _Prefix:
    """One prefix with its routes."""

    __slots__ = ("_merged", "parent", "routes", "text")

    def __init__(self, text: bytes, parent: _Prefix | None) -> None:
        self.text = text
        self.parent = parent
        self.routes: list[Route] = []
        self._merged: Candidates | None = None

    def merged(self) -> Candidates:
        """The routes of this prefix and of those that it begins with."""
        if self._merged is not None:
            return self._merged
        routes = list(self.routes)
        parent = self.parent
        while parent is not None:
            routes += parent.routes
            parent = parent.parent
        routes.sort(key=_order)
        if len(routes) <= SHARED_LIMIT or self.parent is None:
            self._merged = candidates_of(routes)
            return self._merged
        return until_certain(routes)


class _PrefixList:
    """Prefixes in sorted order; look-ups are one bisection and, where needed, a walk up the ancestors."""

    __slots__ = ("_nodes", "_separated", "_texts")

    def __init__(self, routes: list[tuple[bytes, Route]]) -> None:
        self._texts: list[bytes] = []
        self._nodes: list[_Prefix] = []
        self._separated = False
        stack: list[_Prefix] = []
        for text, route in sorted(routes, key=lambda entry: (entry[0], entry[1].order)):
            if not self._texts or self._texts[-1] != text:
                while stack and not text.startswith(stack[-1].text):
                    stack.pop()
                node = _Prefix(text, stack[-1] if stack else None)
                stack.append(node)
                self._texts.append(text)
                self._nodes.append(node)
            self._nodes[-1].routes.append(route)

    def find(self, path: bytes) -> Candidates:
        """The routes whose prefix the path begins with."""
        position = bisect_right(self._texts, path)
        if position == 0:
            return ()
        node: _Prefix | None = self._nodes[position - 1]
        while node is not None and not path.startswith(node.text):
            node = node.parent
        return node.merged() if node is not None else ()


class PathIndex:
    """The routes of one virtual host by path. CONNECT routes are not in it."""

    __slots__ = ("_exact", "_exact_folded", "_prefixes", "_prefixes_folded", "_regexes")

    def __init__(self, routes: list[Route]) -> None:
        exact: dict[bytes, list[Route]] = {}
        exact_folded: dict[bytes, list[Route]] = {}
        self._regexes: list[tuple[Route, Callable[[bytes], bool]]] = []
        prefixes: list[tuple[bytes, Route]] = []
        prefixes_folded: list[tuple[bytes, Route]] = []
        for route in routes:
            match = route.config.match
            text = match.path.encode()
            folded = not match.case_sensitive
            if folded:
                text = text.lower()
            if match.kind is PathMatchKind.REGEX:
                self._regexes.append((route, compile_full_match(match.path)))
                continue
            if match.kind is PathMatchKind.PREFIX:
                (prefixes_folded if folded else prefixes).append((text, route))
                continue
            if match.kind is PathMatchKind.CONNECT:
                continue
            (exact_folded if folded else exact).setdefault(text, []).append(route)
            if match.kind is PathMatchKind.SEPARATED_PREFIX:
                # `/a` matches `/a` and all below `/a/`: an exact path and a prefix.
                (prefixes_folded if folded else prefixes).append((text + b"/", route))
        self._exact = {text: candidates_of(found) for text, found in exact.items()}
        self._exact_folded = {text: candidates_of(found) for text, found in exact_folded.items()}
        """paths in lower case, of routes that ignore it"""
        self._prefixes = _PrefixList(prefixes) if prefixes else None
        self._prefixes_folded = _PrefixList(prefixes_folded) if prefixes_folded else None

    def find(self, path: bytes) -> Candidates:
        """Candidates for a path without query, in configured order, the first certain one last."""
        sources: list[Candidates] = []
        if self._exact and (exact := self._exact.get(path)):
            sources.append(exact)
        if self._prefixes is not None and (found := self._prefixes.find(path)):
            sources.append(found)
        if self._exact_folded or self._prefixes_folded is not None:
            folded = path.lower()
            if exact := self._exact_folded.get(folded):
                sources.append(exact)
            if self._prefixes_folded is not None and (found := self._prefixes_folded.find(folded)):
                sources.append(found)
        if len(sources) == 1:
            candidates = sources[0]
        elif sources:
            candidates = until_certain(sorted((route for source in sources for route in source), key=_order))
        else:
            candidates = ()
        return self._with_regexes(path, candidates) if self._regexes else candidates

    def _with_regexes(self, path: bytes, candidates: Candidates) -> Candidates:
        """The candidates and the regex routes that match, of those which can still come first."""
        certain = candidates[-1].order if candidates and candidates[-1].conditions is None else None
        matched: list[Route] = []
        for route, test in self._regexes:
            if certain is not None and route.order > certain:
                break
            if test(path):
                matched.append(route)
                if route.conditions is None:
                    break
        return until_certain(sorted((*candidates, *matched), key=_order)) if matched else candidates
