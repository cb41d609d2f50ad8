"""The application log, in Envoy's form: spdlog patterns, levels by component, one file that can be reopened.

A component is a top-level logger: `logging.getLogger("upstream")`. Only Envoy's component names (COMPONENTS) can have a level
of their own; every other logger (a library's) follows `misc`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

TRACE: Final = 5
OFF: Final = 100
LEVELS: Final[Mapping[str, int]] = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": OFF,
}
"""Envoy's names (`warn` is also taken on the command line)"""
_NAMES: Final = {number: name for name, number in LEVELS.items()}

COMPONENTS: Final = (
    "a2a", "admin", "ai_protocol_manager", "alternate_protocols_cache", "aws", "assert", "backtrace", "basic_auth",
    "cache_filter", "client", "config", "connection", "conn_handler", "compression", "credential_injector", "decompression",
    "dns", "dubbo", "envoy_bug", "ext_authz", "ext_proc", "rocketmq", "file", "filter", "forward_proxy", "geolocation",
    "grpc", "happy_eyeballs", "hc", "health_checker", "http", "http2", "hystrix", "init", "io", "jwt", "json_rpc", "kafka",
    "key_value_store", "lua", "local_rate_limit", "main", "matcher", "mcp", "misc", "mongo", "multi_connection",
    "notification", "oauth2", "quic", "quic_stream", "pool", "rate_limit_quota", "rbac", "rds", "redis", "router", "runtime",
    "stats", "secret", "sse", "tap", "testing", "thrift", "tracing", "upstream", "udp", "wasm", "websocket", "golang",
    "stats_sinks", "dynamic_modules", "ip_tagging",
)  # fmt: skip
"""all of Envoy's loggers in its order, so that what was written for Envoy is understood; many have nothing to say here"""

DEFAULT_FORMAT: Final = "[%Y-%m-%d %T.%e][%P][%l][%n] %v"
"""Envoy's default names thread and source line as well; here a process has one thread, and the pid tells the workers apart"""


class LogOptions(Protocol):
    """What logging takes from the command line (both Options and WorkerOptions have it)."""

    @property
    def log_level(self) -> str:
        """Of every component without its own."""

    @property
    def component_log_levels(self) -> tuple[tuple[str, str], ...]:
        """(component, level)"""

    @property
    def log_path(self) -> str:
        """Empty for standard error."""

    @property
    def log_format(self) -> str:
        """Empty for the default."""

    @property
    def log_format_escaped(self) -> bool:
        """Line breaks inside a message as `\\n`."""


_handler: logging.StreamHandler[_LogFile] | None = None


