"""`envoy.filters.http.adaptive_concurrency`: as many requests under way as the latencies allow, and no more.

Envoy's message has the gradient controller. Other algorithms are configured by a TypedStruct of ours:

    type_url: mesh_proxy.filters.AdaptiveConcurrency
    value: {algorithm: gradient2, initial: 20, min: 20, max: 200, smoothing: 0.2, queue: 4, long_window: 600, tolerance: 1.5,
            window: 1s}
    value: {algorithm: bbr, cpu: 0.8, load: 4, window: 5s}

Both may have `status`, 503 by default. Each worker controls its own requests, with its share of the limits; health checks and
requests that end without an answer do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from mesh_codecs.events import RequestHeaders
from mesh_filters.bbr import BbrConfig, BbrController
from mesh_filters.definition import FieldError, FilterContext, FilterDefinition, FilterFactory
from mesh_filters.fields import Fields
from mesh_filters.filter import DOWNSTREAM_TERMINATED, Filter, FilterStatus, Stream
from mesh_filters.gradient2 import Gradient2Config, Gradient2Controller
from mesh_filters.gradient_controller import GradientConfig, GradientController
from mesh_filters.runtime_value import ON, RuntimeFlag

TYPE: Final = "mesh_proxy.filters.AdaptiveConcurrency"


class Controller(Protocol):
    """What decides."""

    def admit(self, now: float) -> bool:
        """Whether one more request may begin; then it must end by `done` or `cancel`."""

    def done(self, began: float, now: float) -> None:
        """It was answered."""

    def cancel(self) -> None:
        """It ended without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConcurrencyConfig:
    """`AdaptiveConcurrency`, or ours."""

    controller: GradientConfig | Gradient2Config | BbrConfig
    enabled: RuntimeFlag = ON
    status: int = 503

    def factory(self, context: FilterContext) -> FilterFactory:
        """A filter per stream: it remembers when the request began."""
        shared = _Shared(self, context)
        return lambda: AdaptiveConcurrencyFilter(shared)


class _Shared:
    """What the filters of one chain share."""

    __slots__ = ("config", "context", "controller", "stats")

    def __init__(self, config: AdaptiveConcurrencyConfig, context: FilterContext) -> None:
        self.config = config
        self.context = context
        one = config.controller
        prefix = context.stat_prefix + "adaptive_concurrency."
        self.controller: Controller

        def stats(kind: str, gauges: tuple[str, ...]) -> Any:
            return context.stats(f"{prefix}{kind}.", counters=("rq_blocked",), gauges=gauges)

        if isinstance(one, GradientConfig):
            self.stats = stats("gradient_controller", GradientController.GAUGES)
            self.controller = GradientController(one, self.stats, context.now(), context.random, context.workers)
        elif isinstance(one, Gradient2Config):
            self.stats = stats("gradient2", Gradient2Controller.GAUGES)
            self.controller = Gradient2Controller(one, self.stats, context.now(), context.workers)
        else:
            self.stats = stats("bbr", BbrController.GAUGES)
            self.controller = BbrController(one, self.stats)


class AdaptiveConcurrencyFilter(Filter):
    """One request."""

    __slots__ = ("_began", "_shared")

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._began = 0.0

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Admit or refuse."""
        shared = self._shared
        context = shared.context
        if stream.health_check or not shared.config.enabled.read(context.runtime):
            return FilterStatus.CONTINUE
        now = context.now()
        if shared.controller.admit(now):
            self._began = now
            return FilterStatus.CONTINUE
        shared.stats.rq_blocked += 1
        stream.send_local_reply(shared.config.status, b"reached concurrency limit", details="reached_concurrency_limit")
        return FilterStatus.STOP

    def on_complete(self, stream: Stream) -> None:
        """The latency is a sample if there was an answer."""
        began, self._began = self._began, 0.0
        if began:
            if stream.response_code and not stream.flags & DOWNSTREAM_TERMINATED:
                self._shared.controller.done(began, self._shared.context.now())
            else:
                self._shared.controller.cancel()


def _gradient2(fields: Fields) -> Gradient2Config:
    fields.only("algorithm", "status", "initial", "min", "max", "smoothing", "queue", "long_window", "tolerance", "window")
    config = Gradient2Config(
        initial=fields.whole("initial", 20, low=1),
        low=fields.whole("min", 20, low=1),
        high=fields.whole("max", 200, low=1),
        smoothing=fields.number("smoothing", 0.2, low=0.001, high=1.0),
        queue=fields.whole("queue", 4),
        long_window=fields.whole("long_window", 600, low=1),
        tolerance=fields.number("tolerance", 1.5, low=1.0, high=1000.0),
        window_s=fields.seconds("window", 1.0, low=0.01),
    )
    if config.low > config.high:
        raise FieldError(fields.at("min"), "must not be more than max")
    return config


def _bbr(fields: Fields) -> BbrConfig:
    fields.only("algorithm", "status", "load", "cpu", "window")
    if not fields.has("load") and not fields.has("cpu"):
        raise FieldError(fields.at("cpu"), "load or cpu is required")
    return BbrConfig(
        load=fields.number("load") if fields.has("load") else None,
        cpu=fields.number("cpu", high=1.0) if fields.has("cpu") else None,
        window_s=fields.seconds("window", 5.0, low=0.1),
    )


def configure(values: Mapping[str, Any]) -> AdaptiveConcurrencyConfig:
    """The configuration from plain values."""
    fields = Fields(values)
    algorithm = fields.choice("algorithm", "gradient2", "bbr")
    return AdaptiveConcurrencyConfig(
        controller=_gradient2(fields) if algorithm == "gradient2" else _bbr(fields),
        status=fields.whole("status", 503, low=400, high=599),
    )


definition = FilterDefinition(type_url=TYPE, configure=configure)
