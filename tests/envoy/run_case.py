"""Run single cases of the comparison with Envoy and show both sides whole.

    python tests/envoy/run_case.py NAME ...     raw answers, upstream's view and log of both sides, then the differences
    python tests/envoy/run_case.py --failing    every difference of every case, one line each: module case field Envoy ours
    python tests/envoy/run_case.py --grouped    the same differences of many cases in one line, the most frequent first
    python tests/envoy/run_case.py --list       the names

NAME is a case or MODULE::CASE. `MESH_PROXY_ENVOY` names the Envoy binary; `MESH_PROXY_UNDER_TEST=envoy` puts Envoy on both sides.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # what other tests use too

from parity import Case, Observation, Pair, StartError, Suite
from parity.compare import report


def suites() -> dict[str, Suite]:
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    return {name: module.SUITE for name in names if hasattr(module := importlib.import_module(name), "SUITE")}


def show(label: str, seen: Observation) -> None:
    print(f"──── {label} ({seen.seconds * 1000:.0f} ms)")
    for end, data in zip(seen.ends, seen.raw, strict=False):
        print("downstream received:")
        for line in data.decode("latin-1").split("\r\n"):
            print(f"  | {line}")
        print(f"  connection: {end}")
    for one in seen.received:
        print(f"upstream {one.endpoint} received ({one.outcome}, connection {one.connection}):")
        print(f"  | {one.method} {one.target} HTTP/{one.version}")
        for name, value in one.headers:
            print(f"  | {name}: {value}")
        if one.body or one.trailers:
            print(f"  body {one.body[:300]!r} trailers {one.trailers}")
    for name, data in seen.tcp:
        print(f"upstream {name} received {data[:300]!r}")
    for key, value in seen.notes.items():
        print(f"note {key}: {value}")
    for line in seen.log:
        print(f"log: {line}")


def one_line(value: str) -> str:
    return value.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")[:160]


Groups = dict[tuple[str, str, str], list[str]]


def run_module(name: str, suite: Suite, cases: list[Case], verbose: bool, most: int, groups: Groups | None) -> int:
    pair = Pair(suite)
    bad = 0
    try:
        pair.start()
    except StartError as error:
        if suite.optional and error.refused:
            print(f"{name}: skipped, {suite.optional}")
            return 0
        print(f"{name}: {error}")
        return len(cases)
    try:
        for case in cases:
            try:
                seen, _, wrong, found = pair.run(case)
            except Exception as error:  # a case must not hide the others
                print(f"{name}\t{case.name}\tharness\t-\t{type(error).__name__}: {error}")
                bad += 1
                continue
            bad += bool(wrong or found)
            if groups is not None:
                for path, envoy, ours in found:
                    groups.setdefault((path, one_line(envoy), one_line(ours)), []).append(case.name)
            elif verbose:
                for side, one in zip(pair.sides, seen, strict=True):
                    show(side.label, one)
                print("".join(f"NOT AS WRITTEN {line}\n" for line in wrong) + report(case.name, found))
            else:
                for line in wrong:
                    print(f"{name}\t{case.name}\tNOT AS WRITTEN {line}")
                for path, envoy, ours in found[:most]:
                    print(f"{name}\t{case.name}\t{path}\t{one_line(envoy)}\t{one_line(ours)}")
                if len(found) > most:
                    print(f"{name}\t{case.name}\t… {len(found) - most} more")
    finally:
        pair.stop()
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="case, module::case, or a pattern with *")
    parser.add_argument("--failing", action="store_true")
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--most", type=int, default=6, help="lines per case with --failing")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    found = suites()
    if options.list:
        for module, suite in found.items():
            print("\n".join(f"{module}::{case.name}" for case in suite.cases))
        return 0
    bad = total = 0
    groups: Groups | None = {} if options.grouped else None
    for module, suite in found.items():
        cases = [
            c
            for c in suite.cases
            if not options.names or any(fnmatchcase(f"{module}::{c.name}", n) or fnmatchcase(c.name, n) for n in options.names)
        ]
        if cases:
            total += len(cases)
            bad += run_module(module, suite, cases, verbose=not options.failing, most=options.most, groups=groups)
    for (path, envoy, ours), names in sorted((groups or {}).items(), key=lambda item: -len(item[1])):
        shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        print(f"{len(names)}\t{path}\t{envoy}\t{ours}\t{shown}")
    print(f"{total - bad} of {total} cases agree")
    return 1 if bad or not total else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has seen enough
