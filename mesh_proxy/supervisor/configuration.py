"""What the workers serve, and how it changes: the resources of the bootstrap and those of `mesh_proxy.xds`, by versions."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import BootstrapConfig, WorkerSnapshot
from mesh_proxy.config.model.listener import ListenerConfig
from mesh_proxy.config.model.source import Reference
from mesh_proxy.config.model.tls import SecretConfig
from mesh_proxy.config.model.twin import AnyClusterConfig
from mesh_proxy.supervisor.digests import Digests
from mesh_proxy.xds.assembly import Assembly, Static, assemble
from mesh_proxy.xds.reader_client import ReaderClient

if TYPE_CHECKING:
    from mesh_proxy.supervisor.supervisor import Supervisor
    from mesh_proxy.xds.dynamic import DynamicConfig

_log = logging.getLogger("main")


class Configuration:
    """One per supervisor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self.snapshot: WorkerSnapshot | None = None
        """what the workers serve, or are about to"""
        self.dynamic: DynamicConfig | None = None
        """None when everything stands in the bootstrap"""
        self.digests = Digests()
        self.on_change: list[Callable[[], None]] = []
        """called when other listeners and clusters are live"""
        self._loop = loop
        self._supervisor = supervisor
        self._static = Assembly()
        self._applying = asyncio.Lock()

    @property
    def assembly(self) -> Assembly:
        """What is served and what warms."""
        return self.dynamic.assembly if self.dynamic is not None else self._static

    @property
    def listeners(self) -> tuple[ListenerConfig, ...]:
        """Those that are served."""
        return tuple(served.config for served in self.assembly.listeners.values())

    @property
    def clusters(self) -> tuple[AnyClusterConfig, ...]:
        """Those that are served."""
        return tuple(served.config for served in self.assembly.clusters.values())

    # The start.

    async def load(self, bootstrap: BootstrapConfig) -> None:
        """Find everything that the bootstrap asks for."""
        supervisor = self._supervisor
        lds = ("lds", bootstrap.lds) if bootstrap.lds is not None else None
        cds = ("cds", bootstrap.cds) if bootstrap.cds is not None else None
        static = Static(bootstrap.listeners, bootstrap.clusters, lds, cds)
        if lds is None and cds is None and not any(_references(bootstrap)):
            self._static = assemble(static, {}, Assembly(), ())
            return
        from mesh_proxy.xds.dynamic import DynamicConfig  # with files only: it brings ctypes

        self.dynamic = DynamicConfig(
            self._loop,
            static,
            ReaderClient(self._loop, supervisor.spawn_reader),
            self._serve,
            supervisor.notifier,
            runtime=bootstrap.runtime,
            reject_unknown_fields=supervisor.options.reject_unknown_dynamic_fields,
            published=supervisor.stats.extra,
            taken=self._updated,
        )
        await self.dynamic.load()
        if supervisor.succession.has_predecessor and self.dynamic.refusals:
            # The process before us serves the last good version of these files; we could not.
            raise ConfigError.of([problem for one in self.dynamic.refusals.values() for problem in one.fault.problems])

    async def warm(self) -> None:
        """Wait for what does not come at once."""
        if self.dynamic is not None:
            await self.dynamic.warm()

    async def go_live(self, bootstrap: BootstrapConfig) -> None:
        """Have the workers serve. Raises ConfigError and StartError."""

        async def first() -> None:
            supervisor = self._supervisor
            supervisor.sockets.bind(self.listeners)
            self.snapshot = WorkerSnapshot(
                version=1,
                node=bootstrap.node,
                runtime=bootstrap.runtime,
                header_prefix=bootstrap.header_prefix,
                max_downstream_connections=bootstrap.max_downstream_connections,
                **_parts(self.assembly),
            )
            await supervisor.pool.apply(self.snapshot)
            supervisor.stats.configure(self.clusters)
            self._count(self.snapshot, None)
            self.digests.note(supervisor, 1, time.time())

        if self.dynamic is None:
            await first()
        else:
            await self.dynamic.go_live(first)

    def close(self) -> None:
        """No changes any more."""
        if self.dynamic is not None:
            self.dynamic.close()

    # Changes.

    async def apply_again(self) -> None:
        """The same once more, as the workers' sockets have changed."""
        await self._change()

    async def rotate(self, secrets: tuple[SecretConfig, ...]) -> None:
        """New versions of secrets go to the workers; listeners, clusters and connections stay as they are."""
        await self._change(rotated_secrets=secrets)
        self._taken()

    async def _change(self, **fields: Any) -> None:
        async with self._applying:
            assert self.snapshot is not None
            self.snapshot = dataclasses.replace(self.snapshot, version=self.snapshot.version + 1, **fields)
            await self._supervisor.pool.apply(self.snapshot)

    def _updated(self) -> None:
        self._taken()
        for changed in self.on_change:
            changed()

    def _taken(self) -> None:
        """The dynamic configuration has changed, and the workers have it."""
        if self.snapshot is not None:
            self.digests.note(self._supervisor, self.snapshot.version, time.time())

    async def _serve(self, assembly: Assembly) -> None:
        """Have all workers serve this. Raises ConfigError, and then they serve what they served before."""
        supervisor = self._supervisor
        async with self._applying:
            old = self.snapshot
            assert old is not None
            new = dataclasses.replace(old, version=old.version + 1, **_parts(assembly))
            supervisor.sockets.bind(new.listeners)
            self.snapshot = new
            try:
                await supervisor.pool.apply(new)
            except ConfigError:
                self.snapshot = dataclasses.replace(old, version=new.version + 1)
                try:
                    await supervisor.pool.apply(self.snapshot)
                finally:
                    supervisor.sockets.retain(old.listeners)
                raise
            supervisor.sockets.retain(new.listeners)
            supervisor.stats.configure(new.clusters)
            self._count(new, old)
            _log.info("version %d: %d listeners, %d clusters", new.version, len(new.listeners), len(new.clusters))

    def _count(self, new: WorkerSnapshot, old: WorkerSnapshot | None) -> None:
        supervisor, assembly = self._supervisor, self.assembly
        clusters, listeners = supervisor.stats.clusters, supervisor.stats.listeners
        added, modified, removed = _compare(new.clusters, old.clusters if old is not None else ())
        clusters.cluster_added += added
        clusters.cluster_modified += modified
        clusters.cluster_removed += removed
        clusters.active_clusters = len(new.clusters)
        clusters.warming_clusters = len(assembly.warming_clusters)
        added, modified, removed = _compare(new.listeners, old.listeners if old is not None else ())
        listeners.listener_added += added
        listeners.listener_modified += modified
        listeners.listener_removed += removed
        # Envoy counts one success per listener and worker.
        listeners.listener_create_success += (added + modified) * supervisor.options.concurrency
        listeners.total_listeners_active = len(new.listeners)
        listeners.total_listeners_warming = len(assembly.warming_listeners)


def _parts(assembly: Assembly) -> dict[str, Any]:
    return {
        "listeners": tuple(served.config for served in assembly.listeners.values()),
        "clusters": tuple(served.config for served in assembly.clusters.values()),
        "route_tables": dict(assembly.route_tables),
    }


def _references(bootstrap: BootstrapConfig) -> Iterator[Reference]:
    owners: tuple[ListenerConfig | AnyClusterConfig, ...] = (*bootstrap.listeners, *bootstrap.clusters)
    for one in owners:
        yield from one.references


def _compare(new: tuple[Any, ...], old: tuple[Any, ...]) -> tuple[int, int, int]:
    """How many came, changed and went."""
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    modified = sum(before[name] is not after[name] for name in before.keys() & after.keys())
    return len(after.keys() - before.keys()), modified, len(before.keys() - after.keys())
