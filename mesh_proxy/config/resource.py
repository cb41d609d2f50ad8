"""A resource as it is kept for people; free of protobuf, so that whoever only shows it need not import that."""

from __future__ import annotations

import zlib
from dataclasses import dataclass


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
