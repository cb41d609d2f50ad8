"""Short ways to write clusters in tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mesh_proxy.config.model import (
    AddressConfig,
    ClusterConfig,
    EndpointConfig,
    EndpointSetConfig,
    LocalityConfig,
    LocalityEndpointsConfig,
)
from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.manager import ClusterManager
from mesh_proxy.upstream.resolver import Answer, Done, Query


def endpoint(address: str, **fields: Any) -> EndpointConfig:
    """`10.0.0.1:80`, or `/a/path`."""
    if address.startswith(("/", "@")):
        return EndpointConfig(address=AddressConfig(path=address), **fields)
    host, _, port = address.rpartition(":")
    return EndpointConfig(address=AddressConfig(host=host.strip("[]"), port=int(port)), **fields)


def hosts(count: int, **fields: Any) -> list[EndpointConfig]:
    return [endpoint(f"10.0.0.{i + 1}:80", **fields) for i in range(count)]


def locality(
    endpoints: Iterable[EndpointConfig], *, priority: int = 0, weight: int | None = None, region: str = ""
) -> LocalityEndpointsConfig:
    return LocalityEndpointsConfig(
        endpoints=tuple(endpoints), priority=priority, weight=weight, locality=LocalityConfig(region=region)
    )


def cluster(name: str, *parts: LocalityEndpointsConfig | EndpointConfig, factor: int = 140, **fields: Any) -> ClusterConfig:
    """A cluster of localities, or of endpoints in one."""
    plain = [part for part in parts if isinstance(part, EndpointConfig)]
    localities = [part for part in parts if isinstance(part, LocalityEndpointsConfig)]
    if plain:
        localities.append(locality(plain))
    assignment = EndpointSetConfig(cluster_name=name, localities=tuple(localities), overprovisioning_factor=factor)
    return ClusterConfig(name=name, endpoints=assignment, **fields)


def with_endpoints(config: ClusterConfig, *endpoints: EndpointConfig) -> ClusterConfig:
    return replace(config, endpoints=EndpointSetConfig(cluster_name=config.name, localities=(locality(endpoints),)))


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer instead of waiting for it. No threads, no real sockets."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_now = 1000.0
        really_select = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise RuntimeError("nothing left that could ever happen")
            self._virtual_now += timeout
            return really_select(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._virtual_now


class NoLoop(asyncio.AbstractEventLoop):
    """For clusters that neither resolve nor wait: every use fails."""


class Bench:
    """A manager with everything around it in sight."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        runtime: dict[str, Any] | None = None,
        uniform: Callable[[], float] | None = None,
        **options: Any,
    ) -> None:
        self.registry = StatRegistry()
        self.removed: list[Endpoint] = []
        self.random = random.Random(7)
        self.manager = ClusterManager(
            loop if loop is not None else NoLoop(),
            self.registry,
            runtime or {},
            on_endpoint_removed=self.removed.append,
            uniform=uniform or self.random.random,
            **options,
        )

    def apply(self, *configs: ClusterConfig) -> None:
        self.manager.apply(configs)

    def stat(self, name: str) -> int:
        """A counter or gauge by its full name."""
        found: list[int] = []
        for group in self.registry:
            if name.startswith(group.prefix):
                rest = name[len(group.prefix) :]
                if rest in group.COUNTERS or rest in group.GAUGES:
                    found.append(getattr(group, rest))
        assert len(found) == 1, f"{name}: {found}"
        return found[0]


class FakeResolver:
    """Answers by hand, or from `answers` at once (that is, in the next turn of the loop)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.answers: dict[str, list[str] | None] = {}
        self.ttl_s: float | None = None
        self.asked: list[tuple[str, str, float]] = []
        self.open: list[Query] = []
        self.closed = False

    def resolve(self, name: str, family: str, done: Done) -> Query:
        query = Query(name, family, done)
        self.asked.append((name, family, self.loop.time()))
        if name in self.answers:
            self.loop.call_soon(query.finish, self.answer(self.answers[name]))
        else:
            self.open.append(query)
        return query

    def answer(self, addresses: list[str] | None) -> Answer | None:
        return Answer(addresses, self.ttl_s) if addresses is not None else None

    def close(self) -> None:
        self.closed = True
