"""Answers that we make for Dubbo: what happened → status, text, response flag and details.

What a consumer does with a status (`DefaultFuture.doReceived`): 30 and 31 become a TimeoutException, 25 a
SerializationException, every other one a RemotingException with our text. Its failover retries all of them, so that no status
can keep a consumer from trying elsewhere; the choice is for people and logs. The statuses stand in `mesh_codecs.dubbo.Refusal`;
they are Envoy's where Envoy answers the case:

* SERVICE_NOT_FOUND for a call without a route; SERVER_ERROR for everything that fails between us and the endpoint. Not
  CHANNEL_INACTIVE, which says that the consumer's own channel broke: that one is fine.
* SERVER_TIMEOUT for a time-out: the exception then says "waiting server-side response timeout", which is what happened.
  CLIENT_TIMEOUT would say that the request was never sent.
* BAD_REQUEST for what cannot be read and for what is too large, CLIENT_ERROR for a response over the limit, as Java itself does.
* SERVER_ERROR for a full circuit breaker too: SERVER_THREADPOOL_EXHAUSTED would blame the provider's threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mesh_codecs.dubbo import DubboMessage, Refusal, error_response, null_response
from mesh_codecs.dubbo.frame import (
    BAD_REQUEST,
    CLIENT_ERROR,
    CLIENT_TIMEOUT,
    OK,
    SERIALIZATION_ERROR,
    SERVER_ERROR,
    SERVER_THREADPOOL_EXHAUSTED,
    SERVER_TIMEOUT,
    SERVICE_ERROR,
    SERVICE_NOT_FOUND,
)
from mesh_proxy.stream import flags

if TYPE_CHECKING:
    from mesh_proxy.routing.dubbo import DubboTarget

OUTCOMES: Final[dict[Refusal, tuple[int, str]]] = {
    Refusal.NO_ROUTE: (flags.NO_ROUTE_FOUND, "route_not_found"),
    Refusal.NO_CLUSTER: (flags.NO_CLUSTER_FOUND, "cluster_not_found"),
    Refusal.NO_ENDPOINT: (flags.NO_HEALTHY_UPSTREAM, "no_healthy_upstream"),
    Refusal.CONNECT_FAILED: (
        flags.UPSTREAM_CONNECTION_FAILURE,
        "upstream_reset_before_response_started{remote connection failure}",
    ),
    Refusal.UPSTREAM_GONE: (
        flags.UPSTREAM_CONNECTION_TERMINATION,
        "upstream_reset_before_response_started{connection termination}",
    ),
    Refusal.OVERFLOW: (flags.UPSTREAM_OVERFLOW, "upstream_reset_before_response_started{overflow}"),
    Refusal.TIMEOUT: (flags.UPSTREAM_REQUEST_TIMEOUT, "response_timeout"),
    Refusal.MALFORMED: (flags.DOWNSTREAM_PROTOCOL_ERROR, "dubbo.malformed"),
    Refusal.REQUEST_TOO_LARGE: (flags.DOWNSTREAM_PROTOCOL_ERROR, "request_payload_too_large"),
    Refusal.RESPONSE_TOO_LARGE: (flags.UPSTREAM_PROTOCOL_ERROR, "upstream_response_too_large"),
    Refusal.LIMITED: (flags.RATE_LIMITED, "request_rate_limited"),
    Refusal.DENIED: (0, "access_denied"),
    Refusal.FAULT: (flags.FAULT_INJECTED, "fault_filter_abort"),
    Refusal.INTERNAL: (flags.LOCAL_RESET, "internal_error"),
}
"""response flag and `%RESPONSE_CODE_DETAILS%`; every reason has its row"""

_RESULTS: Final = {
    BAD_REQUEST: 400,
    CLIENT_ERROR: 400,
    SERIALIZATION_ERROR: 400,
    SERVICE_NOT_FOUND: 404,
    CLIENT_TIMEOUT: 504,
    SERVER_TIMEOUT: 504,
    SERVER_THREADPOOL_EXHAUSTED: 503,
}


_FROM_HTTP: Final = {
    400: BAD_REQUEST,
    404: SERVICE_NOT_FOUND,
    408: SERVER_TIMEOUT,
    413: BAD_REQUEST,
    429: SERVER_THREADPOOL_EXHAUSTED,
    504: SERVER_TIMEOUT,
}


def http_status_of(status: int) -> int:
    """The HTTP status that a Dubbo status stands for, for outlier detection, filters and logs: below 500 it is not the
    endpoint's fault."""
    return 200 if status == OK else _RESULTS.get(status, 500)


def local_reply(request: DubboMessage, http_status: int, text: bytes, flag: int, dubbo_status: int | None = None) -> bytes:
    """The answer of a filter that thinks in HTTP statuses, unless it asks for `dubbo_status`. Success is an OK response with a
    null result, if we can write one."""
    if dubbo_status is not None and dubbo_status != OK:
        return error_response(request.request_id, dubbo_status, text)
    if http_status < 400 or dubbo_status == OK:
        frame = null_response(request)
        if frame is not None:
            return frame
    status = SERVICE_ERROR if flag & flags.FAULT_INJECTED else _FROM_HTTP.get(http_status, SERVER_ERROR)
    return error_response(request.request_id, status, text)


def text_of(reason: Refusal, target: DubboTarget | None) -> bytes:
    """What the consumer's exception says. Why a transport failed stands in the log only: callers need not know."""
    if target is None:
        return f"mesh-proxy: {reason.text}".encode()
    return f"mesh-proxy: {reason.text}, cluster {target.cluster}".encode("utf-8", "replace")


def error(reason: Refusal, request_id: int, text: bytes) -> bytes:
    """The whole frame."""
    return error_response(request_id, reason.status, text)
