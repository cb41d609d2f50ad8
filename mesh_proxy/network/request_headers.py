"""What the connection manager does to every request head before filters and routes see it.

Follows Envoy's `ConnectionManagerUtility::mutateRequestHeaders` (source/common/http/conn_manager_utility.cc): which hop is
trusted, `x-forwarded-for` and `-proto`, internal or external, removal of `x-envoy-*` that an outsider may not set, request ids.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from mesh_codecs.events import RequestHeaders
from mesh_proxy.network.client_cert import XFCC

if TYPE_CHECKING:
    from mesh_proxy.network.http_manager import HttpManager
    from mesh_proxy.stream.info import StreamInfo

EXTERNAL_STRIPPED: Final = frozenset(
    {
        b"x-envoy-retriable-status-codes",
        b"x-envoy-retriable-header-names",
        b"x-envoy-retry-on",
        b"x-envoy-retry-grpc-on",
        b"x-envoy-max-retries",
        b"x-envoy-upstream-alt-stat-name",
        b"x-envoy-upstream-rq-timeout-ms",
        b"x-envoy-upstream-rq-per-try-timeout-ms",
        b"x-envoy-upstream-rq-timeout-alt-response",
        b"x-envoy-expected-rq-timeout-ms",
        b"x-envoy-force-trace",
        b"x-envoy-ip-tags",
        b"x-envoy-original-url",
        b"x-envoy-hedge-on-per-try-timeout",
        b"x-envoy-upstream-stream-duration-ms",
    }
)
"""Removed from every external request (`cleanInternalHeaders`)."""
EDGE_STRIPPED: Final = frozenset(
    {
        b"x-envoy-decorator-operation",
        b"x-envoy-downstream-service-cluster",
        b"x-envoy-downstream-service-node",
        b"x-envoy-original-path",
        b"x-envoy-original-host",
    }
)
"""Removed as well where we are the first proxy that the request meets."""


def mutate(request: RequestHeaders, info: StreamInfo, manager: HttpManager) -> None:
    """Apply it all to one request. Sets `info.remote_address` and `info.is_internal`."""
    headers = request.headers
    first = headers.first
    connection = info.connection
    config = manager.config
    default_proto = b"https" if connection.tls is not None else b"http"
    if manager.use_remote_address:
        _use_remote_address(request, info, manager, default_proto)
    else:
        forwarded = first.get(b"x-forwarded-for")
        if forwarded is not None:
            address, only = _last_address(headers.get_joined(b"x-forwarded-for") or b"", config.xff_num_trusted_hops)
            if address:
                info.remote_address = _with_port_zero(address)
                if only and manager.internal_networks:
                    info.is_internal = manager.is_internal(address)
        proto = first.get(b"x-forwarded-proto")
        if proto is None:
            first[b"x-forwarded-proto"] = default_proto
    if not request.scheme or manager.scheme_overwrite:
        proto = first.get(b"x-forwarded-proto")
        request.scheme = manager.scheme_overwrite or (proto if proto in (b"http", b"https") else default_proto)
        if manager.scheme_overwrite:
            headers.set(b"x-forwarded-proto", manager.scheme_overwrite)
    if info.is_internal:
        headers.set(b"x-envoy-internal", b"true")
    else:
        first.pop(b"x-envoy-internal", None)
        stripped = manager.stripped_headers
        if not stripped.isdisjoint(first):
            for name in stripped.intersection(first):
                headers.remove(name)
    if manager.client_cert is not None and (connection.tls is not None or XFCC in first):
        manager.client_cert.apply(headers, connection.tls)
    if config.add_user_agent:
        _add_user_agent(request, manager)
    if config.generate_request_id and (manager.force_request_id or b"x-request-id" not in first):
        headers.set(b"x-request-id", manager.context.request_id())
    if manager.via:
        _append(request, b"via", manager.via, b", ")


def _use_remote_address(request: RequestHeaders, info: StreamInfo, manager: HttpManager, default_proto: bytes) -> None:
    headers = request.headers
    connection = info.connection
    config = manager.config
    hops = config.xff_num_trusted_hops
    forwarded = headers.get_joined(b"x-forwarded-for")
    single = forwarded is None
    trusted = b""
    if hops > 0 and forwarded is not None:
        trusted, _ = _last_address(forwarded, hops - 1)
    if trusted:
        info.remote_address = _with_port_zero(trusted)
    if not config.skip_xff_append and connection.remote_ip:
        own = manager.local_ip if _is_loopback(connection.remote_ip) else connection.remote_ip
        _append(request, b"x-forwarded-for", own, b",")
    if hops == 0 or b"x-forwarded-proto" not in headers.first:
        headers.set(b"x-forwarded-proto", default_proto)
    if config.append_x_forwarded_port and b"x-forwarded-port" not in headers.first:
        headers.set(b"x-forwarded-port", b"%d" % connection.local_port)
    address = trusted or connection.remote_ip
    if single and address and manager.internal_networks:
        info.is_internal = manager.is_internal(address)
    if single and not connection.remote_ip and config.unix_sockets_internal:
        info.is_internal = True
    if not info.is_internal and address:
        headers.set(b"x-envoy-external-address", address)


def _append(request: RequestHeaders, name: bytes, value: bytes, separator: bytes) -> None:
    old = request.headers.get_joined(name)
    request.headers.set(name, value if not old else old + separator + value)


def _add_user_agent(request: RequestHeaders, manager: HttpManager) -> None:
    cluster = manager.context.service_cluster
    headers = request.headers
    headers.set(b"x-envoy-downstream-service-cluster", cluster)
    headers.setdefault(b"user-agent", cluster)
    if manager.context.service_node:
        headers.set(b"x-envoy-downstream-service-node", manager.context.service_node)


def _last_address(forwarded: bytes, skip: int) -> tuple[bytes, bool]:
    """The address `skip` hops from the end of an x-forwarded-for value, empty if it is none, and whether it was the only one."""
    parts = forwarded.split(b",")
    if skip >= len(parts):
        return b"", False
    text = parts[-1 - skip].strip(b" \t")
    try:
        return str(ipaddress.ip_address(text.decode("ascii"))).encode(), len(parts) == 1
    except (ValueError, UnicodeDecodeError):
        return b"", False


def _with_port_zero(address: bytes) -> bytes:
    return b"[%b]:0" % address if b":" in address else address + b":0"


def _is_loopback(ip: bytes) -> bool:
    return ip.startswith(b"127.") or ip == b"::1"
