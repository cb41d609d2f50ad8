"""Where a resource comes from that does not stand in the configuration which needs it (`envoy.config.core.v3.ConfigSource`)."""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_FETCH_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSource:
    """A file that holds a DiscoveryResponse (`PathConfigSource`)."""

    path: str
    watched_directory: str = ""
    """any entry that is moved into this directory has the file read again; empty: only a move to `path` itself"""
    initial_fetch_timeout_s: float | None = field(default=DEFAULT_FETCH_TIMEOUT_S, compare=False)
    """how long whoever needs the resource waits for its first good version; then he starts without. None = for ever"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A named resource that a listener or a cluster needs before it can be used."""

    kind: str
    """`rds`, `drds` or `eds`"""
    name: str
    source: ConfigSource
    stat_prefix: str = field(default="", compare=False)
    """of the subscription's statistics, with the last dot: `http.in.rds.local.`"""

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.source.path}"
