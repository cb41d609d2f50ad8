"""Load generators: wrk and h2load, with every error of the proxy turned into an exception."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness import programs
from harness.comparison import Turn

GRACE_S = 60.0
"""how much longer than its turn a generator may take"""
_WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "us": %d, "errors": %d, "p": [%d, %d, %d]}\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50),
    latency:percentile(99), latency:percentile(99.9)))
end
"""


def _run(command: list[str], seconds: float) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
    if ran.returncode:
        raise RuntimeError(f"{command[0]} ended with {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def wrk(url: str, connections: int, seconds: float, *, body_bytes: int = 0, headers: Mapping[str, str] | None = None) -> Turn:
    """Requests over HTTP/1.1 keep-alive connections (or what `headers` makes of them): GET, or POST with a body."""
    script = _WRK_REPORT
    if body_bytes:
        script = f'wrk.method = "POST"\nwrk.body = string.rep("x", {body_bytes})\n' + script
    for name, value in (headers or {}).items():
        script = f'wrk.headers["{name}"] = "{value}"\n' + script
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        text = _run(
            [programs.find("wrk", "wrk"), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", file.name, url],
            seconds,
        )
    seen = json.loads(text.strip().splitlines()[-1])
    if seen["errors"] or not seen["requests"]:
        raise RuntimeError(f"wrk saw errors:\n{text}")
    return Turn(seen["requests"], seen["us"] / 1e6, tuple(seen["p"]))


def h2load(
    url: str,
    point: str,
    seconds: float,
    *,
    http1: bool = False,
    headers: tuple[str, ...] = (),
    body: Path | None = None,
    rate: float | None = None,
) -> Turn:
    """Requests over HTTP/2 (or HTTP/1.1); a point is connections x streams. `rate` is of all connections, per second."""
    connections, streams = point.split("x")
    with tempfile.TemporaryDirectory(prefix="h2load-") as folder:
        log = Path(folder) / "log"
        command = [programs.find("h2load", "nghttp2-client"), "-c", connections, "-m", streams]
        command += ["-D", f"{round(seconds * 1000)}ms", "--log-file", str(log)]
        if http1:
            command.append("--h1")
        if rate is not None:
            command += ["--rps", f"{rate / int(connections):.3f}"]
        if body is not None:
            command += ["-d", str(body)]
        for header in headers:
            command += ["-H", header]
        text = _run([*command, url], seconds)
        took = sorted(int(line.rsplit("\t", 1)[1]) for line in log.read_text().splitlines())
    found = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    if found is None or int(found.group(3)) or int(found.group(4)) or int(found.group(5)) or found.group(1) != found.group(2):
        raise RuntimeError(f"h2load saw errors:\n{text}")
    done = int(found.group(1))
    if not done or not took:
        raise RuntimeError(f"h2load had no answer:\n{text}")
    return Turn(done, seconds, (_at(took, 0.5), _at(took, 0.99), _at(took, 0.999)))


def _at(took: list[int], share: float) -> float:
    return float(took[min(len(took) - 1, int(len(took) * share))])
