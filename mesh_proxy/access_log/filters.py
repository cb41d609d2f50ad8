"""Conditions on log entries (`envoy.config.accesslog.v3.AccessLogFilter`), compiled once into plain functions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.grpc import STATUS_NAMES
from mesh_codecs.headers import Headers
from mesh_proxy.config.model import AccessLogFilterConfig, FractionConfig
from mesh_proxy.formatting.headers import response_grpc_status
from mesh_proxy.routing import compile_header_matcher, matchers
from mesh_proxy.stream.flags import NAMES
from mesh_proxy.stream.info import StreamInfo

LogFilter = Callable[[StreamInfo], bool]

_UNKNOWN: Final = 2
_NO_REQUEST: Final = RequestHeaders(0, b"", b"", b"", b"", Headers(), True)
"""what a header condition sees of a TCP session"""
_HEX: Final = re.compile(rb"[0-9a-fA-F]{8}")


def compile_filter(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    """A test whether an entry is to be written.

    Raises:
        ValueError: the kind, a flag or a status is unknown, or a regular expression is not valid.
    """
    make = _KINDS.get(config.kind)
    if make is None:
        raise ValueError(f"unknown access log filter {config.kind!r}")
    return make(config, runtime)


def is_plannable(config: AccessLogFilterConfig) -> bool:
    """Whether it asks for nothing that is unknown of a stream that goes the shortest way (`AccessLogger.log_planned`)."""
    return config.kind != "grpc_status" and all([is_plannable(child) for child in config.children])


def _comparison(number: Callable[[StreamInfo], int], config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    """A number against a value that a runtime key may override."""
    key, default = config.runtime_key, config.value

    def wanted() -> int:
        value = runtime.get(key) if key else None
        return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else default

    tests: dict[str, LogFilter] = {
        "EQ": lambda info: number(info) == wanted(),
        "GE": lambda info: number(info) >= wanted(),
        "LE": lambda info: number(info) <= wanted(),
        "NE": lambda info: number(info) != wanted(),
    }
    if config.op not in tests:
        raise ValueError(f"unknown comparison {config.op!r}")
    return tests[config.op]


def _status(info: StreamInfo) -> int:
    return info.response_code


def _duration(info: StreamInfo) -> int:
    return int(((info.end_time or time.monotonic()) - info.start_time) * 1000 + 1e-6)


def _runtime(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    """A share of the requests: all sidecars choose the same ones, by request id; at random where there is none."""
    key = config.runtime_key
    fraction = config.fraction or FractionConfig(numerator=0)

    def passes(info: StreamInfo) -> bool:
        share = matchers.runtime_share(runtime.get(key)) if key else None
        limit, parts = (fraction.numerator, fraction.denominator) if share is None else share
        request_id = info.request.headers.first.get(b"x-request-id") if info.request is not None else None
        if request_id is not None and _HEX.match(request_id):
            return int(request_id[:8], 16) % parts < limit
        return matchers.random_bits(63) % parts < limit

    return passes


def _constant(value: bool, config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    return lambda info: value


def _not_health_check(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    return lambda info: not info.health_check


def _all(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    children = tuple(compile_filter(child, runtime) for child in config.children)
    return lambda info: all(child(info) for child in children)


def _any(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    children = tuple(compile_filter(child, runtime) for child in config.children)
    return lambda info: any(child(info) for child in children)


def _header(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    if config.header is None:
        raise ValueError("a header filter needs a header")
    matches = compile_header_matcher(config.header)
    return lambda info: matches(info.request if info.request is not None else _NO_REQUEST)


def _response_flag(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    """One of the flags, or any at all when none is named."""
    if not config.values:
        return lambda info: info.flags != 0
    bits = {short: bit for bit, short, _ in NAMES}
    # Flags of features that we do not have are never set.
    mask = sum({bits.get(name, 0) for name in config.values})
    return lambda info: info.flags & mask != 0


def _grpc_status(config: AccessLogFilterConfig, runtime: Mapping[str, Any]) -> LogFilter:
    numbers = {name: number for number, name in enumerate(STATUS_NAMES)} | {"CANCELED": 1}
    try:
        wanted = frozenset(numbers[name] for name in config.values)
    except KeyError as error:
        raise ValueError(f"unknown gRPC status {error.args[0]!r}") from None
    exclude = config.exclude

    def passes(info: StreamInfo) -> bool:
        status = response_grpc_status(info)
        return ((_UNKNOWN if status is None else status) in wanted) is not exclude

    return passes


_KINDS: Final[Mapping[str, Callable[[AccessLogFilterConfig, Mapping[str, Any]], LogFilter]]] = {
    "status_code": partial(_comparison, _status),
    "duration": partial(_comparison, _duration),
    "not_health_check": _not_health_check,
    # Nothing is traced.
    "traceable": partial(_constant, False),
    "runtime": _runtime,
    "and": _all,
    "or": _any,
    "header": _header,
    "response_flag": _response_flag,
    "grpc_status": _grpc_status,
}
