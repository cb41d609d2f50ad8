"""One configured access log: condition, format and sink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.access_log.filters import LogFilter, compile_filter, is_plannable
from mesh_proxy.config.model import AccessLogConfig
from mesh_proxy.formatting import DEFAULT_FORMAT, Formatter, PlannedLine, UsualLines, compile_format, compile_json
from mesh_proxy.formatting.line import unsafe
from mesh_proxy.stream.info import StreamInfo

if TYPE_CHECKING:
    from mesh_codecs.http1.upstream import KnownResponse
    from mesh_proxy.access_log.sink import Sink
    from mesh_proxy.access_log.sinks import SinkSet
    from mesh_proxy.formatting.timing import TimeFormat
    from mesh_proxy.stream.planned_stream import PlannedStream

LINES: Final = 16
"""kept for one request head"""


class AccessLogger:
    """Writes a line for each stream that passes the filter.

    Args:
        config: the log.
        sinks: the worker's files, shared by all logs with the same path.
        runtime: flattened runtime values, read when a filter asks.

    Raises:
        ValueError: a format or filter is not valid.
    """

    __slots__ = ("_as_json", "_clock", "_filter", "_format", "_formatter", "_plans", "_sink", "_usual", "answerable", "path")

    def __init__(self, config: AccessLogConfig, sinks: SinkSet, runtime: Mapping[str, Any]) -> None:
        self.path = config.path
        self._filter: LogFilter | None = compile_filter(config.filter, runtime) if config.filter is not None else None
        if config.json_format is not None:
            made = compile_json(config.json_format, sort=config.sort_properties, omit_empty=config.omit_empty_values)
        else:
            text = DEFAULT_FORMAT if config.text_format is None else config.text_format
            made = compile_format(text, omit_empty=config.omit_empty_values)
        self._format: Callable[[StreamInfo], bytes] = made.format
        self._usual: UsualLines | None = UsualLines(made) if isinstance(made, Formatter) else None
        self._formatter: Formatter | None = made if isinstance(made, Formatter) else None
        self._as_json = config.json_format is not None
        self._clock: TimeFormat | None = made.clock
        self.answerable: bool = made.answerable
        """`log_planned` can do it"""
        self._plans = made.plannable and (config.filter is None or is_plannable(config.filter))
        """and does it by lines that are planned"""
        self._sink: Sink = sinks.get(config.path)

    def log(self, info: StreamInfo) -> None:
        """Write the line of a stream that has ended; never blocks."""
        if self._filter is None or self._filter(info):
            usual = self._usual
            self._sink.write(self._format(info) if usual is None or info.request is None else usual.format(info))

    def log_planned(self, stream: PlannedStream, known: KnownResponse, took: bytes) -> None:
        """The same for a stream that went the shortest way. Where the format allows it, only what it has of its own is put into a
        line that is there.

        Args:
            stream: knows when it ended and with which status.
            known: the head that answered it.
            took: `x-envoy-upstream-service-time` of the response; empty if it has none.
        """
        if not self._plans:
            stream.describe(known, took)
            self.log(stream)
            return
        if self._filter is not None and not self._filter(stream):
            return
        connection = stream.connection
        cluster = stream.cluster
        endpoint = stream.upstream
        assert cluster is not None
        assert endpoint is not None
        plan = stream.plan
        lines = plan.lines
        key = (self, known, connection.requested_server_name, cluster.config.alt_stat_name)
        line: PlannedLine | None = None if lines is None else lines.get(key)
        if line is None:
            stream.describe(known, took)
            assert self._formatter is not None
            line = self._formatter.plan(stream, has_id=b"x-request-id" in plan.own, timed=bool(took))
            if lines is None or len(lines) >= LINES:
                lines = plan.lines = {}
            lines[key] = line
        request_id = stream.request.headers.first.get(b"x-request-id")
        if self._as_json and request_id is not None and not plan.makes_id and unsafe(request_id):
            stream.describe(known, took)
            self._sink.write(self._format(stream))
            return
        start = stream.start_time
        clock = self._clock
        values = (
            # In the order of `mesh_proxy.formatting.operator`.
            b"" if clock is None else clock.format(connection.start_wall + (start - connection.start_monotonic)),
            int((stream.end_time - start) * 1000 + 1e-6),
            took,
            request_id,
            stream.upstream_local_address,
            stream.remote_address,
            connection.local_address,
            connection.direct_remote_address,
            connection.connection_id,
            endpoint.address_bytes,
        )
        self._sink.write(line.template % line.pick(values))

    def __repr__(self) -> str:
        return f"<AccessLogger {self.path}>"
