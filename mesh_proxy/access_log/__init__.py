"""Access logs: conditions, formats and files, and the thread that writes them so that no request ever waits for a disk."""

from mesh_proxy.access_log.filters import LogFilter, compile_filter
from mesh_proxy.access_log.logger import AccessLogger
from mesh_proxy.access_log.sink import Sink
from mesh_proxy.access_log.sinks import SinkSet
from mesh_proxy.access_log.stats import AccessLogStats, FilesystemStats

__all__ = ["AccessLogStats", "AccessLogger", "FilesystemStats", "LogFilter", "Sink", "SinkSet", "compile_filter"]
