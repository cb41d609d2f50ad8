"""What a worker gives to the filters of a chain (`mesh_filters.definition.FilterContext`)."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from random import random
from time import monotonic
from typing import TYPE_CHECKING, Any

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.config.model import HeaderMutationConfig
from mesh_proxy.formatting import compile_format
from mesh_proxy.routing.match import compile_route_match
from mesh_proxy.routing.matchers import compile_fraction, compile_header_matcher, compile_query_matcher, compile_string_matcher
from mesh_proxy.routing.mutations import UNSAFE, HeaderMutation
from mesh_proxy.stats.group import stat_kind
from mesh_proxy.stream.filter_chain import FilterChains
from mesh_proxy.tasks import create_task
from mesh_proxy.worker.shared_cells import SharedCell
from mesh_proxy.worker.value_table import ValueTable

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from mesh_filters.definition import FilterFactory
    from mesh_filters.service import ServiceResponse
    from mesh_proxy.config.model import HttpFilterConfig
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.labels import LabelIndex


class WorkerFilterContext:
    """One filter of one connection manager in this worker."""

    __slots__ = ("_worker", "name", "now", "random", "runtime", "stat_prefix", "worker_index", "workers")

    def __init__(self, worker: WorkerContext, name: str, stat_prefix: str) -> None:
        self._worker = worker
        self.name = name
        self.stat_prefix = stat_prefix
        self.runtime: Mapping[str, Any] = worker.runtime
        self.workers = worker.workers
        self.worker_index = worker.worker_index
        self.now: Callable[[], float] = monotonic
        self.random: Callable[[], float] = random

    def stats(
        self, prefix: str, *, counters: tuple[str, ...] = (), gauges: tuple[str, ...] = (), histograms: tuple[str, ...] = ()
    ) -> Any:
        """See the interface."""
        return self._worker.registry.get(stat_kind(counters, gauges, histograms), prefix)

    def request_matcher(self, matchers: tuple[Any, ...]) -> Callable[[RequestHeaders], bool]:
        """See the interface."""
        tests = tuple(compile_header_matcher(one) for one in matchers)
        if len(tests) == 1:
            return tests[0]
        return lambda request: all(test(request) for test in tests)

    def value_matcher(self, matcher: Any) -> Callable[[bytes], bool]:
        """See the interface."""
        return compile_string_matcher(matcher)

    def query_matcher(self, matcher: Any) -> Callable[[RequestHeaders], bool]:
        """See the interface."""
        return compile_query_matcher(matcher)

    def share(self, fraction: Any) -> Callable[[], bool]:
        """See the interface."""
        return compile_fraction(fraction, self.runtime)

    def format(self, text: str) -> Callable[[Any], bytes]:
        """See the interface."""
        formatter = compile_format(text, omit_empty=True)
        literal, make = formatter.literal, formatter.format
        if literal is not None:
            return lambda stream: literal
        return lambda stream: make(stream).translate(None, UNSAFE)

    def header_changes(self, options: tuple[Any, ...]) -> Callable[[Headers, Any], None]:
        """See the interface."""
        return HeaderMutation(HeaderMutationConfig(add=options), "headers").apply

    def health_check_failed(self) -> bool:
        """See the interface."""
        return self._worker.health_check_failed

    def cluster_health(self, name: str) -> tuple[int, int, int] | None:
        """See the interface."""
        cluster = self._worker.clusters.get(name)
        if cluster is None:
            return None
        stats = cluster.stats
        return stats.membership_healthy, stats.membership_degraded, stats.membership_total

    def labelled(self, cluster: str, labels: tuple[tuple[str, str], ...]) -> tuple[int, int] | None:
        """See the interface."""
        found = self._worker.clusters.get(cluster)
        return None if found is None else found.label_index().health(labels)

    def endpoint_labels(self, cluster: str) -> LabelIndex | None:
        """See the interface."""
        found = self._worker.clusters.get(cluster)
        return None if found is None else found.label_index()

    def remember(self, name: bytes, trace_id: bytes, label: bytes, ttl_s: float) -> bool:
        """See the interface."""
        return self._worker.trace_memory.remember(name, trace_id, label, self.now(), ttl_s)

    def recall(self, name: bytes, trace_id: bytes) -> bytes | None:
        """See the interface."""
        return self._worker.trace_memory.recall(name, trace_id, self.now())

    def shared_cell(self, name: str) -> SharedCell:
        """See the interface."""
        return self._worker.shared_cells.cell(name)

    def value_table(self) -> ValueTable:
        """See the interface."""
        return self._worker.value_table

    @property
    def node_metadata(self) -> Mapping[str, Any]:
        """See the interface."""
        return self._worker.node.metadata

    @property
    def node_locality(self) -> tuple[str, str, str]:
        """See the interface."""
        locality = self._worker.node.locality
        return locality.region, locality.zone, locality.sub_zone

    def cluster_stat_prefix(self, name: str) -> str | None:
        """See the interface."""
        cluster = self._worker.clusters.get(name)
        return None if cluster is None else cluster.stat_prefix

    @property
    def local_ip(self) -> bytes:
        """See the interface."""
        return self._worker.local_ip

    def call_service(
        self, cluster: str, request: RequestHeaders, body: bytes, *, timeout_s: float | None, max_bytes: int
    ) -> Awaitable[ServiceResponse]:
        """See the interface."""
        from mesh_proxy.stream.service_call import call_service  # only with filters that ask services

        return call_service(self._worker, cluster, request, body, timeout_s=timeout_s, max_bytes=max_bytes)

    def start_task(self, work: Coroutine[Any, Any, Any], name: str) -> Task[Any]:
        """See the interface."""
        task = create_task(work, name=name)
        task.add_done_callback(lambda _: self._worker.flush())
        return task

    def route_matcher(self, match: Any) -> Callable[[RequestHeaders], bool]:
        """See the interface."""
        return compile_route_match(match)

    @property
    def service_cluster(self) -> bytes:
        """See the interface."""
        return self._worker.service_cluster or self._worker.node.cluster.encode()

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> TimerHandle:
        """See the interface."""
        return self._worker.loop.call_later(seconds, self._called, callback, arguments)

    def _called(self, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            callback(*arguments)
        finally:
            self._worker.flush()


def compile_filters(
    filters: tuple[HttpFilterConfig, ...],
    worker: WorkerContext,
    stat_prefix: str,
    watch: Callable[[str, FilterFactory], FilterFactory] | None = None,
    kind: type[WorkerFilterContext] = WorkerFilterContext,
) -> FilterChains | None:
    """The chains of a connection manager; None without filters. `watch` puts something around each filter, and `kind` is what
    filters get from the worker.

    Raises:
        ValueError: a filter cannot be made; the text names it.
    """
    made: list[tuple[str, FilterFactory, bool]] = []
    busy: set[str] = set()
    for index, config in enumerate(filters):
        try:
            factory = config.config.factory(kind(worker, config.name, stat_prefix))
        except ValueError as error:
            raise ValueError(f"http_filters[{index}] ({config.name}): {error}") from error
        made.append((config.name, factory if watch is None else watch(config.name, factory), config.disabled))
        if watch is not None or not getattr(config.config, "idle", False):
            busy.add(config.name)
    return FilterChains(made, frozenset(name for name, _, _ in made) - busy) if made else None