class _LogFile:
    """A file opened for appending, or standard error; one write per line, so that processes may share it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = 2
        self.reopen()

    def reopen(self) -> None:
        """Open the path again (log rotation). Raises OSError and keeps the old file when that fails."""
        if not self.path:
            return
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if self._fd > 2:
            os.close(self._fd)
        self._fd = fd

    def write(self, text: str) -> int:
        try:
            return os.write(self._fd, text.encode(errors="replace"))
        except OSError:
            return 0  # a full disk or a closed terminal must not stop a proxy

    def flush(self) -> None:
        pass


def configure_logging(options: LogOptions) -> None:
    """Set up the root logger of this process; called again in each worker. Raises OSError when log_path cannot be opened."""
    global _handler
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
    _handler = logging.StreamHandler(_LogFile(options.log_path))
    _handler.setFormatter(SpdlogFormatter(options.log_format or DEFAULT_FORMAT, escape=options.log_format_escaped))
    root.addHandler(_handler)
    logging.addLevelName(TRACE, "TRACE")
    set_levels({name: options.log_level for name in COMPONENTS} | dict(options.component_log_levels))


def set_levels(levels: Mapping[str, str]) -> None:
    """New level by component."""
    for name, level in levels.items():
        logging.getLogger(name).setLevel(LEVELS[level])
        if name == "misc":
            logging.getLogger().setLevel(LEVELS[level])


def current_levels() -> dict[str, str]:
    """The level of every component."""
    return {name: _NAMES.get(logging.getLogger(name).getEffectiveLevel(), "info") for name in COMPONENTS}


def reopen_log() -> None:
    """Open log_path again; a failure is logged to the old file."""
    if _handler is None:
        return
    try:
        _handler.stream.reopen()
    except OSError as error:
        logging.getLogger("main").error("cannot reopen %s: %s", _handler.stream.path, error.strerror)


_Field = Callable[[logging.LogRecord, time.struct_time], str]
_FIELDS: Final[Mapping[str, _Field]] = {
    "v": lambda r, _: r.getMessage(),
    "t": lambda r, _: str(threading.get_native_id()),
    "P": lambda r, _: str(r.process),
    "n": lambda r, _: r.name,
    "l": lambda r, _: _NAMES.get(r.levelno, r.levelname.lower()),
    "L": lambda r, _: _NAMES.get(r.levelno, r.levelname)[0].upper(),
    "e": lambda r, _: f"{int(r.msecs):03d}",
    "f": lambda r, _: f"{int(r.created % 1 * 1e6):06d}",
    "F": lambda r, _: f"{int(r.created % 1 * 1e9):09d}",
    "E": lambda r, _: str(int(r.created)),
    "g": lambda r, _: r.pathname,
    "s": lambda r, _: r.filename,
    "#": lambda r, _: str(r.lineno),
    "!": lambda r, _: r.funcName or "",
    "@": lambda r, _: f"{r.filename}:{r.lineno}",
    "^": lambda r, _: "",
    "$": lambda r, _: "",
    "%": lambda r, _: "%",
} | {
    letter: (lambda r, t, _form=form: time.strftime(_form, t))
    for letter, form in {
        "Y": "%Y", "C": "%y", "m": "%m", "d": "%d", "H": "%H", "M": "%M", "S": "%S", "T": "%H:%M:%S", "X": "%H:%M:%S",
        "R": "%H:%M", "D": "%m/%d/%y", "x": "%m/%d/%y", "a": "%a", "A": "%A", "b": "%b", "B": "%B", "c": "%c", "p": "%p",
        "I": "%I", "r": "%I:%M:%S %p", "z": "%z",
    }.items()
}  # fmt: skip
_ESCAPES: Final = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


class SpdlogFormatter(logging.Formatter):
    """Formats by an spdlog pattern; `%_` is Envoy's message with escaped line breaks, `%j` the message as JSON text."""

    def __init__(self, pattern: str, *, escape: bool = False) -> None:
        super().__init__()
        self._escape = escape
        self._parts: list[str | _Field] = []
        for literal, letter in re.findall(r"([^%]+)|%[-=]?\d*(.)", pattern):
            if literal:
                self._parts.append(literal)
            elif letter == "v":
                self._parts.append(self._message)
            elif letter == "_":
                self._parts.append(self._escaped)
            elif letter == "j":
                self._parts.append(self._json)
            else:
                self._parts.append(_FIELDS.get(letter, f"%{letter}"))

    def format(self, record: logging.LogRecord) -> str:
        moment = time.localtime(record.created)
        return "".join(part if isinstance(part, str) else part(record, moment) for part in self._parts)

    def _message(self, record: logging.LogRecord, moment: time.struct_time) -> str:
        text = self._whole(record)
        return text.translate(_ESCAPES) if self._escape else text

    def _escaped(self, record: logging.LogRecord, moment: time.struct_time) -> str:
        return self._whole(record).translate(_ESCAPES)

    def _json(self, record: logging.LogRecord, moment: time.struct_time) -> str:
        import json

        return json.dumps(self._whole(record), ensure_ascii=False)[1:-1]

    def _whole(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return text


def parse_component_levels(text: str) -> tuple[tuple[str, str], ...]:
    """`upstream:debug,http:trace` as pairs. Raises ValueError that says what is wrong."""
    return tuple(_component_level(item) for item in text.split(",") if item)


def _component_level(item: str) -> tuple[str, str]:
    name, colon, level = item.partition(":")
    if not colon or not name:
        raise ValueError(f"component log level {item!r} is not of the form name:level")
    level = canonical_level(level)
    if name not in COMPONENTS:
        raise ValueError(f"unknown log component {name!r}; known are {', '.join(COMPONENTS)}")
    return name, level


def canonical_level(level: str) -> str:
    """A level's name as LEVELS has it. Raises ValueError."""
    level = "warning" if level == "warn" else level
    if level not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; known are {_list(LEVELS)}")
    return level


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
