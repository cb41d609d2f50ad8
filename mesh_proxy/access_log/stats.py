"""What is counted about log files (Envoy docs: `configuration/observability/access_log/stats`)."""

from __future__ import annotations

from typing import ClassVar

from mesh_proxy.stats.group import StatGroup


class FilesystemStats(StatGroup):
    """`filesystem.*`. Each name is changed by one thread only: the event loop's or the writer's."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        # of the event loop
        "write_buffered",
        # of the writer
        "write_completed",
        "write_failed",
        "flushed_by_timer",
        "reopen_failed",
    )
    GAUGES: ClassVar[tuple[str, ...]] = ("write_total_buffered",)
    __slots__ = (*COUNTERS, *GAUGES)

    write_buffered: int
    write_completed: int
    write_failed: int
    flushed_by_timer: int
    reopen_failed: int
    write_total_buffered: int


class AccessLogStats(StatGroup):
    """`access_log.*`: lines that were lost. Ours, not Envoy's."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        # of the event loop: the buffer was full, because the disk or the reader of a pipe is too slow
        "dropped_buffer_full",
        # of the writer: the file could not be opened or written
        "dropped_write_failed",
    )
    __slots__ = COUNTERS

    dropped_buffer_full: int
    dropped_write_failed: int
