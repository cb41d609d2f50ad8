"""`envoy.filters.http.fault`."""

from __future__ import annotations

from mesh_filters.fault import DUBBO_STATUSES, FaultConfig, FaultShare
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import fraction, required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import header_matcher

_TYPE = "envoy.extensions.filters.http.fault.v3.HTTPFault"


def _share(reader: Reader, runtime_key: str) -> FaultShare:
    share = fraction(reader.sub("percentage"))
    if share is None:
        return FaultShare(runtime_key=runtime_key)
    return FaultShare(numerator=share.numerator, denominator=share.denominator, runtime_key=runtime_key)


def _translate(extension: Extension, context: Context) -> FaultConfig:
    reader = extension.reader
    delay, abort = reader.sub("delay"), reader.sub("abort")
    delay_s: float | None = None
    delay_from_header = abort_from_header = False
    delay_share = abort_share = FaultShare()
    status = 0
    grpc_status: int | None = None
    delay_key = reader.text("delay_percent_runtime", "fault.http.delay.fixed_delay_percent")
    abort_key = reader.text("abort_percent_runtime", "fault.http.abort.abort_percent")
    if delay is not None:
        delay_share = _share(delay, delay_key)
        kind = delay.oneof("fault_delay_secifier")
        if kind == "fixed_delay":
            delay_s = delay.seconds(kind)
        else:
            required(delay, kind)
            delay_from_header = True
    if abort is not None:
        abort_share = _share(abort, abort_key)
        kind = abort.oneof("error_type")
        if kind == "http_status":
            status = abort.number(kind)
        elif kind == "grpc_status":
            grpc_status = abort.number(kind)
        else:
            required(abort, kind)
            abort_from_header = True
    rate = reader.sub("response_rate_limit")
    rate_kbps: int | None = None
    rate_from_header = False
    rate_share = FaultShare()
    rate_key = reader.text("response_rate_limit_percent_runtime", "fault.http.rate_limit.response_percent")
    if rate is not None:
        rate_share = _share(rate, rate_key)
        kind = rate.oneof("limit_type")
        inner = required(rate, kind)
        if kind == "fixed_limit":
            rate_kbps = inner.number("limit_kbps")
        else:
            rate_from_header = True
    metadata = reader.struct("filter_metadata")
    dubbo_status = metadata.get("dubbo_status")
    if dubbo_status is not None and dubbo_status not in DUBBO_STATUSES:
        raise reader.error(f"must be one of {sorted(DUBBO_STATUSES)}", "filter_metadata.dubbo_status")
    reader.flag("disable_downstream_cluster_stats")  # the statistics that it switches off do not exist here
    return FaultConfig(
        delay_s=delay_s,
        delay_from_header=delay_from_header,
        delay_share=delay_share,
        delay_runtime=reader.text("delay_duration_runtime", "fault.http.delay.fixed_duration_ms"),
        abort_status=status,
        abort_grpc_status=grpc_status,
        abort_from_header=abort_from_header,
        abort_share=abort_share,
        abort_status_runtime=reader.text("abort_http_status_runtime", "fault.http.abort.http_status"),
        abort_grpc_status_runtime=reader.text("abort_grpc_status_runtime", "fault.http.abort.grpc_status"),
        dubbo_status=dubbo_status,
        rate_kbps=rate_kbps,
        rate_from_header=rate_from_header,
        rate_share=rate_share,
        metadata=metadata,
        upstream_cluster=reader.text("upstream_cluster"),
        headers=reader.each("headers", header_matcher),
        downstream_nodes=reader.strings("downstream_nodes"),
        max_active_faults=reader.optional_number("max_active_faults"),
        max_active_faults_runtime=reader.text("max_active_faults_runtime", "fault.http.max_active_faults"),
    )


register_http_filter(_TYPE, _translate, route_type_url=_TYPE, translate_route=_translate)
