"""Memory of a set of processes, from the kernel's books."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of one process."""

    name: str
    """its role"""
    pid: int
    pss: int
    """proportional set size: a page shared by n processes counts 1/n in each"""
    rss: int
    private: int
    """pages that only this process has written"""


def measure(processes: Iterable[tuple[str, int]]) -> list[ProcessMemory]:
    """(role, pid) -> memory; a process that is gone is left out."""
    found = []
    for name, pid in processes:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                fields = dict(line.split(":", 1) for line in file if line.endswith("kB\n"))
        except OSError:
            continue
        kilobytes = {key: int(value.split()[0]) * 1024 for key, value in fields.items()}
        found.append(
            ProcessMemory(name, pid, kilobytes.get("Pss", 0), kilobytes.get("Rss", 0), kilobytes.get("Private_Dirty", 0))
        )
    return found
