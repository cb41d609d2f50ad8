"""What the comparison found: a table on the terminal, JSON, a chart."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness import programs
from harness.comparison import REFERENCE, Result, Series


def _output(command: list[str]) -> str:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return (ran.stdout or ran.stderr).strip().splitlines()[0] if (ran.stdout or ran.stderr).strip() else "unknown"


def circumstances(names: list[str]) -> dict[str, str]:
    """The machine, the versions and the commit."""
    found = {
        "processor": next(
            (
                line.partition(":")[2].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            platform.machine(),
        ),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "load average": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "commit": _output(["git", "-C", str(programs.ROOT), "rev-parse", "--short", "HEAD"]),
    }
    if "envoy" in names:
        found["envoy"] = next(
            (part for part in _output([programs.envoy_binary(), "--version"]).split("/") if part[:1].isdigit() and "." in part),
            "unknown",
        )
    if "nginx" in names:
        found["nginx"] = _output(["nginx", "-v"]).rpartition("/")[2]
    if "nghttpx" in names:
        found["nghttpx"] = _output(["nghttpx", "--version"]).rpartition("/")[2]
    return found


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _latency(series: Series, place: int) -> str:
    value = series.latency(place)
    return "" if value is None else f"{value / 1000:.2f}"


def show(results: list[Result], console: Console) -> None:
    """A line per program and point."""
    for name in dict.fromkeys(one.workload for one in results):
        mine = [one for one in results if one.workload == name]
        table = Table(title=name, title_justify="left")
        milliseconds = mine[0].unit == "GB"
        table.add_column("point")
        table.add_column("program")
        table.add_column(f"CPU {'ms' if milliseconds else 'us'}/{mine[0].unit}", justify="right")
        table.add_column(f"against {REFERENCE}", justify="right")
        for title in (f"{mine[0].unit}s/s", "p50 ms", "p99 ms", "p99.9 ms", "PSS MiB"):
            table.add_column(title, justify="right")
        for result in mine:
            point = result.point if result.paced_per_s is None else f"{result.point} at {result.paced_per_s:.0f}/s"
            for program, series in result.series.items():
                costs = [value / 1000 for value in series.cpu_us] if milliseconds else series.cpu_us
                ratios = result.ratios(program) if program != REFERENCE else []
                table.add_row(
                    point,
                    program,
                    _spread(costs, 0 if milliseconds else 1),
                    _spread(ratios, 2) if ratios else "",
                    f"{statistics.median(series.rates):.{2 if milliseconds else 0}f}",
                    *(_latency(series, place) for place in range(3)),
                    f"{series.pss_mib:.1f}",
                )
            table.add_section()
        console.print(table)


def to_json(results: list[Result], about: dict[str, str]) -> str:
    """Everything, every round."""
    return json.dumps({"circumstances": about, "results": [asdict(one) for one in results]}, indent=1) + "\n"


def chart(results: list[Result], about: dict[str, str], path: Path) -> None:
    """Bars of CPU per unit against Envoy, by workload and point; PNG or SVG by the file's name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = [one for one in results if one.paced_per_s is None and REFERENCE in one.series]
    labels = [f"{one.workload} {one.point}" for one in shown]
    names = [name for name in programs.PROGRAMS if name != REFERENCE and any(name in one.series for one in shown)]
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.24 * len(shown) * max(1, len(names))), layout="constrained")
    height = 0.8 / max(1, len(names))
    for index, name in enumerate(names):
        places, middles, low, high = [], [], [], []
        for place, one in enumerate(shown):
            ratios = one.ratios(name)
            if ratios:
                middle = statistics.median(ratios)
                places.append(place + index * height)
                middles.append(middle)
                low.append(middle - min(ratios))
                high.append(max(ratios) - middle)
        axes.barh(places, middles, height=height, xerr=(low, high), label=name, capsize=2)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks([place + height * (len(names) - 1) / 2 for place in range(len(shown))], labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"CPU per request, Envoy {about.get('envoy', '')} = 1 (less is better)")
    if names:
        axes.legend(loc="lower right")
    figure.savefig(path)
    pyplot.close(figure)
