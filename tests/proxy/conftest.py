"""Fixtures of several rooms."""

from __future__ import annotations

import pytest

from mesh_proxy.network import original_source
from mesh_proxy.network.original_source import SourceKeeper


@pytest.fixture
def no_rights_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of this machine can be bound to by everybody."""
    monkeypatch.setattr(original_source, "make_transparent", lambda sock: None)
    monkeypatch.setattr(SourceKeeper, "missing", lambda self: "")
