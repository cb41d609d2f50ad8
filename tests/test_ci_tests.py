"""`.ci/tests.py`: what is run once more, and what that makes of the whole run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "tests.py"
_spec = importlib.util.spec_from_file_location("ci_tests", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
ci_tests = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ci_tests)


@pytest.mark.parametrize(
    ("exit_code", "failed", "expected"),
    [
        (0, 0, False),
        (1, 1, True),
        (1, 3, True),
        (1, 4, False),
        (1, 0, False),  # it ended before it could say what failed
        (2, 1, False),  # interrupted, or errors while collecting
        (3, 1, False),
        (5, 0, False),
        (-11, 1, False),
    ],
)
def test_what_is_tried_once_more(exit_code: int, failed: int, expected: bool) -> None:
    assert ci_tests.once_more(exit_code, [f"test_{n}" for n in range(failed)]) is expected


GOOD = "def test_good(): pass\n"
UNSTEADY = """
from pathlib import Path
def test_unsteady():
    seen = Path("seen")
    if not seen.exists():
        seen.touch()
        assert False
"""
SETUP = """
import pytest
from pathlib import Path
@pytest.fixture
def broken():
    seen = Path("seen")
    if not seen.exists():
        seen.touch()
        raise OSError
def test_unsteady(broken): pass
"""
SKIPPED = UNSTEADY.replace("assert False", "assert False\n    import pytest; pytest.skip('gone')")
FEW = "import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test_bad(n): assert False\n"
CRASH = "import os\ndef test_crash(): os._exit(1)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected", "runs"),
    [
        (GOOD + UNSTEADY, 0, 2),
        (GOOD + SETUP, 0, 2),
        (SKIPPED, 1, 2),
        (FEW, 1, 2),
        (FEW.replace("3", "4"), 1, 1),
        (CRASH, 1, 1),
    ],
)
def test_whole_runs(tmp_path: Path, text: str, expected: int, runs: int) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(text)
    command = [sys.executable, str(SCRIPT), "-q"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # quicker
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    assert ("unsteady, tried once more: test_it.py::test_" in done.stdout) is (runs == 2)
