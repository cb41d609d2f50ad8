"""Rotation: secrets whose files changed are read again, checked, and given to the workers.

What cannot be used (half a file, a key that does not fit, an expired certificate) changes nothing: the secret before it stays, a
counter and a log line say so, and the next change is looked at again. There is no moment without a secret, and no way from here
to plain text.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, Final

from mesh_proxy.config.errors import ConfigError, veiled
from mesh_proxy.config.model.tls import SecretConfig
from mesh_proxy.notifier import Notifier
from mesh_proxy.stats.group import StatGroup, sanitize
from mesh_proxy.tasks import create_task
from mesh_proxy.tls.directories import DirectoryWatch
from mesh_proxy.tls.reading import Signature, check_secret, read_files, signature

_log = logging.getLogger("secret")

READ_TIMEOUT_S: Final = 20.0
"""for the process that reads a file of SDS"""


class SecretStats(StatGroup):
    """`sds.<name>.*`, with Envoy's names."""

    COUNTERS: ClassVar[tuple[str, ...]] = (
        "update_attempt",
        "update_success",
        "update_rejected",
        "update_failure",
        "key_rotation_failed",
    )
    __slots__ = COUNTERS

    update_attempt: int
    update_success: int
    update_rejected: int
    update_failure: int
    key_rotation_failed: int


class _Watched:
    """One secret with its files."""

    __slots__ = ("refused", "secret", "seen", "stats", "updated_at")

    def __init__(self, secret: SecretConfig, stats: SecretStats) -> None:
        assert secret.source is not None
        self.secret = secret
        """the newest good version"""
        self.stats = stats
        self.seen: Signature = signature(secret.source)
        """of the files when they were looked at last"""
        self.refused: tuple[float, str] | None = None
        """when and why, if the last version was not good"""
        self.updated_at: float | None = None
        """when the newest good version came, in seconds since 1970; None: it is the first"""


class SecretRotation:
    """One per supervisor that has secrets in files."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        notifier: Notifier,
        apply: Callable[[tuple[SecretConfig, ...]], Awaitable[None]],
        publish: Callable[[StatGroup], None],
    ) -> None:
        self._apply = apply
        self._publish = publish
        self._watched: dict[str, _Watched] = {}
        self._directories = DirectoryWatch(loop, notifier, self._look)
        self._task: asyncio.Task[None] | None = None
        self._look_again = False

    def watch(self, secrets: Iterable[SecretConfig]) -> None:
        """Watch exactly those of these that come from files."""
        wanted = {secret.name: secret for secret in secrets if secret.source is not None}
        for name in self._watched.keys() - wanted.keys():
            del self._watched[name]
        for name, secret in wanted.items():
            if name not in self._watched:
                stats = SecretStats(f"sds.{sanitize(secret.label or name)}.")
                self._publish(stats)
                self._watched[name] = _Watched(secret, stats)
        self._watch_directories()

    def _watch_directories(self) -> None:
        sources = (watched.secret.source for watched in self._watched.values())
        self._directories.watch({directory for source in sources if source is not None for directory in source.directories})

    @property
    def newest(self) -> tuple[SecretConfig, ...]:
        """The newest good version of each."""
        return tuple(watched.secret for watched in self._watched.values())

    @property
    def refused(self) -> dict[str, tuple[float, str]]:
        """Name → (seconds since 1970, why) of those whose last version was not good."""
        return {name: one.refused for name, one in self._watched.items() if one.refused is not None}

    @property
    def updated(self) -> dict[str, float]:
        """Name → when a new version came."""
        return {name: one.updated_at for name, one in self._watched.items() if one.updated_at is not None}

    def _look(self) -> None:
        self._look_again = True
        if self._task is None:
            self._task = create_task(self._run(), name="secrets")

    async def _run(self) -> None:
        try:
            while self._look_again:
                self._look_again = False
                changed = [await self._refresh(watched) for watched in tuple(self._watched.values())]
                if any(changed):
                    self._watch_directories()
                    try:
                        await self._apply(self.newest)
                    except ConfigError as error:
                        _log.error("a worker does not take the new secrets: %s", error)
        finally:
            self._task = None

    async def _refresh(self, watched: _Watched) -> bool:
        source = watched.secret.source
        assert source is not None
        now = signature(source)
        if now == watched.seen:
            return False
        response_changed = bool(source.sds_path) and now[:1] != watched.seen[:1]
        watched.seen = now
        stats, label = watched.stats, watched.secret.label or watched.secret.name
        stats.update_attempt += 1
        try:
            fresh = await _read_response(watched.secret) if response_changed else read_files(watched.secret)
            check_secret(fresh)
        except ValueError as error:
            stats.update_rejected += 1
            watched.refused = (time.time(), veiled(str(error)))
            if not response_changed:
                stats.key_rotation_failed += 1
            _log.error("secret %s: %s; the one before it stays", label, veiled(str(error)))
            return False
        except OSError as error:
            stats.update_failure += 1
            watched.refused = (time.time(), f"cannot be read: {error}")
            _log.error("secret %s cannot be read: %s; the one before it stays", label, error)
            return False
        assert fresh.source is not None
        if fresh.source != source:
            watched.seen = signature(fresh.source)
        watched.refused = None
        if fresh == watched.secret:
            return False
        watched.secret = fresh
        watched.updated_at = time.time()
        stats.update_success += 1
        _log.info("secret %s: a new version", label)
        return True

    def close(self) -> None:
        """Watch nothing any more."""
        self._directories.close()
        if self._task is not None:
            self._task.cancel()


async def _read_response(secret: SecretConfig) -> SecretConfig:
    """From a file of SDS, by a process that ends afterwards. Raises ValueError and OSError."""
    source = secret.source
    assert source is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mesh_proxy.tls.reading",
        source.sds_path,
        source.directories[0],
        secret.label,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise OSError("reading takes too long") from None
    if process.returncode or not output:
        raise OSError(f"the process that reads it ended with {process.returncode}")
    outcome = pickle.loads(output)
    if isinstance(outcome, str):
        raise ValueError(outcome)
    assert isinstance(outcome, SecretConfig)
    return outcome
