"""The tests, and what they start, are of the wheel that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys

from build_support import COMPILED, ROOT

import mesh_codecs.events

BUILD = "compiled" if COMPILED else "interpreted"


def test_this_process_is() -> None:
    """`make test-compiled` says what it wants."""
    assert str(mesh_codecs.events.__file__).endswith(".so") == COMPILED
    assert os.environ.get("MESH_PROXY_BUILD", BUILD) == BUILD


def test_started_processes_are() -> None:
    """Also where the sources lie about."""
    command = [sys.executable, "-m", "mesh_proxy", "--version"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"({BUILD})" in said
