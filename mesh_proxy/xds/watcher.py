"""Files that are moved into place, seen by inotify.

As with Envoy a file is read again when something is *moved* to its path, and not when somebody writes into it: only a move
replaces the whole at once. With a `watched_directory`, whatever is moved into that directory counts: Kubernetes replaces a
mounted ConfigMap by moving a symbolic link (`..data`) under an unchanged file.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from typing import Final

from inotify_simple import INotify, flags

from mesh_proxy.config.model.source import ConfigSource

_MASK: Final = int(flags.MOVED_TO | flags.ONLYDIR)
RETRY_S: Final = 1.0
"""a watched directory that was deleted and made anew: how often we look for it"""

_log = logging.getLogger("file")


class FileWatcher:
    """Tells which sources may have changed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[set[ConfigSource]], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._inotify = INotify(nonblocking=True)
        self._directories: dict[str, int] = {}
        """path -> watch descriptor"""
        self._sources: dict[int, list[tuple[str, ConfigSource]]] = {}
        """watch descriptor -> (file name, or empty for any; source)"""
        self._wanted: frozenset[ConfigSource] = frozenset()
        self._retry: asyncio.TimerHandle | None = None
        loop.add_reader(self._inotify.fileno(), self._readable)

    def watch(self, sources: Iterable[ConfigSource]) -> None:
        """Exactly these from now on."""
        self._wanted = frozenset(sources)
        by_directory: dict[str, list[tuple[str, ConfigSource]]] = {}
        for source in self._wanted:
            if source.watched_directory:
                by_directory.setdefault(os.path.abspath(source.watched_directory), []).append(("", source))
            else:
                directory, name = os.path.split(os.path.abspath(source.path))
                by_directory.setdefault(directory, []).append((name, source))
        for directory in [directory for directory in self._directories if directory not in by_directory]:
            self._remove(self._directories.pop(directory))
        missing = False
        for directory, entries in by_directory.items():
            try:
                watch = self._inotify.add_watch(directory, _MASK)  # the same number if it is watched already
            except OSError as error:
                missing = True
                if directory in self._directories:
                    self._sources.pop(self._directories.pop(directory), None)
                _log.error("cannot watch %s: %s", directory, error.strerror)
                continue
            old = self._directories.get(directory)
            if old is not None and old != watch:
                self._sources.pop(old, None)
            self._directories[directory] = watch
            self._sources[watch] = entries
        if missing and self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._watch_again)

    def _remove(self, watch: int) -> None:
        self._sources.pop(watch, None)
        try:
            self._inotify.rm_watch(watch)
        except OSError:
            pass  # the directory is gone, and the watch with it

    def _watch_again(self) -> None:
        """A directory was lost: when it is there again, what is in it may be new."""
        self._retry = None
        lost = {source for source in self._wanted if not self._is_watched(source)}
        self.watch(self._wanted)
        found = {source for source in lost if self._is_watched(source)}
        if found:
            self._changed(found)

    def _is_watched(self, source: ConfigSource) -> bool:
        return any(source == other for entries in self._sources.values() for _, other in entries)

    def _readable(self) -> None:
        changed: set[ConfigSource] = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                changed |= self._wanted
            elif event.mask & flags.IGNORED:
                if event.wd in self._sources:  # the directory was deleted
                    del self._sources[event.wd]
                    self._directories = {path: watch for path, watch in self._directories.items() if watch != event.wd}
                    if self._retry is None:
                        self._retry = self._loop.call_later(RETRY_S, self._watch_again)
            else:
                changed |= {source for name, source in self._sources.get(event.wd, ()) if name in ("", event.name)}
        if changed:
            self._changed(changed)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._inotify.fileno())
        self._inotify.close()
