"""`envoy.filters.http.admission_control`: refuses a share of the requests when too few of the last ones succeeded.

With the requests and successes of the sampling window (Envoy: `admission_control/admission_control.cc`), a request is refused
with the probability

    ((requests - successes / sr_threshold) / (requests + 1)) ^ (1 / aggression),  at most max_rejection_probability

Requests that the filter refuses do not count, nor do health checks and requests that end without an answer. Below `rps_threshold`
requests a second all pass. Each worker looks at its own requests, as each thread of Envoy does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders, ResponseHeaders, Trailers
from mesh_filters.definition import FilterContext, FilterFactory
from mesh_filters.filter import Filter, FilterStatus, Stream
from mesh_filters.runtime_value import ON, RuntimeFlag, RuntimeNumber

GRANULARITY_S: Final = 1.0
"""length of the pieces in which the sampling window moves"""
GRPC_SUCCESSES: Final = frozenset({0, 1, 2, 3, 5, 6, 7, 9, 11, 12, 16})
"""statuses that sending less would not change; Envoy's default"""
HTTP_SUCCESSES: Final = ((100, 500),)
AGGRESSION: Final = RuntimeNumber(default=1.0)
THRESHOLD: Final = RuntimeNumber(default=95.0)
RPS: Final = RuntimeNumber(default=0.0)
MAX_REJECTION: Final = RuntimeNumber(default=80.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionControlConfig:
    """`AdmissionControl`, with Envoy's defaults."""

    enabled: RuntimeFlag = ON
    http_success: tuple[tuple[int, int], ...] = HTTP_SUCCESSES
    """ranges of statuses, the end not included"""
    grpc_success: frozenset[int] = GRPC_SUCCESSES
    window_s: float = 30.0
    aggression: RuntimeNumber = AGGRESSION
    """at least 1"""
    threshold: RuntimeNumber = THRESHOLD
    """`sr_threshold`, percent"""
    rps: RuntimeNumber = RPS
    max_rejection: RuntimeNumber = MAX_REJECTION
    """percent"""

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it waits for the response."""
        shared = _Shared(self, context)
        return lambda: AdmissionControlFilter(shared)


class History:
    """Requests and successes of the last seconds. Times are monotonic seconds."""

    __slots__ = ("_pieces", "_window_s", "requests", "successes")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._pieces: deque[list[float]] = deque()
        """[begin, requests, successes]"""
        self.requests = 0.0
        self.successes = 0.0

    def move(self, now: float) -> None:
        """Forget what is too old, and begin a new piece when it is time."""
        pieces = self._pieces
        while pieces and now - pieces[0][0] >= self._window_s:
            _, requests, successes = pieces.popleft()
            self.requests -= requests
            self.successes -= successes
        if not pieces or now - pieces[-1][0] >= GRANULARITY_S:
            pieces.append([now, 0.0, 0.0])

    def record(self, now: float, success: bool) -> None:
        """A request ended."""
        self.move(now)
        piece = self._pieces[-1]
        self.requests += 1
        piece[1] += 1
        if success:
            self.successes += 1
            piece[2] += 1

    def average_rps(self, now: float) -> float:
        """Requests a second over the window, or over as much of it as there is."""
        self.move(now)
        if not self.requests:
            return 0.0
        return self.requests // max(1.0, min(self._window_s, now - self._pieces[0][0]) // 1.0)


def rejection_probability(requests: float, successes: float, threshold: float, aggression: float, most: float) -> float:
    """See the module; `threshold` and `most` from 0 to 1."""
    probability = (requests - successes / threshold) / (requests + 1)
    if probability <= 0:
        return 0.0
    if aggression != 1.0:
        probability = probability ** (1.0 / aggression)
    return min(probability, most)


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("config", "context", "history", "stats")

    def __init__(self, config: AdmissionControlConfig, context: FilterContext) -> None:
        self.config = config
        self.context = context
        self.history = History(config.window_s)
        self.stats: Any = context.stats(
            context.stat_prefix + "admission_control.", counters=("rq_rejected", "rq_success", "rq_failure")
        )

    def rejects(self, now: float) -> bool:
        """Draw the lot for a request."""
        config, history, runtime = self.config, self.history, self.context.runtime
        history.move(now)
        if history.successes == history.requests:
            return False  # nothing failed: that is above any threshold
        if history.average_rps(now) < config.rps.read(runtime):
            return False
        probability = rejection_probability(
            history.requests,
            history.successes,
            max(1.0, config.threshold.read(runtime)) / 100,
            max(1.0, config.aggression.read(runtime)),
            config.max_rejection.read(runtime) / 100,
        )
        return probability > 0 and self.context.random() < probability


class AdmissionControlFilter(Filter):
    """One request."""

    __slots__ = ("_shared", "_watched")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._watched = False
        """its end counts, and did not come yet"""

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Admit or refuse."""
        shared = self._shared
        context = shared.context
        if stream.health_check or not shared.config.enabled.read(context.runtime):
            return FilterStatus.CONTINUE
        if shared.rejects(context.now()):
            shared.stats.rq_rejected += 1
            stream.send_local_reply(503, details="denied_by_admission_control")
            return FilterStatus.STOP
        self._watched = True
        return FilterStatus.CONTINUE

    def on_response_headers(self, stream: Stream, event: ResponseHeaders) -> FilterStatus:
        """Success or failure by the status; that of gRPC may come in the trailers."""
        if self._watched:
            first = event.headers.first
            if first.get(b"content-type", b"").startswith(b"application/grpc"):
                status = first.get(b"grpc-status")
                if status is not None or event.end_stream:
                    self._record(self._grpc_success(status))
            else:
                self._record(any(low <= event.status < high for low, high in self._shared.config.http_success))
        return FilterStatus.CONTINUE

    def on_response_trailers(self, stream: Stream, event: Trailers) -> FilterStatus:
        """Of gRPC."""
        if self._watched:
            self._record(self._grpc_success(event.headers.first.get(b"grpc-status")))
        return FilterStatus.CONTINUE

    def _grpc_success(self, status: bytes | None) -> bool:
        return status is not None and status.isdigit() and int(status) in self._shared.config.grpc_success

    def _record(self, success: bool) -> None:
        self._watched = False
        shared = self._shared
        if success:
            shared.stats.rq_success += 1
        else:
            shared.stats.rq_failure += 1
        shared.history.record(shared.context.now(), success)
