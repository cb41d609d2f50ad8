"""`envoy.filters.http.adaptive_concurrency` and `envoy.filters.http.admission_control`."""

from __future__ import annotations

from mesh_filters.adaptive_concurrency import AdaptiveConcurrencyConfig
from mesh_filters.admission_control import GRPC_SUCCESSES, HTTP_SUCCESSES, AdmissionControlConfig
from mesh_filters.gradient_controller import GradientConfig
from mesh_filters.runtime_value import RuntimeFlag, RuntimeNumber
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context

_HTTP = "envoy.extensions.filters.http"


def _flag(reader: Reader | None) -> RuntimeFlag:
    if reader is None:
        return RuntimeFlag()
    return RuntimeFlag(default=required(reader, "default_value").flag("value"), key=reader.text("runtime_key"))


def _adaptive(extension: Extension, context: Context) -> AdaptiveConcurrencyConfig:
    reader = extension.reader
    gradient = required(reader, "gradient_controller_config")
    limits = required(gradient, "concurrency_limit_params")
    rtt = required(gradient, "min_rtt_calc_params")
    update = limits.seconds("concurrency_update_interval")
    if not update:
        raise limits.error("must be more than 0s", "concurrency_update_interval")
    interval, fixed = rtt.seconds("interval"), rtt.seconds("fixed_value")
    if not interval and not fixed:
        raise rtt.error("interval or fixed_value is required")
    if fixed and interval:
        raise rtt.error("cannot be given together with interval", "fixed_value")
    status = reader.sub("concurrency_limit_exceeded_status")
    code = int(status.raw("code")) if status is not None else 503
    return AdaptiveConcurrencyConfig(
        controller=GradientConfig(
            percentile=gradient.percent("sample_aggregate_percentile", 50.0) / 100,
            max_limit=limits.number("max_concurrency_limit", 1000),
            update_interval_s=update,
            min_rtt_interval_s=interval or 0.0,
            fixed_min_rtt_s=fixed or None,
            request_count=rtt.number("request_count", 50),
            jitter=rtt.percent("jitter", 15.0) / 100,
            min_concurrency=rtt.number("min_concurrency", 3),
            buffer=rtt.percent("buffer", 25.0) / 100,
        ),
        enabled=_flag(reader.sub("enabled")),
        status=code if code >= 400 else 503,
    )


def _percent(reader: Reader | None, default: float) -> RuntimeNumber:
    if reader is None:
        return RuntimeNumber(default=default)
    return RuntimeNumber(default=reader.percent("default_value", 0.0), key=reader.text("runtime_key"))


def _number(reader: Reader | None, default: float) -> RuntimeNumber:
    """`RuntimeDouble` and `RuntimeUInt32`."""
    if reader is None:
        return RuntimeNumber(default=default)
    return RuntimeNumber(default=float(reader.raw("default_value")), key=reader.text("runtime_key"))


def _range(reader: Reader) -> tuple[int, int]:
    low, high = int(reader.raw("start")), int(reader.raw("end"))
    if not 100 <= low < high <= 600:
        raise reader.error("must be a range of HTTP statuses, from 100 to at most 600")
    return low, high


def _admission(extension: Extension, context: Context) -> AdmissionControlConfig:
    reader = extension.reader
    criteria = required(reader, "success_criteria")
    http, grpc = criteria.sub("http_criteria"), criteria.sub("grpc_criteria")
    statuses = GRPC_SUCCESSES if grpc is None else frozenset(grpc.numbers("grpc_success_status"))
    if any(status > 16 for status in statuses):
        raise criteria.error("there are gRPC statuses from 0 to 16", "grpc_criteria.grpc_success_status")
    threshold = _percent(reader.sub("sr_threshold"), 95.0)
    if threshold.default < 1.0:
        raise reader.error("must be at least 1 %", "sr_threshold.default_value")
    window = reader.seconds("sampling_window", 30.0) or 0.0
    if window < 1.0:
        raise reader.error("must be at least 1s", "sampling_window")
    return AdmissionControlConfig(
        enabled=_flag(reader.sub("enabled")),
        http_success=HTTP_SUCCESSES if http is None else http.each("http_success_status", _range),
        grpc_success=statuses,
        window_s=window // 1.0,
        aggression=_number(reader.sub("aggression"), 1.0),
        threshold=threshold,
        rps=_number(reader.sub("rps_threshold"), 0.0),
        max_rejection=_percent(reader.sub("max_rejection_probability"), 80.0),
    )


register_http_filter(f"{_HTTP}.adaptive_concurrency.v3.AdaptiveConcurrency", _adaptive)
register_http_filter(f"{_HTTP}.admission_control.v3.AdmissionControl", _admission)
