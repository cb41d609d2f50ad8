"""A resource as it is kept for people; free of protobuf, so that whoever only shows it need not import that."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from mesh_proxy.config.model.twin import Values


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceDump:
    """One resource for people: what `/config_dump` and `/config_digest` show of it."""

    type_url: str
    name: str
    version: str = ""
    """`version_info` of the file or control plane that it came from; empty for the bootstrap's own"""
    digest: str
    """SHA-256 of the resource's deterministic serialization, secrets included but not recoverable"""
    compressed: bytes
    """zlib of the JSON text"""

    @property
    def json(self) -> str:
        """Canonical proto JSON with proto field names."""
        return zlib.decompress(self.compressed).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapDump:
    """The bootstrap for people: its own fields, and the dumps of the listeners and clusters in it."""

    type_url: str
    name: str = ""
    version: str = ""
    digest: str
    """SHA-256 of what is no resource of its own"""
    frame: tuple[str, ...]
    """JSON text before, between and after the lists"""
    lists: tuple[tuple[ResourceDump | TwinDump, ...], ...]
    """what stands between, in this order"""

    @property
    def json(self) -> str:
        """Canonical proto JSON with proto field names."""
        texts = [f"[{','.join([one.json for one in inner])}]" for inner in self.lists]
        return "".join([part for pair in zip(self.frame, [*texts, ""], strict=True) for part in pair])


@dataclass(frozen=True, slots=True)
class Text:
    """Text with gaps, into which values go as JSON."""

    parts: tuple[str, ...]
    order: tuple[int, ...]
    """which value goes into each gap"""

    def filled(self, values: Values) -> str:
        """The text with these values."""
        filling: Iterable[str] = [*(json.dumps(values[place]) for place in self.order), ""]
        return "".join([part for pair in zip(self.parts, filling, strict=True) for part in pair])


@dataclass(frozen=True, slots=True)
class DumpPattern:
    """What the dumps of twins have in common."""

    type_url: str
    shown: Text
    """for people"""
    digested: Text
    """what is hashed"""


@dataclass(frozen=True, slots=True)
class TwinDump:
    """A resource that differs from another in a few values (`mesh_proxy.config.twins`)."""

    pattern: DumpPattern
    values: Values

    @property
    def type_url(self) -> str:
        """See ResourceDump."""
        return self.pattern.type_url

    @property
    def name(self) -> str:
        """See ResourceDump."""
        name: str = self.values[0]
        return name

    @property
    def version(self) -> str:
        """See ResourceDump."""
        return ""

    @property
    def digest(self) -> str:
        """See ResourceDump."""
        return hashlib.sha256(self.pattern.digested.filled(self.values).encode()).hexdigest()

    @property
    def json(self) -> str:
        """See ResourceDump."""
        return self.pattern.shown.filled(self.values)
