"""The demo as a person runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh_proxy.cli import main
from mesh_proxy.demo.processes import free_port, is_free

START = [sys.executable, "-m", "mesh_proxy", "demo"]


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


def test_whether_a_port_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port() != port
    assert is_free(port)


@pytest.mark.slow
def test_once(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([*START, "--once", *ports()], capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "All as expected." in done.stdout
    assert re.search(r"x-version: v2 -> v2 +500  v2 +500 +100\.0%  v2 100%", done.stdout)
    assert re.search(r"dubbo\.tag: v2 -> v2 +800  v2 +800 +100\.0%  v2 100%", done.stdout)
    assert re.search(r"unknown service +100  sidecar +100 +100\.0%", done.stdout)
    assert "Dubbo calls by its counters: 2000, over 2 connections" in done.stdout
    assert re.search(r"gRPC, x-version: v2 +800  v2 +800 +100\.0%  v2 100%", done.stdout)
    assert re.search(r"gRPC, closed service +100  sidecar +100 +100\.0%", done.stdout)
    assert "gRPC calls by its counters: 2000" in done.stdout
    for denied in ("HTTP 403", "Dubbo error", "PERMISSION_DENIED"):
        assert re.search(rf"guest: {denied} +20  sidecar +20 +100\.0%", done.stdout)
    assert "Between the sidecars: 5700 requests and calls, all over mutual TLS and all by spiffe://demo.mesh/web." in done.stdout
    assert "Denied to spiffe://demo.mesh/guest: 60 of 60. In plain text or without a certificate nobody" in done.stdout
    assert re.search(r"Hot upgrade under load: \d+ requests over 4 connections, 0 failed, 0 connections made anew", done.stdout)
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
    assert found["denied_by_sidecar"] == 60
    assert set(found["memory_pss_bytes"]) == {"supervisor", "spawner", "worker 0", "worker 1"}


@pytest.mark.slow
def test_two_at_the_same_moment() -> None:
    """Without ports given: both want the usual ones, and neither may take the other's sidecar for its own.

    Both stay up until both were read, for one that ends at once leaves its ports to the other.
    """
    both = [subprocess.Popen([*START, "--requests", "300"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        found = {listens_on(process) for process in both}
        for process in both:
            process.send_signal(signal.SIGINT)
        assert [process.wait(20) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.communicate()
    assert len(found) == 2


def listens_on(process: subprocess.Popen[str]) -> str:
    """What it says of its addresses, after its table."""
    assert process.stdout is not None
    found = ""
    for line in process.stdout:
        if line.startswith("It listens on "):
            found = line
        elif line.startswith("Ctrl-C"):
            return found
    raise AssertionError("the demo ended by itself")


def fails(tmp_path: Path, *flags: str) -> str:
    """A demo that must fail and clean up; what it said."""
    done = subprocess.run(
        [*START, "--once", *flags], capture_output=True, text=True, timeout=120, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert left_over(str(tmp_path)) == []
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--listen-port", "--admin-port"])
def test_a_port_that_is_taken(tmp_path: Path, flag: str) -> None:
    """Also by a socket with SO_REUSEPORT, as that of another sidecar is."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"cannot bind 127.0.0.1:{port}: somebody listens there" in fails(tmp_path, flag, str(port))


@pytest.mark.slow
def test_a_sidecar_that_cannot_start(tmp_path: Path) -> None:
    port = str(free_port())
    said = fails(tmp_path, "--listen-port", port, "--admin-port", port)
    assert "the sidecar ended with exit code 1" in said
    assert f"cannot bind 127.0.0.1:{port}: Address already in use" in said


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
            with urllib.request.urlopen(found[1], timeout=30) as answer:
                assert re.fullmatch(r"GET /cart answered by v[12]\n", answer.read().decode())
        if line.endswith("# another identity: 403\n") and shutil.which("curl"):
            said = subprocess.run(line.partition("#")[0], shell=True, capture_output=True, text=True, timeout=60)
            assert said.stdout == "RBAC: access denied"
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
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
            break
    assert standing.wait(20) == 1
    assert standing.stderr is not None
    assert "sidecar ended by itself" in standing.stderr.read()
    assert list(tmp_path.iterdir()) == []
