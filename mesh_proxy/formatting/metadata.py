"""Operators that print metadata and filter state: values of any JSON type, reached by a path of keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from mesh_proxy.formatting.operator import EACH, SAME, Kind, Operator, Syntax, register
from mesh_proxy.stream.info import StreamInfo

Source = Callable[[StreamInfo], Mapping[str, Any] | None]
"""namespace -> its metadata"""


def json_bytes(value: Any) -> bytes:
    """Compact JSON with sorted keys."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str).encode()


def as_text(value: Any) -> bytes | None:
    """A value as logs print it: strings bare, everything else as JSON."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value
    return value.encode() if isinstance(value, str) else json_bytes(_plain(value))


def _plain(value: Any) -> Any:
    """Numbers that are whole without a decimal point: protobuf knows no integers here."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _value_operator(value: Callable[[StreamInfo], Any], length: int | None, place: int) -> Operator:
    def text(info: StreamInfo) -> bytes | None:
        found = as_text(value(info))
        return found if length is None or found is None else found[:length]

    def typed(info: StreamInfo) -> Any:
        found = _plain(value(info))
        if isinstance(found, bytes):
            found = found.decode("utf-8", "replace")
        return found[:length] if length is not None and isinstance(found, str) else found

    return Operator(text, typed, Kind.ANY, place)


def _walk(source: Source, keys: tuple[str, ...]) -> Callable[[StreamInfo], Any]:
    def value(info: StreamInfo) -> Any:
        found: Any = source(info)
        for key in keys:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        return found

    return value


def _dynamic(info: StreamInfo) -> Mapping[str, Any] | None:
    return info.dynamic_metadata


def _cluster(info: StreamInfo) -> Mapping[str, Any] | None:
    return info.cluster.config.metadata if info.cluster is not None else None


def _upstream(info: StreamInfo) -> Mapping[str, Any] | None:
    return info.upstream.metadata if info.upstream is not None else None


def _route(info: StreamInfo) -> Mapping[str, Any] | None:
    return info.route.config.metadata if info.route is not None else None


def _factory(source: Source, place: int) -> Callable[[str, int | None], Operator]:
    def factory(parameter: str, length: int | None) -> Operator:
        return _value_operator(_walk(source, tuple(parameter.split(":"))), length, place)

    return factory


register("DYNAMIC_METADATA", _factory(_dynamic, EACH), Syntax.PARAMETER_REQUIRED | Syntax.LENGTH)
register("CLUSTER_METADATA", _factory(_cluster, EACH), Syntax.PARAMETER_REQUIRED)
register("UPSTREAM_METADATA", _factory(_upstream, EACH), Syntax.PARAMETER_REQUIRED)

_SOURCES: Final[Mapping[str, Source]] = {"DYNAMIC": _dynamic, "CLUSTER": _cluster, "UPSTREAM_HOST": _upstream, "ROUTE": _route}


def _metadata(parameter: str, length: int | None) -> Operator:
    """`METADATA(SOURCE:NAMESPACE:KEY…)`."""
    kind, _, rest = parameter.partition(":")
    source = _SOURCES.get(kind)
    if source is None:
        raise ValueError(f"{kind!r}: supported are {', '.join(_SOURCES)}")
    if not rest:
        raise ValueError("a namespace is needed")
    return _factory(source, SAME if source is _route else EACH)(rest, length)


register("METADATA", _metadata, Syntax.PARAMETER_REQUIRED | Syntax.LENGTH)


def _filter_state(parameter: str, length: int | None) -> Operator:
    """`FILTER_STATE(KEY:PLAIN|TYPED|FIELD:NAME)`."""
    key, _, how = parameter.partition(":")
    if not key:
        raise ValueError("a key is needed")
    kind, _, name = how.partition(":")
    if kind not in ("", "PLAIN", "TYPED", "FIELD") or (kind == "FIELD") is not bool(name):
        raise ValueError(f"{how!r}: PLAIN, TYPED or FIELD:NAME expected")

    def value(info: StreamInfo) -> Any:
        state = info.filter_state
        found = state.get(key) if state is not None else None
        if name:
            found = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        return found

    return _value_operator(value, length, EACH)


register("FILTER_STATE", _filter_state, Syntax.PARAMETER_OPTIONAL | Syntax.LENGTH)
