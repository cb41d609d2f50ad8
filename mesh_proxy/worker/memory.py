"""Settings of glibc's malloc, so that the pieces of large bodies come from memory that the worker already has.

uvloop reads up to 256,000 bytes at a time and makes a bytes object of them, which lives until it is written. As delivered, malloc
gives the top of the heap back to the kernel as soon as 256 or 512 KiB of it are free: after almost every such piece. The
next one then asks for that memory again, and each of its pages costs a fault and is cleared by the kernel. That was a third
of what a large body cost.
"""

from __future__ import annotations

import os
from typing import Final

MMAP_THRESHOLD: Final = 1 << 20
"""bytes from which on an allocation is a mapping of its own; below it are the reads of a transport, some of them joined"""
TRIM_THRESHOLD: Final = 8 << 20
"""bytes free at the top of the heap that a worker keeps: eight bodies of 1 MiB whose endpoints have not taken them yet"""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_OWN_SETTINGS: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory() -> bool:
    """Set both thresholds for this process. False where malloc is another one, or was set up by the environment."""
    if any(name in os.environ for name in _OWN_SETTINGS) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    # Each ends malloc's adjusting of both, so one alone would leave the other at its first value of 128 KiB.
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD))
