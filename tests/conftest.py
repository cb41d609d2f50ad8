"""For all tests."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from build_support import COMPILED, bound
from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: examples have no time limit of their own. MESH_PROXY_SAME_EXAMPLES=1 tries the same ones
# each time, as .ci/run does: what new ones find is no fault of the change at hand, and wants somebody who looks.
settings.register_profile(
    "patient",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("MESH_PROXY_SAME_EXAMPLES")),
)
settings.load_profile("patient")


class _MonkeyPatch(pytest.MonkeyPatch):
    """Compiled code is bound to its functions and constants when it is built: a test that replaces some is skipped."""

    def setattr(self, target: Any, *arguments: Any, **options: Any) -> None:
        if isinstance(target, str):
            place, _, name = target.rpartition(".")
            found = sys.modules.get(place) or pkgutil.resolve_name(place)
        else:
            found, name = target, arguments[0]
        if bound(found, name):
            pytest.skip("replaces what is compiled")
        super().setattr(target, *arguments, **options)


if COMPILED:

    @pytest.fixture
    def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
        """pytest's, for the compiled wheel."""
        patch = _MonkeyPatch()
        yield patch
        patch.undo()
