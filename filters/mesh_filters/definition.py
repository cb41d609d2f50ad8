"""How a filter comes into a chain: its configuration, what it gets from the worker, and how it makes itself known.

A filter's configuration is translated once, in the process that loads configurations, into a frozen dataclass. That travels to
the workers; there `factory` is called once per filter chain, and what it returns makes the filter of each stream.

A filter of another distribution gives a `FilterDefinition` under an entry point of the group `mesh_proxy.filters`:

    [project.entry-points."mesh_proxy.filters"]
    require_tenant = "my_package.require_tenant:definition"

and is configured by a TypedStruct (`xds.type.v3` or the older `udpa.type.v1`) that names its `type_url`.
"""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.filter import Filter, Stream
from mesh_filters.token_bucket import Cell

if TYPE_CHECKING:
    from mesh_filters.service import ServiceResponse

ENTRY_POINT_GROUP: Final = "mesh_proxy.filters"
FilterFactory = Callable[[], Filter] | Filter
"""makes the filter of one stream; or one filter that holds no state of a stream and serves all"""


class RouteDependent(Protocol):
    """What a factory may have besides, when filters of some routes need hooks that others do not."""

    def for_route(self, config: Any) -> FilterFactory:
        """The factory for routes with this configuration; the same object for the same answer."""


