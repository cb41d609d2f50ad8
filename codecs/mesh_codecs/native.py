"""What mypyc is told about classes of the compiled build (docs/building.md). Nothing at run time, and so no dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**_attributes):
        """A decorator that leaves the class as it is."""
        return lambda found: found
