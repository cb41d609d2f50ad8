"""Counters of gRPC calls by cluster, service and method (Envoy: source/common/grpc/context_impl.cc).

    cluster.<name>.grpc.<service>.<method>.{<status>,success,failure,total,request_message_count,…}

Each statistic comes into being when it is first counted. Callers choose the names of services and methods, so there is a limit:
beyond it calls are counted for the cluster alone.
"""

from __future__ import annotations

from typing import Any, Final

from mesh_filters.definition import FilterContext

MAX_METHODS: Final = 1000
"""methods that one filter chain of a worker keeps statistics of; more come from somebody who tries names"""
_MAX_NAME: Final = 256
"""bytes of a service's or method's name; longer ones are nonsense"""


def service_and_method(path: bytes) -> tuple[str, str] | None:
    """What `/<service>/<method>` names; None for any other path."""
    parts = [part for part in path.partition(b"?")[0].split(b"/") if part]
    if len(parts) != 2 or max(map(len, parts)) > _MAX_NAME:
        return None
    return parts[0].decode("latin-1"), parts[1].decode("latin-1")


class CallStats:
    """The counters with one prefix."""

    __slots__ = ("_context", "_groups", "_prefix")

    def __init__(self, context: FilterContext, prefix: str) -> None:
        self._context = context
        self._prefix = prefix
        self._groups: dict[str, Any] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Count."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = self._context.stats(self._prefix, counters=(name,))
        setattr(group, name, getattr(group, name) + amount)

    def charge(self, grpc_status: bytes | None) -> None:
        """A call ended, if this head or these trailers say so."""
        if grpc_status is None:
            return
        # A made-up status must not make statistics without end.
        self.add(grpc_status.decode() if grpc_status.isdigit() and len(grpc_status) < 3 else "invalid")
        self.add("success" if grpc_status == b"0" else "failure")
        self.add("total")

    def record(self, name: str, milliseconds: float) -> None:
        """Note a duration."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = self._context.stats(self._prefix, histograms=(name,))
        getattr(group, name).record(milliseconds)


class CallStatsTable:
    """All counters of one filter chain."""

    __slots__ = ("_context", "_found", "_kind")

    def __init__(self, context: FilterContext, kind: str) -> None:
        self._context = context
        self._kind = kind
        """`grpc` or `grpc-web`"""
        self._found: dict[tuple[str, str], CallStats] = {}

    def of(self, cluster: str, call: tuple[str, str] | None) -> CallStats | None:
        """The counters for a service and method (None: for all together) of a cluster; None when there is no such cluster."""
        name = "" if call is None else f"{call[0]}.{call[1]}."
        found = self._found.get((cluster, name))
        if found is None:
            prefix = self._context.cluster_stat_prefix(cluster)
            if prefix is None:
                return None
            if name and len(self._found) >= MAX_METHODS:
                return self.of(cluster, None)
            found = self._found[cluster, name] = CallStats(self._context, f"{prefix}{self._kind}.{name}")
        return found