class FieldError(ValueError):
    """A value of a configuration is refused: `path` is the field within the filter's own configuration."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """It shall not fire."""


class EndpointLabels(Protocol):
    """The endpoints of a cluster by labels, as they are now; another object when membership or health has changed, so that what
    was found out may be kept as long as the object is the same."""

    def health(self, labels: tuple[tuple[str, str], ...]) -> tuple[int, int]:
        """Endpoints with these labels (see `Stream.labels`): how many may be called, and all."""


class ValueTable(Protocol):
    """Numbers that all workers share by values that requests bring: a fixed table, which forgets the value whose number is the
    smallest of those in its way."""

    def place(self, value: bytes) -> int:
        """Where the number of a value stands, for one use of `get` and `set`."""

    def get(self, place: int) -> float:
        """The number; 0.0 at the start."""

    def set(self, place: int, number: float) -> None:
        """Write it."""

    def replace(self, place: int, old: float, new: float) -> bool:
        """Write it unless it is no longer `old`; whether it was written."""


class FilterContext(Protocol):
    """What a worker gives to the filters of one chain."""

    @property
    def name(self) -> str:
        """The filter's name in the configuration, by which routes configure it."""

    @property
    def stat_prefix(self) -> str:
        """`http.<stat_prefix>.` of the connection manager."""

    @property
    def runtime(self) -> Mapping[str, Any]:
        """Flattened runtime values; read them when they are needed, they may change."""

    @property
    def workers(self) -> int:
        """How many workers the sidecar has."""

    @property
    def worker_index(self) -> int:
        """Which of them this one is, from 0."""

    def stats(
        self, prefix: str, *, counters: tuple[str, ...] = (), gauges: tuple[str, ...] = (), histograms: tuple[str, ...] = ()
    ) -> Any:
        """An object with an int attribute per counter and gauge, published as `<prefix><name>`; the same for the same prefix."""

    def request_matcher(self, matchers: tuple[Any, ...]) -> Callable[[RequestHeaders], bool]:
        """A test that all of these `HeaderMatcher`s of the configuration pass."""

    def value_matcher(self, matcher: Any) -> Callable[[bytes], bool]:
        """A test of one value by a `StringMatcher` of the configuration."""

    def query_matcher(self, matcher: Any) -> Callable[[RequestHeaders], bool]:
        """A test of one query parameter by a `QueryParameterMatcher` of the configuration."""

    def share(self, fraction: Any) -> Callable[[], bool]:
        """A lot that wins for this `RuntimeFractionalPercent` of the configuration."""

    def format(self, text: str) -> Callable[[Stream], bytes]:
        """A format string (`%REQ(x)%`), as a value for a header."""

    def header_changes(self, options: tuple[Any, ...]) -> Callable[[Headers, Stream], None]:
        """Add these `HeaderValueOption`s of the configuration."""

    def health_check_failed(self) -> bool:
        """Somebody asked for `/healthcheck/fail`."""

    def cluster_health(self, name: str) -> tuple[int, int, int] | None:
        """Endpoints of a cluster: healthy, degraded, all. None: there is no such cluster."""

    def labelled(self, cluster: str, labels: tuple[tuple[str, str], ...]) -> tuple[int, int] | None:
        """Endpoints with these labels (see `Stream.labels`): how many may be called, and all. None: no such cluster."""

    def endpoint_labels(self, cluster: str) -> EndpointLabels | None:
        """The same for many questions. None: no such cluster."""

    def remember(self, name: bytes, trace_id: bytes, label: bytes, ttl_s: float) -> bool:
        """Keep a label for a trace, for all workers of the sidecar. False when it is too long."""

    def recall(self, name: bytes, trace_id: bytes) -> bytes | None:
        """The label that was kept for a trace."""

    def shared_cell(self, name: str) -> Cell:
        """A number that all workers share under this name, which is the same in all of them."""

    def value_table(self) -> ValueTable:
        """Numbers that all workers share, by values of requests."""

    @property
    def node_metadata(self) -> Mapping[str, Any]:
        """`node.metadata` of this sidecar; with Istio its workload's labels are in LABELS."""

    @property
    def node_locality(self) -> tuple[str, str, str]:
        """`node.locality`: region, zone, sub-zone."""

    def cluster_stat_prefix(self, name: str) -> str | None:
        """`cluster.<name>.` of a cluster's statistics. None: there is no such cluster."""

    @property
    def local_ip(self) -> bytes:
        """The address of this host, as it stands in x-forwarded-for of requests of our own."""

    def call_service(
        self, cluster: str, request: RequestHeaders, body: bytes, *, timeout_s: float | None, max_bytes: int
    ) -> Awaitable[ServiceResponse]:
        """Send a request of our own to a cluster. Raises `mesh_filters.service.ServiceError`."""

    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> Task[Any]:
        """Run something in the background that belongs to no stream; what it sends is flushed when it ends."""

    def route_matcher(self, match: Any) -> Callable[[RequestHeaders], bool]:
        """A test of a request by a `RouteMatch` of the configuration."""

    @property
    def service_cluster(self) -> bytes:
        """Our own cluster's name (`node.cluster`)."""

    def now(self) -> float:
        """Monotonic seconds."""

    def random(self) -> float:
        """From 0 up to, not including, 1."""

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> Cancellable:
        """Call back from the event loop; what the callback sends is flushed afterwards."""


class FilterConfig(Protocol):
    """What the frozen dataclass of a filter's configuration must have. It is pickled, so it belongs to a module.

    If it has a field `identity` (a str, not compared), that is filled in with the place of the configuration: what tells the
    numbers that workers share for it from those of others. If it has an attribute `idle`, that says that the filter does nothing
    to requests whose routes have no configuration for it: where no route has one, the filter is left out.
    """

    def factory(self, context: FilterContext) -> FilterFactory:
        """Called in each worker for each chain that holds the filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterDefinition:
    """A filter that is configured by a TypedStruct."""

    type_url: str
    """with or without `type.googleapis.com/`"""
    fields: tuple[str, ...] | None = None
    """keys that the configuration may have, others are refused; None = `configure` looks for itself"""
    configure: Callable[[Mapping[str, Any]], FilterConfig]
    """plain values to the configuration; raises `FieldError`, or ValueError"""
    configure_route: Callable[[Mapping[str, Any]], Any] | None = None
    """the same for `typed_per_filter_config`; None = the filter has nothing per route"""
