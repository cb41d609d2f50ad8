"""`/logging`: show and change log levels, in all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, text
from mesh_proxy.logs import COMPONENTS, LEVELS, canonical_level, current_levels

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor


class _Wrong(Exception):
    """The parameters make no sense."""


def logging_levels(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """One parameter at most, as with Envoy; the answer lists what is then in force."""
    try:
        changes = _changes({name: value for name, value in request.query.items() if value})
    except _Wrong as error:
        return text(f"error: {error}\n\n{_usage()}{_listing()}", 400)
    if changes:
        supervisor.set_log_levels(changes)
    return text(_listing())


def _changes(query: dict[str, str]) -> dict[str, str]:
    if not query:
        return {}
    if len(query) > 1:
        raise _Wrong("invalid number of parameters")
    ((name, value),) = query.items()
    if name == "level":
        return dict.fromkeys(COMPONENTS, _level(value))
    if name in ("paths", "group"):
        pairs = [item.partition(":") for item in value.split(",")]
        if not all(colon for _, colon, _ in pairs):
            raise _Wrong("unknown logger name")
        return {_component(one): _level(level) for one, _, level in pairs}
    return {_component(name): _level(value)}


def _component(name: str) -> str:
    if name not in COMPONENTS:
        raise _Wrong("unknown logger name")
    return name


def _level(level: str) -> str:
    try:
        return canonical_level(level)
    except ValueError:
        raise _Wrong("unknown logger level") from None


def _usage() -> str:
    return (
        "usage: /logging?<component>=<level> (one component)\n"
        "usage: /logging?paths=name1:level1,name2:level2,... (several components)\n"
        "usage: /logging?level=<level> (all components)\n"
        f"levels: {' '.join(LEVELS)}\n"
    )


def _listing() -> str:
    lines = [f"  {name}: {level}\n" for name, level in current_levels().items()]
    return f"active loggers:\n{''.join(lines)}\n"
