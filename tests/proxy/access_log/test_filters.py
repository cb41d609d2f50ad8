"""Conditions on log entries and the logger itself (`mesh_proxy.access_log.filters` and `logger`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxy.routing.builders import has_header, info_of, request, response

from mesh_codecs.headers import Headers
from mesh_proxy.access_log import AccessLogger, SinkSet, compile_filter
from mesh_proxy.config.model import AccessLogConfig, AccessLogFilterConfig, FractionConfig
from mesh_proxy.routing import matchers
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import StreamInfo


def condition(kind: str, **fields: Any) -> AccessLogFilterConfig:
    return AccessLogFilterConfig(kind=kind, **fields)


def passes(config: AccessLogFilterConfig, info: StreamInfo, runtime: dict[str, Any] | None = None) -> bool:
    return compile_filter(config, runtime or {})(info)


def of_status(status: int) -> StreamInfo:
    info = info_of(request())
    info.response_code = status
    return info


@pytest.mark.parametrize(("op", "expected"), [("EQ", "010"), ("GE", "011"), ("LE", "110"), ("NE", "101")])
def test_status_code(op: str, expected: str) -> None:
    config = condition("status_code", op=op, value=500)
    assert "".join("01"[passes(config, of_status(status))] for status in (404, 500, 503)) == expected


def test_a_runtime_key_overrides_the_value() -> None:
    config = condition("status_code", op="GE", value=500, runtime_key="k")
    assert passes(config, of_status(404), {"k": 400})
    assert not passes(config, of_status(404), {"k": "many"})
    assert not passes(config, of_status(404), {})


def test_duration() -> None:
    info = of_status(200)
    info.start_time, info.end_time = 10.0, 10.25
    assert passes(condition("duration", op="EQ", value=250), info)
    assert not passes(condition("duration", op="GE", value=251), info)
    info.start_time, info.end_time = 0.0, 0.0  # still running: since the start of the clock
    assert passes(condition("duration", op="GE", value=1), info)


def test_response_flags() -> None:
    info = of_status(503)
    any_flag, some = condition("response_flag"), condition("response_flag", values=("UF", "UO", "RFCF"))
    assert not passes(any_flag, info)
    assert not passes(some, info)
    info.flags = flags.NO_ROUTE_FOUND
    assert passes(any_flag, info)
    assert not passes(some, info)
    info.flags |= flags.UPSTREAM_OVERFLOW
    assert passes(some, info)


def test_header() -> None:
    config = condition("header", header=has_header("x-log", "1"))
    assert passes(config, info_of(request(x_log="1")))
    assert not passes(config, info_of(request(x_log="2")))
    assert not passes(config, info_of())  # a TCP session


def test_and_or_and_constants() -> None:
    error, flagged = condition("status_code", op="GE", value=500), condition("response_flag")
    info = of_status(503)
    assert not passes(condition("and", children=(error, flagged)), info)
    assert passes(condition("or", children=(error, flagged)), info)
    info.flags = flags.NO_HEALTHY_UPSTREAM
    assert passes(condition("and", children=(error, flagged)), info)
    assert passes(condition("not_health_check"), info)
    assert not passes(condition("traceable"), info)


@pytest.mark.parametrize(
    ("trailers", "headers", "http", "status"),
    [("5", "0", 200, "NOT_FOUND"), (None, "1", 200, "CANCELED"), (None, None, 503, "UNAVAILABLE"), (None, None, 200, "UNKNOWN"),
     (None, None, 0, "UNKNOWN")],
)  # fmt: skip
def test_grpc_status(trailers: str | None, headers: str | None, http: int, status: str) -> None:
    info = of_status(http)
    info.response = response(http, **({"grpc_status": headers} if headers else {}))
    info.response_trailers = Headers([(b"grpc-status", trailers.encode())]) if trailers else None
    assert passes(condition("grpc_status", values=(status,)), info)
    assert not passes(condition("grpc_status", values=(status,), exclude=True), info)
    assert not passes(condition("grpc_status", values=("OK", "DATA_LOSS")), info)


def test_a_share_is_chosen_by_request_id(monkeypatch: pytest.MonkeyPatch) -> None:
    config = condition("runtime", runtime_key="k", fraction=FractionConfig(numerator=10))
    assert passes(config, info_of(request(x_request_id=f"{109:08x}-0000")))
    assert not passes(config, info_of(request(x_request_id=f"{110:08x}-0000")))
    assert passes(config, info_of(request(x_request_id=f"{110:08x}-0000")), {"k": 11})
    for number, expected in [(9, True), (10, False)]:
        monkeypatch.setattr(matchers, "random_bits", lambda bits, number=number: number)
        assert passes(config, info_of(request(x_request_id="not-hex"))) is expected
        assert passes(config, info_of()) is expected


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (condition("moon_phase"), "moon_phase"),
        (condition("status_code", op="ABOUT"), "ABOUT"),
        (condition("grpc_status", values=("FINE",)), "FINE"),
        (condition("header"), "needs a header"),
    ],
)
def test_conditions_that_are_refused(config: AccessLogFilterConfig, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        compile_filter(config, {})


def test_the_logger_writes_what_passes(tmp_path: Path) -> None:
    sinks = SinkSet(StatRegistry(), flush_interval_s=3600.0)
    path = str(tmp_path / "log")
    errors = condition("status_code", op="GE", value=500)
    loggers = [
        AccessLogger(AccessLogConfig(path=path, text_format="text %RESPONSE_CODE%\n", filter=errors), sinks, {}),
        AccessLogger(AccessLogConfig(path=path, json_format={"code": "%RESPONSE_CODE%", "x": "%REQ(x)%"}), sinks, {}),
        AccessLogger(
            AccessLogConfig(path=path, json_format={"b": "%REQ(x)%", "a": "y"}, omit_empty_values=True, filter=errors), sinks, {}
        ),
        AccessLogger(AccessLogConfig(path=path, filter=errors), sinks, {}),
    ]
    for status in (200, 503):
        info = of_status(status)
        info.end_time = 0.006
        info.start_wall = 1.0
        for logger in loggers:
            logger.log(info)
    sinks.close(20.0)
    assert Path(path).read_text().splitlines() == [
        '{"code":200,"x":null}',
        "text 503",
        '{"code":503,"x":null}',
        '{"a":"y"}',
        '[1970-01-01T00:00:01.000Z] "GET / -" 503 - 0 0 6 - "-" "-" "-" "a.example" "-"',
    ]
    assert repr(loggers[0]) == f"<AccessLogger {path}>"
