"""For which connections a listener filter does not run (`ListenerFilter.filter_disabled`): by destination port."""

from __future__ import annotations

from collections.abc import Callable

from mesh_proxy.config.model.listener import PortPredicateConfig

PortPredicate = Callable[[int], bool]


def never(port: int) -> bool:
    """Of a filter without `filter_disabled`."""
    return False


def compile_predicate(config: PortPredicateConfig | None) -> PortPredicate:
    """A function of the destination port (`ListenerFilterChainMatchPredicate`)."""
    if config is None:
        return never
    parts = tuple(compile_predicate(rule) for rule in config.rules)
    match config.kind:
        case "any":
            return lambda port: True
        case "not":
            return lambda port: not parts[0](port)
        case "and":
            return lambda port: all(part(port) for part in parts)
        case "or":
            return lambda port: any(part(port) for part in parts)
        case _:
            return range(config.start, config.end).__contains__
