"""The part of `/config_dump` that shows what came from files: active, warming, and what was refused last (`error_state`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.xds.feeds import NOTHING, FeedKey, Held, Refusal, key_of

if TYPE_CHECKING:
    from mesh_proxy.xds.dynamic import DynamicConfig

Named = Callable[[str], bool]
_FIELDS: Final = {
    "cds": ("dynamic_active_clusters", "cluster"),
    "eds": ("dynamic_endpoint_configs", "endpoint_config"),
    "rds": ("dynamic_route_configs", "route_config"),
    "drds": ("dynamic_route_configs", "route_config"),
}
"""kind -> (list in the dump, field of its elements)"""


def timestamp(seconds: float) -> str:
    """`google.protobuf.Timestamp` with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds % 1 * 1000):03d}Z"


def lists(dynamic: DynamicConfig | None, kind: str, named: Named) -> dict[str, Any]:
    """The fields of one kind's dump."""
    if dynamic is None:
        return {}
    if kind == "lds":
        return _listeners(dynamic, named)
    field, inner = _FIELDS[kind]
    found: dict[str, Any] = {}
    for key in _feeds(dynamic, kind):
        active, warming = _elements(dynamic, key, inner, named)
        if active:
            found.setdefault(field, []).extend(active)
        if warming:
            found.setdefault(field.replace("active", "warming"), []).extend(warming)
        if kind == "cds" and (version := dynamic.contents.get(key, NOTHING).version):
            found["version_info"] = version
    return found


def _feeds(dynamic: DynamicConfig, kind: str) -> Iterator[FeedKey]:
    for key in dict.fromkeys((*dynamic.contents, *dynamic.refusals)):
        if key[0] == kind:
            yield key


def _elements(
    dynamic: DynamicConfig, key: FeedKey, inner: str, named: Named
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of one feed: what is served, and what warms; a refusal stands with what it concerns."""
    kind, assembly = key[0], dynamic.assembly
    errors = _errors(dynamic, key)
    wanted = {reference.name for reference in assembly.wanted if key_of(reference) == key}
    active: list[dict[str, Any]] = []
    warming: list[dict[str, Any]] = []
    for name, held in dynamic.contents.get(key, NOTHING).held.items():
        if kind != "cds" and name not in wanted:
            continue
        served = assembly.clusters.get(name) if kind == "cds" else None
        if kind == "cds" and name in assembly.warming_clusters:
            warming.append(_element(held, inner, named))
            held = served.held if served is not None else None  # type: ignore[assignment]
        elif kind == "cds" and served is not None and served.held is None:
            continue  # the bootstrap has one of that name
        if held is not None:
            active.append(_element(held, inner, named) | errors.pop(name, {}))
    active += [{"name": name, **error} if kind == "sds" and name else error for name, error in errors.items()]
    return [one for one in active if one], [one for one in warming if one]


def _element(held: Held, inner: str, named: Named) -> dict[str, Any]:
    resource = held.resource
    if not named(resource.name):
        return {}
    found = _state(held, inner)
    return {"name": resource.name, **found} if inner == "secret" else found


def _state(held: Held, inner: str) -> dict[str, Any]:
    dump = held.resource.dump
    return {
        "version_info": dump.version,
        inner: {"@type": dump.type_url, **json.loads(dump.json)},
        "last_updated": timestamp(held.updated_at),
    }


def _listeners(dynamic: DynamicConfig, named: Named) -> dict[str, Any]:
    """`ListenersConfigDump.DynamicListener` has its states side by side."""
    key = dynamic.static.lds
    if key is None:
        return {}
    assembly = dynamic.assembly
    errors = _errors(dynamic, key)
    found = []
    names = [name for name, served in assembly.listeners.items() if served.held is not None]
    names += [name for name, held in assembly.warming_listeners.items() if held is not None and name not in names]
    for name in names:
        one: dict[str, Any] = {"name": name}
        served = assembly.listeners.get(name)
        if served is not None and served.held is not None:
            one["active_state"] = _state(served.held, "listener")
        warming = assembly.warming_listeners.get(name)
        if warming is not None:
            one["warming_state"] = _state(warming, "listener")
        found.append(one | errors.pop(name, {}))
    found += [{"name": name, **error} if name else error for name, error in errors.items()]
    chosen = [one for one in found if named(one.get("name", ""))]
    version = dynamic.contents.get(key, NOTHING).version
    return {**({"version_info": version} if version else {}), **({"dynamic_listeners": chosen} if chosen else {})}


def _errors(dynamic: DynamicConfig, key: FeedKey) -> dict[str, dict[str, Any]]:
    """name -> `error_state`, of the last update if it was refused; under no name when it cannot be said which."""
    refusal = dynamic.refusals.get(key)
    if refusal is None:
        return {}
    names = list(refusal.fault.failed)
    if not names and key[0] not in ("cds", "lds"):
        names = sorted({reference.name for reference in dynamic.assembly.wanted if key_of(reference) == key})
    return {name: {"error_state": _error(refusal, name)} for name in names or [""]}


def _error(refusal: Refusal, name: str) -> dict[str, Any]:
    """`UpdateFailureState`."""
    fault = refusal.fault
    failed = fault.failed.get(name)
    return {
        **({"failed_configuration": json.loads(failed)} if failed else {}),
        "last_update_attempt": timestamp(refusal.at),
        "details": fault.text,
        **({"version_info": fault.version} if fault.version else {}),
    }
