"""One configured access log: condition, format and sink."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mesh_proxy.access_log.filters import LogFilter, compile_filter
from mesh_proxy.access_log.sinks import SinkSet
from mesh_proxy.config.model import AccessLogConfig
from mesh_proxy.formatting import DEFAULT_FORMAT, compile_format, compile_json
from mesh_proxy.stream.info import StreamInfo


class AccessLogger:
    """Writes a line for each stream that passes the filter.

    Args:
        config: the log.
        sinks: the worker's files, shared by all logs with the same path.
        runtime: flattened runtime values, read when a filter asks.

    Raises:
        ValueError: a format or filter is not valid.
    """

    __slots__ = ("_filter", "_format", "_write", "path")

    def __init__(self, config: AccessLogConfig, sinks: SinkSet, runtime: Mapping[str, Any]) -> None:
        self.path = config.path
        self._filter: LogFilter | None = compile_filter(config.filter, runtime) if config.filter is not None else None
        if config.json_format is not None:
            self._format = compile_json(config.json_format, sort=config.sort_properties, omit_empty=config.omit_empty_values)
        else:
            text = DEFAULT_FORMAT if config.text_format is None else config.text_format
            self._format = compile_format(text, omit_empty=config.omit_empty_values).format
        self._write = sinks.get(config.path).write

    def log(self, info: StreamInfo) -> None:
        """Write the line of a stream that has ended; never blocks."""
        if self._filter is None or self._filter(info):
            self._write(self._format(info))

    def __repr__(self) -> str:
        return f"<AccessLogger {self.path}>"
