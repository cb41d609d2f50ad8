"""Access logs: one line per request, written as it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mesh_proxy.config.model import AccessLogConfig
from mesh_proxy.formatting import compile_format
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.stream.info import StreamInfo

__all__ = ["AccessLogger", "SinkSet"]

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)


class SinkSet:
    """The open files of a worker, by path."""

    def __init__(self, registry: StatRegistry, *, flush_interval_s: float) -> None:
        self._files: dict[str, IO[bytes]] = {}

    def file(self, path: str) -> IO[bytes]:
        """The file to append to."""
        if path not in self._files:
            self._files[path] = Path(path).open("ab", buffering=0)  # noqa: SIM115  held until reopen or close
        return self._files[path]

    def reopen(self) -> None:
        """Close every file; the next line opens it again."""
        self.close()

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()


class AccessLogger:
    """One configured log."""

    def __init__(self, config: AccessLogConfig, sinks: SinkSet, runtime: Mapping[str, Any]) -> None:
        self._path = config.path
        self._sinks = sinks
        self._formatter = compile_format(config.text_format or DEFAULT_FORMAT)

    def log(self, info: StreamInfo) -> None:
        """Write the line of an ended stream."""
        self._sinks.file(self._path).write(self._formatter.format(info))
