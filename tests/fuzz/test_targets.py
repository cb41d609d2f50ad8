"""Each fuzz target on its seeds and on a few mutations: the long runs are `make fuzz`."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import fuzz_dubbo
import fuzz_http2
from fuzz_harness import Program

MUTATIONS = 300
CASES = [(program, target) for program in (fuzz_dubbo.PROGRAM, fuzz_http2.PROGRAM) for target in program.targets]


@pytest.mark.parametrize(("program", "target"), CASES, ids=[target for _, target in CASES])
def test_target(program: Program, target: str) -> None:
    check = program.targets[target]
    for data in program.seeds(target):
        check(data)
    for data in islice(program.mutations(target, seed=7), MUTATIONS):
        check(data)
