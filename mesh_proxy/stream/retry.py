"""Whether a failed or unwelcome upstream answer is tried again (Envoy: source/common/router/retry_state_impl.cc)."""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final

from mesh_codecs.errors import ResetReason
from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.grpc import status_of_value
from mesh_proxy.config.model import RetryPolicyConfig
from mesh_proxy.routing import compile_header_matcher, compile_response_matcher

if TYPE_CHECKING:
    from mesh_proxy.upstream.endpoint import Endpoint
    from mesh_proxy.upstream.resources import Resources

GATEWAY_CODES: Final = frozenset({502, 503, 504})
RETRIABLE_4XX: Final = 409
MAX_HEADER_RETRIES: Final = 1000
"""x-envoy-max-retries beyond this is nonsense, not a wish."""
GRPC_WORDS: Final = {1: "cancelled", 4: "deadline-exceeded", 8: "resource-exhausted", 13: "internal", 14: "unavailable"}
_GRPC_ONLY: Final = frozenset(GRPC_WORDS.values())
CONNECT_FAILURES: Final = frozenset(
    {ResetReason.LOCAL_CONNECTION_FAILURE, ResetReason.REMOTE_CONNECTION_FAILURE, ResetReason.CONNECTION_TIMEOUT}
)
RETRY_HEADERS: Final = (
    b"x-envoy-retry-on",
    b"x-envoy-retry-grpc-on",
    b"x-envoy-max-retries",
    b"x-envoy-retriable-status-codes",
    b"x-envoy-retriable-header-names",
    b"x-envoy-hedge-on-per-try-timeout",
)
"""Read here, then removed: an upstream never sees them."""


class RetryState:
    """The retries of one request. Made only when the route or the request asks for retries."""

    __slots__ = (
        "active",
        "attempted",
        "base_s",
        "codes",
        "disabled",
        "header_names",
        "left",
        "max_s",
        "policy",
        "resources",
        "tried",
        "words",
    )

    def __init__(
        self, policy: RetryPolicyConfig, words: frozenset[str], left: int, codes: frozenset[int], resources: Resources
    ) -> None:
        self.policy = policy
        self.words = words
        self.left = left
        self.codes = codes
        self.resources = resources
        self.base_s = policy.base_interval_s
        self.max_s = policy.max_interval_s
        self.attempted = 0
        self.disabled = False
        """too much was sent to be sent again"""
        self.header_names: frozenset[bytes] = frozenset()
        """any of these in a response asks for a retry (x-envoy-retriable-header-names)"""
        self.active = False
        """one of the cluster's retry permits is ours"""
        self.tried: set[Endpoint] = set()

    def wants_headers(self, response: ResponseHeaders) -> bool:
        """Whether this response is one to retry, budget aside."""
        words = self.words
        status = response.status
        headers = response.headers
        if b"x-envoy-ratelimited" in headers.first:
            return "envoy-ratelimited" in words
        if status >= 500:
            if "5xx" in words:
                return True
            if status in GATEWAY_CODES and "gateway-error" in words:
                return True
        if status == RETRIABLE_4XX and "retriable-4xx" in words:
            return True
        if "retriable-status-codes" in words and status in self.codes:
            return True
        if "retriable-headers" in words and not self.header_names.isdisjoint(headers.first):
            return True
        if "retriable-headers" in words and any(
            compile_response_matcher(matcher)(response) for matcher in self.policy.retriable_headers
        ):
            return True
        value = headers.first.get(b"grpc-status")
        return value is not None and (code := status_of_value(value)) is not None and GRPC_WORDS.get(code) in words

    def wants_reset(self, reason: ResetReason, response_started: bool) -> bool:
        """Whether this reset is one to retry, budget aside. An overflow never is."""
        words = self.words
        if reason is ResetReason.OVERFLOW:
            return False
        if "reset" in words or "5xx" in words or "gateway-error" in words:
            return True
        if "reset-before-request" in words and not response_started and reason in CONNECT_FAILURES:
            return True
        if "connect-failure" in words and reason in CONNECT_FAILURES:
            return True
        return "refused-stream" in words and reason is ResetReason.REMOTE_REFUSED

    def wants_timeout(self) -> bool:
        """Whether a per-try time-out is one to retry, budget aside."""
        return bool(self.words & {"5xx", "gateway-error", "reset"}) or (
            "retriable-status-codes" in self.words and 504 in self.codes
        )

    def back_off_s(self) -> float:
        """Full jitter: uniform in [0, base * (2**n - 1)), at most the maximum."""
        ceiling = min(self.base_s * ((1 << min(self.attempted, 20)) - 1), self.max_s)
        return random() * ceiling

    def release(self) -> None:
        """Give the cluster's retry permit back."""
        if self.active:
            self.active = False
            self.resources.remove_retry()


def _words(value: bytes) -> set[str]:
    return {word.strip().decode("latin-1") for word in value.split(b",")}


def make(policy: RetryPolicyConfig | None, request: RequestHeaders, resources: Resources) -> RetryState | None:
    """The retry state that route and request headers ask for together, or None. Reads and removes the retry headers."""
    first = request.headers.first
    words: set[str] = set(policy.retry_on) if policy is not None else set()
    left = policy.num_retries if policy is not None else 1
    codes: set[int] = set(policy.retriable_status_codes) if policy is not None else set()
    if b"x-envoy-retry-on" in first or b"x-envoy-retry-grpc-on" in first:
        # Each header has its own vocabulary; the words of the other mean nothing in it.
        if (value := first.get(b"x-envoy-retry-on")) is not None:
            words |= _words(value) - _GRPC_ONLY
        if (value := first.get(b"x-envoy-retry-grpc-on")) is not None:
            words |= _words(value) & _GRPC_ONLY
        wanted = first.get(b"x-envoy-max-retries")
        if wanted is not None and wanted.isdigit() and len(wanted) <= 9:
            left = min(int(wanted), MAX_HEADER_RETRIES)
        listed = first.get(b"x-envoy-retriable-status-codes")
        if listed is not None:
            codes.update(int(code) for code in listed.replace(b" ", b"").split(b",") if code.isdigit() and len(code) == 3)
    elif words:
        wanted = first.get(b"x-envoy-max-retries")
        if wanted is not None and wanted.isdigit() and len(wanted) <= 9:
            left = min(int(wanted), MAX_HEADER_RETRIES)
    listed = first.get(b"x-envoy-retriable-header-names")
    names = frozenset(name.strip().lower() for name in listed.split(b",")) if listed is not None else frozenset()
    for name in RETRY_HEADERS:
        if name in first:
            request.headers.remove(name)
    if not words:
        return None
    if (
        policy is not None
        and policy.retriable_request_headers
        and not any(compile_header_matcher(matcher)(request) for matcher in policy.retriable_request_headers)
    ):
        return None
    state = RetryState(policy or RetryPolicyConfig(), frozenset(words), left, frozenset(codes), resources)
    state.header_names = names
    return state
