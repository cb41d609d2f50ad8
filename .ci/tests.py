"""The tests as continuous integration runs them: `python .ci/tests.py [arguments of pytest]`, or `make test-ci`.

Of thousands of tests, many with several processes on a busy machine, one may fail that has nothing to do with the change at hand.
So if at most `MOST` failed they are named and run once more, by themselves. Those that pass then are unsteady: a fault of the
test or of the proxy all the same, to be mended (CONTRIBUTING.md). Everything else is a failure at once: more failures, an error
while tests are collected, an interruption, a crash; and so is a test that is skipped the second time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

MOST = 3
"""Failed tests that are run once more. More have a cause in common."""
TESTS_FAILED = 1
"""pytest's exit code when all tests ran, and some failed"""


def failed_tests(cache: Path) -> list[str]:
    """Node ids of what failed in the last run, errors of fixtures included; none if it did not come to its end."""
    path = cache / "v/cache/lastfailed"
    return sorted(json.loads(path.read_text())) if path.exists() else []


def passed_tests(report: Path) -> int:
    """How many tests a JUnit report calls passed: neither failed nor skipped."""
    if not report.exists():
        return 0
    return sum(not len([*one.iter("failure"), *one.iter("error"), *one.iter("skipped")]) for one in _cases(report))


def _cases(report: Path) -> list[ElementTree.Element]:
    return list(ElementTree.parse(report).getroot().iter("testcase"))


def once_more(exit_code: int, failed: list[str]) -> bool:
    """Whether a run that ended so deserves a second look."""
    return exit_code == TESTS_FAILED and 0 < len(failed) <= MOST


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="ci-tests-") as name:
        cache, report = Path(name) / "cache", Path(name) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
        exit_code = subprocess.run(command, check=False).returncode
        failed = failed_tests(cache)
        if not once_more(exit_code, failed):
            return exit_code
        names = "unsteady, tried once more: " + ", ".join(failed)
        print(f"\n{names}\n", flush=True)
        exit_code = subprocess.run([*command, "--last-failed", f"--junitxml={report}"], check=False).returncode
        if exit_code == 0 and passed_tests(report) != len(failed):
            exit_code = TESTS_FAILED  # skipped, or not found again
        print(f"\n{names}: {'they failed again' if exit_code else 'they passed'}", flush=True)
        return exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
