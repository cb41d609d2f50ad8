"""What the worker asks of malloc: counted by page faults, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Four pieces at a time, as when several connections are read in one turn of the loop; the first hundred turns may grow the heap.
PROGRAM = """
import ctypes
import resource
from mesh_proxy.worker.memory import keep_freed_memory
known = hasattr(ctypes.CDLL(None), "mallopt")
done = keep_freed_memory()
def turn():
    for _ in range(100):
        pieces = [b"x" * 256_000 for _ in range(4)]
        del pieces
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
turn()
print(known, done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment: str) -> tuple[bool, bool, int]:
    """Whether malloc can be set up, whether it was, and the page faults of 400 large pieces."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=kept | environment, capture_output=True, text=True, timeout=60, check=True
    )
    known, done, faults = ran.stdout.split()
    return known == "True", done == "True", int(faults)


@pytest.fixture(scope="module")
def tuned() -> tuple[bool, bool, int]:
    """As a worker does it."""
    found = run()
    if not found[0]:
        pytest.skip("this C library has no mallopt")
    return found


def test_large_pieces_come_from_memory_that_is_there(tuned: tuple[bool, bool, int]) -> None:
    _, done, faults = tuned
    assert done
    assert faults < 400  # a piece alone has 62 pages


@pytest.mark.parametrize(
    "setting", [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")]
)
def test_leaves_malloc_to_an_operator_who_has_set_it_up(setting: tuple[str, str], tuned: tuple[bool, bool, int]) -> None:
    _, done, faults = run(**dict([setting]))
    assert not done
    assert faults > tuned[2]
