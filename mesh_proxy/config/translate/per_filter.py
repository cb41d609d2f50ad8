"""`typed_per_filter_config`: what a table, host, route or weighted cluster says to one HTTP filter."""

from __future__ import annotations

from typing import Any

from mesh_proxy.config import registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.route import FilterSwitch
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.translate.context import Context

_FILTER_CONFIG = "envoy.config.route.v3.FilterConfig"


def per_filter_config(reader: Reader, context: Context) -> dict[str, Any]:
    """`typed_per_filter_config`: filter name → translated configuration, or a FilterSwitch."""
    result: dict[str, Any] = {}
    for name, extension in reader.extensions("typed_per_filter_config"):
        try:
            config = _one_filter(extension, context)
        except ConfigError as error:
            reader.problems.extend(error)
        else:
            if config is not None:
                result[name] = config
    return result


def _one_filter(extension: Extension, context: Context) -> Any:
    if extension.type == _FILTER_CONFIG:
        wrapper = extension.reader
        optional = wrapper.flag("is_optional")
        if wrapper.flag("disabled"):
            wrapper.raw("config")  # of no account then, as with Envoy
            return FilterSwitch.OFF
        if not wrapper.has("config"):
            raise wrapper.error("needs config or disabled")
        try:
            inner = wrapper.extension("config")
        except ConfigError as error:
            if not optional or "unknown or unsupported type" not in error.why:
                raise
            wrapper.problems.warn(error.path, f"optional configuration left out: {error.why}")
            return None
        if inner is None:
            return FilterSwitch.ON
        extension = inner
    entry = registry.route_config(extension.type)
    if entry is None or entry.translate_route is None:
        raise extension.unsupported("per-route configuration of a filter")
    return entry.translate_route(extension, context)
