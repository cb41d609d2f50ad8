"""One Dubbo route, compiled: what it wants to know of a call, and the clusters that it sends calls to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from mesh_codecs.errors import RemoteProtocolError
from mesh_proxy.config.model.common import HeaderMatcherConfig, HeaderMatchKind, StringMatchKind
from mesh_proxy.config.model.dubbo import DubboParameterMatchConfig, DubboRoute, DubboRouteOptions
from mesh_proxy.routing import matchers
from mesh_proxy.routing.matchers import compile_value_matcher, parse_integer

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage
    from mesh_proxy.routing.dubbo import DubboRouteTable

ValueTest = Callable[[bytes | None], bool]
ENVOY_LB: Final = "envoy.lb"
MAX_NAMED_TARGETS: Final = 1024
"""clusters that callers named in an attachment (`cluster_header`) and that are remembered; beyond it all are forgotten"""


class DubboTarget:
    """Where a call goes. Made once, shared by all calls: never change one."""

    __slots__ = ("cluster", "metadata_match", "options", "route_name")

    def __init__(
        self, cluster: str, metadata_match: Mapping[str, Any] | None, options: DubboRouteOptions, route_name: str
    ) -> None:
        self.cluster = cluster
        self.metadata_match = metadata_match
        """what endpoints must have (`envoy.lb`); None = nothing"""
        self.options = options
        self.route_name = route_name
        """for logs"""

    def __repr__(self) -> str:
        return f"<DubboTarget {self.cluster} by {self.route_name}>"


class Condition:
    """A test of one attachment. `exact` is set when it wants just this value."""

    __slots__ = ("exact", "name", "test")

    def __init__(self, name: bytes, test: ValueTest, exact: bytes | None) -> None:
        self.name = name
        self.test = test
        self.exact = exact


class CompiledRoute:
    """A route of one interface. Interface, version and method are the table's affair; here is what only the call itself tells."""

    __slots__ = ("_cumulative", "_named", "_targets", "_total", "conditions", "config", "order", "parameters", "target")

    def __init__(self, config: DubboRoute, group: str, order: int) -> None:
        self.config = config
        self.order = order
        """place in the whole configuration: the first one that matches wins"""
        self.conditions = tuple(_condition(header) for header in config.headers)
        if group:
            wanted = group.encode()
            self.conditions = (Condition(b"group", lambda value: value == wanted, wanted), *self.conditions)
        self.parameters = config.parameters
        lb = config.metadata_match.get(ENVOY_LB) or {}
        weights = [one.weight for one in config.clusters]
        self._targets: list[DubboTarget | None] = []
        self._named: list[tuple[bytes, dict[bytes, DubboTarget]] | None] = []
        for one in config.clusters:
            merged = {**lb, **(one.metadata_match.get(ENVOY_LB) or {})} or None
            target = DubboTarget(one.name, merged, config.options, config.name)
            self._targets.append(None if one.cluster_header else target)
            self._named.append((one.cluster_header.encode(), {b"": target}) if one.cluster_header else None)
        self._cumulative = list(accumulate(weights))
        self._total = self._cumulative[-1] if self._cumulative else 0
        self.target = self._targets[0] if len(self._targets) == 1 else None
        """set when every call goes to the same place"""

    @property
    def named_targets(self) -> list[Mapping[bytes, DubboTarget]]:
        """Of each cluster that calls name (`cluster_header`), the targets that are remembered."""
        return [named[1] for named in self._named if named is not None]

    def takes(self, message: DubboMessage) -> bool:
        """Whether the arguments are as the route wants them."""
        return all(_parameter_matches(wanted, message) for wanted in self.parameters)

    def choose(self, table: DubboRouteTable, message: DubboMessage, pick: int | None) -> DubboTarget | None:
        """The target of one call when it is not always the same. `pick` is a random number, one of our own if None."""
        index = 0
        if len(self._targets) > 1:
            if pick is None:
                pick = matchers.random_bits(63)
            index = bisect_right(self._cumulative, pick % self._total)
        named = self._named[index]
        if named is None:
            return self._targets[index]
        name, known = named
        cluster = folded_names(table.values(message)).get(name) or b""
        target = known.get(cluster)
        if target is None:
            if len(known) > MAX_NAMED_TARGETS:
                known = {b"": known[b""]}
                self._named[index] = name, known
            base = known[b""]
            text = cluster.decode("utf-8", "replace")
            target = known[cluster] = DubboTarget(text, base.metadata_match, base.options, base.route_name)
        return target

    def __repr__(self) -> str:
        return f"<CompiledRoute {self.order} {self.config.name}>"


def folded_names(values: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """Attachments by their lower-case names, which is how routes name them. Where two differ in case only, lower case counts."""
    if b"".join(values).islower():
        return values
    return {name.lower(): value for name, value in values.items()} | {
        name: value for name, value in values.items() if name.islower()
    }


def _condition(config: HeaderMatcherConfig) -> Condition:
    string = config.string
    plain = (
        config.kind is HeaderMatchKind.STRING
        and string is not None
        and string.kind is StringMatchKind.EXACT
        and not (string.ignore_case or config.invert or config.treat_missing_as_empty)
    )
    exact = string.value.encode() if plain and string is not None else None
    return Condition(config.name.encode(), compile_value_matcher(config), exact)


def _parameter_matches(wanted: DubboParameterMatchConfig, message: DubboMessage) -> bool:
    """An argument that is missing, null, empty, no plain value or out of reach matches nothing; an empty `exact` any other."""
    try:
        text = message.plain_argument(wanted.index)
    except RemoteProtocolError:
        return False
    if not text:
        return False
    if wanted.exact is not None:
        return not wanted.exact or text == wanted.exact.encode()
    number = parse_integer(text)
    return number is not None and wanted.range_start <= number < wanted.range_end
