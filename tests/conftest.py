"""For all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
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


def _compiled(target: object) -> bool:
    """Whether a module, a class or a dotted name belongs to a compiled module (`compiled.toml`)."""
    if isinstance(target, str):
        while target and target not in sys.modules:
            target = target.rpartition(".")[0]
        module = sys.modules.get(target)
    else:
        module = target if isinstance(target, ModuleType) else sys.modules.get(getattr(target, "__module__", ""))
    return str(getattr(module, "__file__", "")).endswith(".so") and str(getattr(module, "__name__", "")).startswith("mesh_")


class _MonkeyPatch(pytest.MonkeyPatch):
    """Compiled code is bound to its functions and constants when it is built: a test that replaces some is skipped."""

    def setattr(self, target: Any, *arguments: Any, **options: Any) -> None:
        if _compiled(target):
            pytest.skip("replaces what is compiled")
        super().setattr(target, *arguments, **options)


_mesh = find_spec("mesh_codecs.events")
if _mesh is not None and str(_mesh.origin).endswith(".so"):

    @pytest.fixture
    def monkeypatch() -> Iterator[pytest.MonkeyPatch]:
        """pytest's, for the compiled wheel."""
        patch = _MonkeyPatch()
        yield patch
        patch.undo()
