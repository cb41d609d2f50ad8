"""Where a provider's keys come from: the configuration, or another server, asked when they are needed and kept for a while."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_codecs.headers import Headers
from mesh_filters.definition import FilterContext
from mesh_filters.jwt_keys import KeySet
from mesh_filters.service import ServiceError

MAX_KEYS_BYTES: Final = 1024 * 1024
"""a longer answer is no set of keys"""
BEFORE_EXPIRY_S: Final = 5.0
"""keys that are fetched in advance are fetched so long before the old ones expire"""
UNKNOWN_KEY_INTERVAL_S: Final = 5.0
"""a token with a key that we do not have is a reason to fetch the keys anew, so often at most: anybody can send one"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteKeysConfig:
    """`RemoteJwks`."""

    cluster: str
    authority: str
    path: str
    scheme: str = "http"
    timeout_s: float = 5.0
    cache_s: float = 600.0
    in_advance: bool = False
    """`async_fetch`: fetched at the start and before they expire, not when a request needs them"""
    failed_refetch_s: float = 1.0
    retries: int = 0
    retry_base_s: float = 1.0


class KeysNeeded(Exception):
    """Nothing can be said before these keys were fetched."""

    def __init__(self, source: RemoteKeys) -> None:
        super().__init__()
        self.source = source


class LocalKeys:
    """Keys that stand in the configuration."""

    __slots__ = ("keys",)

    def __init__(self, text: bytes) -> None:
        self.keys = KeySet(text)

    def current(self) -> KeySet | None:
        """The keys."""
        return self.keys

    def may_be_old(self) -> bool:
        """They are what they are."""
        return False


class RemoteKeys:
    """Keys of another server, as this worker has them."""

    __slots__ = ("__weakref__", "_config", "_context", "_expires", "_fetched", "_retry_at", "_stats", "_task", "keys")

    def __init__(self, config: RemoteKeysConfig, context: FilterContext, stats: Any) -> None:
        self._config = config
        self._context = context
        self._stats = stats
        self.keys: KeySet | None = None
        self._expires = 0.0
        self._fetched = float("-inf")
        self._retry_at = 0.0
        self._task: asyncio.Task[Any] | None = None
        if config.in_advance:
            _later(self, context, 0.0)

    def current(self) -> KeySet | None:
        """The keys; None when they could not be had a moment ago.

        Raises:
            KeysNeeded: they have to be fetched first.
        """
        now = self._context.now()
        if self.keys is not None and (now < self._expires or self._config.in_advance):
            return self.keys
        if now < self._retry_at:
            return None
        raise KeysNeeded(self)

    def may_be_old(self) -> bool:
        """Whether the server may have other keys by now, and may be asked."""
        now = self._context.now()
        return now >= self._fetched + UNKNOWN_KEY_INTERVAL_S and now >= self._retry_at

    async def fetch(self) -> None:
        """Fetch them, once for all who wait. How it went is seen by `current`."""
        task = self._task
        if task is None:
            task = self._task = self._context.start_task(self._fetch(), f"keys from {self._config.cluster}")
        await asyncio.wait({task})

    async def _fetch(self) -> None:
        config, context = self._config, self._context
        try:
            for attempt in range(config.retries + 1):
                if attempt:
                    await asyncio.sleep(config.retry_base_s * 2 ** (attempt - 1))
                self._fetched = context.now()
                keys = await self._ask()
                if keys is not None:
                    self.keys = keys
                    self._expires = context.now() + config.cache_s
                    self._retry_at = 0.0
                    self._stats.jwks_fetch_success += 1
                    return
            self._stats.jwks_fetch_failed += 1
            self._retry_at = context.now() + config.failed_refetch_s
        finally:
            self._task = None
            if config.in_advance:
                failed = self._retry_at > context.now()
                _later(self, context, config.failed_refetch_s if failed else max(config.cache_s - BEFORE_EXPIRY_S, 1.0))

    async def _ask(self) -> KeySet | None:
        config, context = self._config, self._context
        headers = Headers([(b"x-envoy-internal", b"true"), (b"x-forwarded-for", context.local_ip)])
        path, authority = config.path.encode(), config.authority.encode()
        request = RequestHeaders(0, b"GET", config.scheme.encode(), authority, path, headers, True)
        try:
            answer = await context.call_service(
                config.cluster, request, b"", timeout_s=config.timeout_s, max_bytes=MAX_KEYS_BYTES
            )
            return KeySet(answer.body) if answer.status == 200 else None
        except (ServiceError, ValueError):
            return None


def _later(source: RemoteKeys, context: FilterContext, seconds: float) -> None:
    """Fetch then, unless nobody uses the source any more."""
    context.call_later(seconds, _fetch_if_alive, weakref.ref(source), context)


def _fetch_if_alive(reference: weakref.ref[RemoteKeys], context: FilterContext) -> None:
    source = reference()
    if source is not None:
        context.start_task(source.fetch(), "keys in advance")
