"""HTTP filters and how their configuration is translated.

A filter's loader registers here, once, at import; the HTTP connection manager's translation and `typed_per_filter_config` ask
here. Nothing but the router is built in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh_proxy.config import extensions
from mesh_proxy.config.reader import Extension

if TYPE_CHECKING:
    from mesh_proxy.config.translate.context import Context

Translate = Callable[[Extension, "Context"], Any]
"""takes the unpacked configuration, returns what `HttpFilterConfig.config` (or the per-route mapping) shall hold"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpFilterType:
    """How one HTTP filter's configuration is understood."""

    type: str
    """full name of the configuration message"""
    translate: Translate
    route_type: str = ""
    """full name of the per-route message; empty if the filter takes none"""
    translate_route: Translate | None = None


_by_type: dict[str, HttpFilterType] = {}
_by_route_type: dict[str, HttpFilterType] = {}


def register_http_filter(
    type_url: str,
    translate: Translate,
    *,
    module: str = "",
    route_type_url: str = "",
    translate_route: Translate | None = None,
    route_module: str = "",
) -> None:
    """Make an HTTP filter known.

    `type_url` may carry the `type.googleapis.com/` prefix or not. `module` is the protobuf module of the message; without it
    the filter is configured by a TypedStruct and `translate` gets a mapping (`Extension.struct`). The same goes for the
    per-route message, which may be of the same type.
    """
    name, route_name = extensions.type_name(type_url), extensions.type_name(route_type_url)
    if module:
        extensions.register(name, module)
    if route_name and (route_module or module):
        extensions.register(route_name, route_module or module)
    entry = HttpFilterType(type=name, translate=translate, route_type=route_name, translate_route=translate_route)
    _by_type[name] = entry
    if route_name:
        _by_route_type[route_name] = entry


def http_filter(type_name: str) -> HttpFilterType | None:
    """The filter that is configured by this message."""
    return _by_type.get(type_name)


def route_config(type_name: str) -> HttpFilterType | None:
    """The filter whose per-route configuration is this message."""
    return _by_route_type.get(type_name)


def unregister_http_filter(type_url: str) -> None:
    """Forget a filter (for tests)."""
    entry = _by_type.pop(extensions.type_name(type_url))
    _by_route_type.pop(entry.route_type, None)
