"""Resources that arrive while the proxy runs: from a change of a file to all workers, one update in flight at a time.

What changes while an update is under way is taken together afterwards, so that a storm costs no more than the workers can take.
A batch is taken in the order clusters, endpoints, listeners, routes; the files that it newly asks for are read within
it. An update is accepted whole or refused whole: by the reader (syntax, Envoy's rules, what is not supported), here (clusters
that must exist, addresses that are taken), when sockets are bound, or by the workers, who compile before they change anything.
If a batch of several files is refused its files are taken one by one, so that the good ones get through.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.source import ConfigSource, Reference
from mesh_proxy.notifier import Notifier
from mesh_proxy.stats.group import StatGroup
from mesh_proxy.tasks import create_task
from mesh_proxy.xds.assembly import Assembly, Static, assemble
from mesh_proxy.xds.feeds import NOTHING, Content, FeedKey, Refusal, key_of, merge
from mesh_proxy.xds.reader_client import ReaderClient
from mesh_proxy.xds.resources import TYPES, Fault, Resource, Response, ignored_in
from mesh_proxy.xds.subscription import Subscription
from mesh_proxy.xds.watcher import FileWatcher

SHORTEST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0
"""after an update we rest as long as it took, within these: updates never take more than half of the time"""
COMPLETE: Final = ("cds", "lds")
"""kinds whose responses name everything that there is"""
PREFIXES: Final = {"cds": "cluster_manager.cds.", "lds": "listener_manager.lds."}
_ORDER: Final = list(TYPES)
_INDEX: Final = re.compile(r"resources\[(\d+)\]")

_log = logging.getLogger("config")

Batch = Mapping[FeedKey, Response]


class DynamicConfig:
    """Everything that comes from files."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        static: Static,
        reader: ReaderClient,
        serve: Callable[[Assembly], Awaitable[None]],
        notifier: Notifier,
        *,
        runtime: Mapping[str, Any],
        reject_unknown_fields: bool,
        published: list[StatGroup],
        taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.static = static
        self.contents: dict[FeedKey, Content] = {}
        """what was accepted"""
        self.refusals: dict[FeedKey, Refusal] = {}
        """of feeds whose last update was refused"""
        self.assembly = Assembly()
        self.unknown_fields = 0
        self.ignored = 0
        """fields and extensions without effect in what was read"""
        self._loop = loop
        self._reader = reader
        self._serve = serve
        self._runtime = runtime
        self._reject_unknown = reject_unknown_fields
        self._published = published
        self._taken = taken
        """told when an update is live"""
        self._live = False
        self._dirty: set[ConfigSource] = set()
        self._again = asyncio.Event()
        """something is to be done"""
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._changed = asyncio.Event()
        """for whoever waits for the start"""
        self._lock = asyncio.Lock()
        self._expired: set[Reference] = set()
        self._overdue: set[FeedKey] = set()
        """lists that did not come in time"""
        self._timers: dict[Reference | FeedKey, asyncio.TimerHandle] = {}
        self._subscriptions: dict[Reference | FeedKey, Subscription] = {}
        self._lists = [key for key in (static.cds, static.lds) if key is not None]
        self._watcher = FileWatcher(notifier, self.refresh)
        self._task: asyncio.Task[None] | None = None

    # The life of it.

    async def load(self) -> None:
        """Read everything for the first time; nothing is served yet."""
        for key in self._lists:
            self._subscribe(key, PREFIXES[key[0]])
            self._arm(key, key[1].initial_fetch_timeout_s)
        self._watcher.watch(key[1] for key in self._lists)
        async with self._lock:
            await self._update(self._lists)
        self._task = create_task(self._run(), name="dynamic configuration")

    async def warm(self) -> None:
        """Wait until nothing is missing, or its time is over."""
        while not self.ready:
            self._changed.clear()
            await self._changed.wait()

    @property
    def ready(self) -> bool:
        """What the start waits for is there."""
        lists = all(key in self._overdue or self.contents.get(key, NOTHING).loaded for key in self._lists)
        return lists and not self.assembly.warming

    async def go_live(self, first: Callable[[], Awaitable[None]]) -> None:
        """`first` has the workers serve the assembly as it is; from then on changes are served as they come."""
        async with self._lock:
            await first()
            self._live = True

    def hold(self) -> None:
        """Another process serves: change nothing."""
        self._allowed.clear()

    def release(self) -> None:
        """We serve again; files may have changed meanwhile."""
        self._allowed.set()
        self.refresh({source for _, source in self.contents})

    def refresh(self, sources: Iterable[ConfigSource]) -> None:
        """These may have changed."""
        self._dirty |= set(sources)
        self._again.set()

    def close(self) -> None:
        """Watch and read nothing any more."""
        if self._task is not None:
            self._task.cancel()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._watcher.close()
        self._reader.close()

    async def _run(self) -> None:
        while True:
            await self._again.wait()
            await self._allowed.wait()
            began = self._loop.time()
            self._again.clear()
            dirty, self._dirty = self._dirty, set()
            async with self._lock:
                keys = [key for key in (*self._lists, *self.contents) if key[1] in dirty]
                try:
                    await self._update(dict.fromkeys(keys))
                except Exception:  # one bad moment must not end all updates
                    _log.exception("an update of the configuration failed")
            took = self._loop.time() - began
            await asyncio.sleep(min(max(took, SHORTEST_PAUSE_S), LONGEST_PAUSE_S))

    # Updates.

    async def _update(self, keys: Iterable[FeedKey]) -> None:
        """Read these feeds and take what is good; without any, look again at what waits."""
        await self._try(await self._read(list(keys)))
        self._changed.set()

    async def _read(self, keys: list[FeedKey]) -> dict[FeedKey, Response]:
        if not keys:
            return {}
        for key in keys:
            for one in self._of(key):
                one.attempt()
        answers = await self._reader.read(
            [(kind, source.path) for kind, source in keys], self._runtime, reject_unknown_fields=self._reject_unknown
        )
        good: dict[FeedKey, Response] = {}
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, Fault):
                self._refuse(key, answer)
                continue
            for path, text in answer.warnings:
                _log.warning("%s: %s", path, text)
            self.unknown_fields += answer.unknown_fields
            self.ignored += ignored_in(answer.warnings)
            good[key] = answer
        return good

    async def _try(self, batch: Batch) -> None:
        """All of it, or if that is refused its parts."""
        began, before = self._loop.time(), self.contents
        try:
            await self._take(batch)
        except ConfigError as error:
            if not batch:
                _log.error("what waited cannot be served: %s", error)
            elif len(batch) == 1:
                (key, response), *_ = batch.items()
                self._refuse(key, _fault_of(error, response))
            else:
                for key in sorted(batch, key=_rank):
                    await self._try({key: batch[key]})
            return
        for key, response in batch.items():
            changed = _ids(before.get(key, NOTHING)) != _ids(self.contents.get(key, NOTHING))
            self._accepted(key, response, self._loop.time() - began, changed=changed)

    async def _take(self, batch: Batch) -> None:
        """Make it the truth. Raises ConfigError, and then nothing has changed."""
        now = time.time()
        contents = dict(self.contents)
        for key in sorted(batch, key=_rank):
            contents[key] = merge(contents.get(key, NOTHING), batch[key], now, complete=key[0] in COMPLETE)
        while True:
            assembly = assemble(self.static, contents, self.assembly, self._expired)
            unread = {key_of(reference) for reference in assembly.wanted} - contents.keys()
            if not unread:
                break
            for reference in assembly.wanted:
                if key_of(reference) in unread:
                    self._subscribe(reference, reference.stat_prefix)
            found = await self._read(sorted(unread, key=_rank))
            for key in unread:
                response = found.get(key)
                contents[key] = merge(NOTHING, response, now, complete=False) if response is not None else NOTHING
                if response is not None:
                    self._accepted(key, response, 0.0, changed=True)
        for key, response in batch.items():
            self._check(key, response, assembly, contents)
        wanted = {key_of(reference) for reference in assembly.wanted} | set(self._lists)
        if self._live and _differs(assembly, self.assembly):
            await self._serve(assembly)
        self.contents = {key: content for key, content in contents.items() if key in wanted}
        self.assembly = assembly
        self._follow(assembly)
        if self._live:
            self._taken()

    def _check(self, key: FeedKey, response: Response, assembly: Assembly, contents: Mapping[FeedKey, Content]) -> None:
        """What cannot be seen from one file alone."""
        kind, source = key
        if kind not in COMPLETE and response.resources:
            wanted = {reference.name for reference in assembly.wanted if key_of(reference) == key}
            names = {resource.name for resource in response.resources}
            if wanted and (not wanted & names or wanted - contents[key].held.keys()):
                missing = ", ".join(map(repr, sorted(wanted - names)))
                raise ConfigError(f"{source.path} resources", f"lacks {missing}; there is {', '.join(map(repr, sorted(names)))}")
        known = assembly.clusters.keys() | assembly.warming_clusters.keys()
        before = self.contents.get(key, NOTHING)
        faults = [
            (path, f"unknown cluster {cluster!r}")
            for resource in response.resources
            if (old := before.get(resource.name)) is None or old.resource.digest != resource.digest
            for path, cluster in resource.cluster_references
            if cluster not in known
        ]
        if faults:
            raise ConfigError.of(faults)

    def _refuse(self, key: FeedKey, fault: Fault) -> None:
        self.refusals[key] = Refusal(fault, time.time())
        kind, source = key
        for one in self._of(key):
            one.refused(unreadable=fault.unreadable)
        _log.error("%s update of %s refused, the one before stays: %s", kind, source.path, fault.text)

    def _accepted(self, key: FeedKey, response: Response, took_s: float, *, changed: bool) -> None:
        self.refusals.pop(key, None)
        for one in self._of(key):
            one.success(response.version, took_s, changed=changed, empty=not response.resources)
        _log.info("%s %s: %d resources, version %r", key[0], key[1].path, len(response.resources), response.version)

    # What follows from the newest state: files to watch, clocks to set.

    def _follow(self, assembly: Assembly) -> None:
        self._watcher.watch({source for _, source in (*self._lists, *self.contents)})
        self.refusals = {key: one for key, one in self.refusals.items() if key in self.contents or key in self._lists}
        kept: set[Reference | FeedKey] = {*self._lists, *assembly.wanted}
        for reference in assembly.wanted:
            self._subscribe(reference, reference.stat_prefix)
        for gone in self._subscriptions.keys() - kept:
            for group in self._subscriptions.pop(gone).groups:
                self._published.remove(group)
        self._expired &= assembly.wanted
        waiting: set[Reference | FeedKey] = set(assembly.missing - self._expired)
        waiting |= {key for key in self._lists if key not in self._overdue and not self.contents.get(key, NOTHING).loaded}
        for key in self._timers.keys() - waiting:
            self._timers.pop(key).cancel()
        for reference in assembly.missing - self._expired:
            self._arm(reference, reference.source.initial_fetch_timeout_s)
        if self._live and assembly.missing:
            _log.debug("waiting for %s", ", ".join(map(str, assembly.missing)))

    def _arm(self, what: Reference | FeedKey, timeout_s: float | None) -> None:
        if timeout_s is not None and what not in self._timers:
            self._timers[what] = self._loop.call_later(timeout_s, self._time_over, what)

    def _time_over(self, what: Reference | FeedKey) -> None:
        del self._timers[what]
        if isinstance(what, Reference):
            self._expired.add(what)
            _log.warning("%s did not come in time: going on without", what)
        else:
            self._overdue.add(what)
            _log.warning("%s of %s did not come in time: going on without", what[0], what[1].path)
        subscription = self._subscriptions.get(what)
        if subscription is not None:
            subscription.timed_out()
        self._again.set()

    def _subscribe(self, what: Reference | FeedKey, prefix: str) -> None:
        if what not in self._subscriptions:
            kind = what.kind if isinstance(what, Reference) else what[0]
            one = self._subscriptions[what] = Subscription(kind, prefix)
            self._published.extend(one.groups)

    def _of(self, key: FeedKey) -> list[Subscription]:
        """The subscriptions to one feed."""
        return [
            one
            for what, one in self._subscriptions.items()
            if what == key or (isinstance(what, Reference) and key_of(what) == key)
        ]


def _ids(content: Content) -> list[int]:
    return [id(held) for held in content.held.values()]


def _rank(key: FeedKey) -> tuple[int, str]:
    return _ORDER.index(key[0]), key[1].path


def _differs(one: Assembly, other: Assembly) -> bool:
    """Something that workers see is new. Unchanged parts are the same objects."""

    def parts(assembly: Assembly) -> list[int]:
        served = (*assembly.clusters.values(), *assembly.listeners.values())
        return [*(id(each.config) for each in served), *map(id, assembly.route_tables.values())]

    return parts(one) != parts(other) or one.route_tables.keys() != other.route_tables.keys()


def _fault_of(error: ConfigError, response: Response) -> Fault:
    failed: dict[str, str] = {}
    for path, _ in error.problems:
        found = _INDEX.search(path)
        if found is not None and int(found[1]) < len(response.resources):
            resource: Resource = response.resources[int(found[1])]
            failed[resource.name] = resource.dump.json
    return Fault(unreadable=False, problems=error.problems, version=response.version, failed=failed)
