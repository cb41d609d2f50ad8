"""Files that are moved into place.

As with Envoy a file is read again when something is *moved* to its path, and not when somebody writes into it: only a move
replaces the whole at once. With a `watched_directory`, whatever is moved into that directory counts: Kubernetes replaces a
mounted ConfigMap by moving a symbolic link (`..data`) under an unchanged file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from mesh_proxy.config.model.source import ConfigSource
from mesh_proxy.notifier import MOVED, Notifier


class FileWatcher:
    """Tells which sources may have changed."""

    def __init__(self, notifier: Notifier, changed: Callable[[set[ConfigSource]], None]) -> None:
        self._changed = changed
        self._interest = notifier.interest(MOVED, self._happened)
        self._sources: dict[str, list[tuple[str, ConfigSource]]] = {}
        """directory -> (file name, or empty for any; source)"""

    def watch(self, sources: Iterable[ConfigSource]) -> None:
        """Exactly these from now on."""
        by_directory: dict[str, list[tuple[str, ConfigSource]]] = {}
        for source in set(sources):
            if source.watched_directory:
                by_directory.setdefault(os.path.abspath(source.watched_directory), []).append(("", source))
            else:
                directory, name = os.path.split(os.path.abspath(source.path))
                by_directory.setdefault(directory, []).append((name, source))
        self._sources = by_directory
        self._interest.watch(by_directory)

    def _happened(self, directory: str, name: str) -> None:
        changed = {source for wanted, source in self._sources.get(directory, ()) if not name or wanted in ("", name)}
        if changed:
            self._changed(changed)

    def close(self) -> None:
        """Watch nothing any more."""
        self._interest.close()
