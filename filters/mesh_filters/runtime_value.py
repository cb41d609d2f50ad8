"""Values that the runtime may override: `RuntimeFeatureFlag`, `RuntimeDouble`, `RuntimePercent`, `RuntimeUInt32`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFlag:
    """On or off."""

    default: bool = True
    key: str = ""

    def read(self, runtime: Mapping[str, Any]) -> bool:
        """What holds now."""
        value = runtime.get(self.key) if self.key else None
        return value if isinstance(value, bool) else self.default


ON: Final = RuntimeFlag()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeNumber:
    """A number."""

    default: float
    key: str = ""

    def read(self, runtime: Mapping[str, Any]) -> float:
        """What holds now."""
        value = runtime.get(self.key) if self.key else None
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else self.default
