"""What all fuzz programs share: running under atheris or by mutations, saved inputs, and the bound on memory.

A program has targets: functions of the input that raise when something does not hold.

    python tests/fuzz/fuzz_X.py TARGET [options of atheris ...]     with atheris (`make fuzz` installs it and runs all)
    python tests/fuzz/fuzz_X.py TARGET --seconds 60 [--seed 1]      without it: mutations of good and bad inputs
    python tests/fuzz/fuzz_X.py TARGET --replay FILE ...            saved inputs (or directories of them) again
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import tracemalloc
import types
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Target = Callable[[bytes], object]

MEMORY_FACTOR = 64
MEMORY_BASE = 256 * 1024
INSTRUMENTED = 4
"""Code instrumented by atheris has larger frames: so many times as much is allowed there, and the inputs that it found are
tried again without it."""
MEMORY_EVERY = 16
"""Tracing memory makes everything slower, so one input in so many is traced: which depends on the input alone."""


def bound_memory(run: Target, data: bytes) -> None:
    """At its peak, taking in so many bytes takes at most MEMORY_FACTOR times as many, and MEMORY_BASE."""
    if zlib.crc32(data) % MEMORY_EVERY:
        return
    run(data)  # once before: what is made once and kept does not count
    tracemalloc.start()
    try:
        run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    limit = MEMORY_FACTOR * len(data) + MEMORY_BASE
    if "atheris" in sys.modules:
        limit *= INSTRUMENTED
    assert peak <= limit, f"{len(data)} bytes of input took {peak} bytes of memory, more than {limit}"


def cuts(data: bytes) -> list[list[bytes]]:
    """The input whole, byte by byte, and in steps that depend on it."""
    step = data[0] % 40 + 1 if data else 1
    return [[data[n : n + size] for n in range(0, len(data), size)] for size in (max(len(data), 1), step, 1)]


def mutate(data: bytes, pool: list[bytes], symbols: bytes, chooser: random.Random) -> bytes:
    """A few random changes. `symbols` are bytes that mean something."""
    changed = bytearray(data)
    for _ in range(chooser.choice((1, 1, 2, 3, 8))):
        at = chooser.randrange(len(changed) + 1)
        kind = chooser.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] = chooser.randrange(256)
        elif kind == 1:
            changed.insert(at, chooser.choice(symbols))
        elif kind == 2:
            del changed[at : at + chooser.randrange(1, 9)]
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            other = chooser.choice(pool)
            start = chooser.randrange(len(other) + 1)
            changed[at:at] = other[start : start + chooser.randrange(1, 60)]
        elif changed:
            start = at % len(changed)
            changed[at:at] = changed[start : start + chooser.randrange(1, 40)]
    return bytes(changed)


class Program:
    """One fuzz program."""

    def __init__(self, targets: dict[str, Target], seeds: Callable[[str], list[bytes]], symbols: bytes) -> None:
        self.targets = targets
        self.seeds = seeds
        self._symbols = symbols

    def main(self, arguments: list[str]) -> int:
        """The command line."""
        if not arguments or arguments[0] not in self.targets:
            print(f"{__doc__}\nTargets: {', '.join(self.targets)}")
            return 2
        target, *rest = arguments
        if rest[:1] == ["--replay"]:
            for path in map(Path, rest[1:]):
                for one in sorted(path.iterdir()) if path.is_dir() else [path]:
                    try:
                        self.targets[target](one.read_bytes())
                    except BaseException:
                        print(f"failed: {one}")
                        raise
            return 0
        if rest[:1] == ["--seconds"]:
            self.run_mutations(target, float(rest[1]), int(rest[3]) if rest[2:3] == ["--seed"] else 1)
            return 0
        return self._run_atheris(target, rest)

    def run_mutations(self, target: str, seconds: float, seed: int) -> None:
        """Mutations of the seeds until the time is up; an input that fails is written to a file."""
        check = self.targets[target]
        end = time.monotonic() + seconds
        count = 0
        for data in self.mutations(target, seed):
            if time.monotonic() > end:
                break
            try:
                check(data)
            except BaseException:
                Path(f"crash-{target}").write_bytes(data)
                print(f"failed after {count} inputs; the input is in crash-{target}: {data.hex()}")
                raise
            count += 1
        print(f"{target}: {count} inputs in {seconds:.0f} s, nothing found")

    def mutations(self, target: str, seed: int) -> Iterator[bytes]:
        """Without an end."""
        chooser = random.Random(seed)
        pool = self.seeds(target)
        while True:
            yield mutate(chooser.choice(pool), pool, self._symbols, chooser)

    def _run_atheris(self, target: str, options: list[str]) -> int:
        try:
            import atheris
        except ImportError:
            print("atheris is not installed (pip install --group fuzz): use --seconds for mutations without it")
            return 2
        _instrument(atheris)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            if not any(not option.startswith("-") for option in options):
                options = [*options, name]
            corpus = Path(next(option for option in options if not option.startswith("-")))
            if corpus.is_dir():
                for number, seed in enumerate(self.seeds(target)):
                    (corpus / f"seed-{number}").write_bytes(seed)
            atheris.Setup([sys.argv[0], *options], self.targets[target])
            atheris.Fuzz()
        return 0


def _instrument(atheris: Any) -> None:
    """Only the codecs: what else runs tells the fuzzer nothing."""
    for name, module in tuple(sys.modules.items()):
        if name.startswith("mesh_codecs"):
            classes = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name]
            for holder in (module, *classes):
                for member in tuple(vars(holder).values()):
                    if isinstance(member, types.FunctionType) and member.__module__ == name:
                        atheris.instrument_func(member)
