"""What was accepted, by where it came from. A feed is one kind of resource from one source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mesh_proxy.config.model.source import ConfigSource, Reference
from mesh_proxy.xds.resources import Fault, Resource, Response

FeedKey = tuple[str, ConfigSource]
"""(kind, source)"""


@dataclass(frozen=True, slots=True)
class Held:
    """A resource, and when it came."""

    resource: Resource
    updated_at: float
    """seconds since 1970"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What one feed gave, after its last good update. Versions of it are compared by identity."""

    version: str = ""
    held: Mapping[str, Held] = field(default_factory=lambda: MappingProxyType({}))
    loaded: bool = False
    """there was a good update"""

    def get(self, name: str) -> Held | None:
        """The resource of that name."""
        return self.held.get(name)


NOTHING: Final = Content()
Contents = Mapping[FeedKey, Content]


def key_of(reference: Reference) -> FeedKey:
    """The feed that a reference is about."""
    return reference.kind, reference.source


def merge(old: Content, response: Response, now: float, *, complete: bool) -> Content:
    """The content after a good response. A resource that did not change keeps its version and its time, and its very object,
    which is how everything later sees that nothing changed. `complete`: what is not in the response is gone (clusters,
    listeners)."""
    held: dict[str, Held] = {} if complete else dict(old.held)
    for resource in response.resources:
        before = old.held.get(resource.name)
        held[resource.name] = before if before is not None and before.resource.digest == resource.digest else Held(resource, now)
    return Content(version=response.version, held=held, loaded=True)


@dataclass(slots=True)
class Refusal:
    """The last update of a feed, if it was refused."""

    fault: Fault
    at: float
    """seconds since 1970"""
