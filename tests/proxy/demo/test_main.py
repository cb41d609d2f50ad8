"""The demo as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh_proxy.cli import main
from mesh_proxy.demo.processes import port_or_free

START = [sys.executable, "-m", "mesh_proxy", "demo"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ports() -> list[str]:
    """Own ports, so that demos at the same time do not meet."""
    return ["--listen-port", str(free_port()), "--admin-port", str(free_port())]


def left_over(folder: str) -> list[str]:
    """The command lines of processes that belong to a demo with this folder."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                command = (one / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if folder in command:
                found.append(command)
    return found


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--requests", "0"], "'0' is not a number from 10 to 1000000"),
        (["--connections", "x"], "'x' is not a number from 1 to 256"),
        (["--twice"], "unrecognized arguments: --twice"),
    ],
)
def test_a_wrong_flag(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["demo", *flags])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        wanted = taken.getsockname()[1]
        assert port_or_free(wanted) != wanted
    assert port_or_free(wanted) == wanted


@pytest.mark.slow
def test_once(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([*START, "--once", *ports()], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "All as expected." in done.stdout
    assert re.search(r"x-version: v2 -> v2 +500  v2 +500 +100\.0%  v2 100%", done.stdout)
    assert list(tmp_path.iterdir()) == []
    assert left_over(str(tmp_path)) == []


@pytest.mark.slow
def test_json() -> None:
    done = subprocess.run(
        [*START, "--once", "--json", "--requests", "200", "--concurrency", "2", *ports()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["ok"], found["requests_counted_by_sidecar"], found["retries"]) == (True, 200, 10)
    assert set(found["memory_pss_bytes"]) == {"supervisor", "spawner", "worker 0", "worker 1"}


@pytest.mark.slow
def test_a_sidecar_that_cannot_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*START, "--once", "--listen-port", str(port), "--admin-port", str(free_port())],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
    assert done.returncode == 1
    assert f"cannot bind 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_over(str(tmp_path)) == []


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that stays up, past its table."""
    process = subprocess.Popen(
        [*START, "--requests", "50", *ports()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_until_told_to_end(standing: subprocess.Popen[str], number: signal.Signals, tmp_path: Path) -> None:
    assert standing.stdout is not None
    for line in standing.stdout:
        if found := re.match(r"  curl (http://\S+/cart) ", line):
            with urllib.request.urlopen(found[1], timeout=5) as answer:
                assert re.fullmatch(r"GET /cart answered by v[12]\n", answer.read().decode())
        if line.startswith("Ctrl-C"):
            break
    assert list(tmp_path.iterdir()) != []
    standing.send_signal(number)
    assert standing.wait(20) == 0
    assert list(tmp_path.iterdir()) == []
    assert left_over(str(tmp_path)) == []


@pytest.mark.slow
def test_it_says_when_the_sidecar_is_gone(standing: subprocess.Popen[str], tmp_path: Path) -> None:
    assert standing.stdout is not None
    for line in standing.stdout:
        if found := re.match(r"Admin interface for the browser: (\S+)", line):
            request = urllib.request.Request(found[1] + "quitquitquit", method="POST")
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
            break
    assert standing.wait(20) == 1
    assert standing.stderr is not None
    assert "sidecar ended by itself" in standing.stderr.read()
    assert list(tmp_path.iterdir()) == []
