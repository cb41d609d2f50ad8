"""Programs of other projects that tests need: found in one way, and missing in one way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRED = os.environ.get("MESH_PROXY_INTEROP") in ("required", "all")
"""`make interop`, `make interop-all` and `make conformance` say so: what is missing there is a failure"""
EVERYTHING = os.environ.get("MESH_PROXY_INTEROP") == "all"
"""`make interop-all`: every mix, and what takes minutes"""


def unavailable(reason: str) -> NoReturn:
    """Skips, or fails where nothing may be missing."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *, named_by: str = "", how: str = "") -> str:
    """The path of a program: from the environment variable `named_by`, from PATH, /usr/sbin or Go's folder."""
    go = Path(os.environ.get("GOPATH", Path.home() / "go")) / "bin"
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", str(go)))
    found = os.environ.get(named_by) if named_by else None
    found = found or shutil.which(name, path=places)
    if found is None:
        unavailable(f"{name} is not installed{': ' + how if how else ''}")
    return found
