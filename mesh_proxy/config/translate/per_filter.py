"""`typed_per_filter_config`: what a table, host, route or weighted cluster says to one HTTP filter."""

from __future__ import annotations

from typing import Any

from mesh_proxy.config import registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.translate.context import Context

_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"


def per_filter_config(reader: Reader, context: Context) -> dict[str, Any]:
    """`typed_per_filter_config`: filter name → translated configuration; `None` where the filter is switched off."""
    result: dict[str, Any] = {}
    for name, extension in reader.extensions("typed_per_filter_config"):
        try:
            result[name] = _one_filter(extension, context)
        except ConfigError as error:
            reader.problems.extend(error)
    return result


def _one_filter(extension: Extension, context: Context) -> Any:
    if extension.type == _FILTER_CONFIG:
        wrapper = extension.reader
        if wrapper.flag("disabled"):
            return None
        wrapper.flag("is_optional")
        inner = wrapper.extension("config")
        if inner is None:
            raise wrapper.error("needs config or disabled")
        extension = inner
    entry = registry.route_config(extension.type)
    if entry is None or entry.translate_route is None:
        raise extension.unsupported("per-route configuration of a filter")
    return entry.translate_route(extension, context)
