"""Supervisor, spawner and workers as real processes."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Start = Callable[..., Any]


def listener(port: int, **extra: Any) -> dict[str, Any]:
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "echo",
        "cluster": "back",
    }
    return {
        "name": "echo",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
        **extra,
    }


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_serve_and_import_nothing_heavy(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "2").wait_live()
    first = proxy.connect_to_worker(("127.0.0.1", port), 0)
    second = proxy.connect_to_worker(("127.0.0.1", port), 1)
    assert first.pid != second.pid
    assert first.ask("hello") == "hello"
    assert second.ask("modules") == ""
    assert len(proxy.children()) == 3, "spawner and two workers"
    libraries = Path(f"/proc/{proxy.process.pid}/maps").read_text()
    assert "uvloop" in libraries
    assert "upb" not in libraries, "protobuf was needed to load, in a process that is gone"


def test_a_killed_worker_is_replaced_and_the_other_is_not_disturbed(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "2").wait_live()
    address = ("127.0.0.1", port)
    victim = proxy.connect_to_worker(address, 0)
    bystander = proxy.connect_to_worker(address, 1)
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    # Every new connection is answered: what lands in the dead worker's accept queue waits for its successor.
    replacement = proxy.connect_to_worker(address, 0)
    took = time.monotonic() - began
    assert replacement.pid != victim.pid
    assert took < 10.0, f"serving again after {took:.3f} s"
    assert bystander.ask("still here") == "still here"
    assert victim.file.read() == b""


def test_repeated_deaths_back_off_but_serving_goes_on(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1").wait_live()
    address = ("127.0.0.1", port)
    for _ in range(3):
        proxy.connect(address).socket.sendall(b"crash\n")
        proxy.until("dead", lambda n=_ + 1: proxy.log.count("replacing it") == n)
    assert "replacing it in 0.0 s" in proxy.log
    assert "replacing it in 0.2 s" in proxy.log
    assert proxy.connect(address).ask("again") == "again"


def test_sigterm_drains_and_exits_with_0(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1").wait_live()
    connection = proxy.connect(("127.0.0.1", port))
    proxy.process.send_signal(signal.SIGTERM)
    assert connection.file.readline() == b"draining\n"
    proxy.until("refused", lambda: refused(port))
    assert connection.ask("still served") == "still served"
    assert proxy.process.poll() is None
    connection.close()
    assert proxy.wait_exit() == 0


def ended(connection: Any) -> bool:
    """Closed or reset by the other side."""
    try:
        return bool(connection.file.read() == b"")
    except ConnectionResetError:
        return True


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_sigterm_cuts_at_the_deadline(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1", "--drain-time-s", "1").wait_live()
    connection = proxy.connect(("127.0.0.1", port))
    proxy.process.send_signal(signal.SIGTERM)
    assert connection.file.readline() == b"draining\n"
    assert proxy.wait_exit() == 0
    assert "cut at the drain deadline" in proxy.log


def test_sigint_stops_at_once(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "2").wait_live()
    connection = proxy.connect(("127.0.0.1", port))
    below = proxy.children()
    proxy.process.send_signal(signal.SIGINT)
    assert proxy.wait_exit() == 0
    assert ended(connection)
    assert not any(alive(pid) for pid in below)


def test_a_terminal_interrupt_reaches_the_whole_group_and_only_the_supervisor_acts(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "2").wait_live()
    for pid in proxy.children():
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGUSR1)
    proxy.process.send_signal(signal.SIGHUP)
    assert proxy.connect(("127.0.0.1", port)).ask("here") == "here"


def test_a_killed_supervisor_takes_spawner_and_workers_along(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "2").wait_live()
    connection = proxy.connect(("127.0.0.1", port))
    below = proxy.children()
    assert len(below) == 3
    proxy.process.kill()
    assert connection.file.readline() == b"draining\n", "workers finish what they have"
    connection.close()
    proxy.until("all gone", lambda: not any(alive(pid) for pid in below))


def test_a_killed_spawner_ends_everything(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1").wait_live()
    below = proxy.children()
    spawner = int(Path(f"/proc/{proxy.process.pid}/task/{proxy.process.pid}/children").read_text())
    os.kill(spawner, signal.SIGKILL)
    assert proxy.wait_exit() == 1
    proxy.until("all gone", lambda: not any(alive(pid) for pid in below))


def test_no_descriptor_leaks_into_a_worker_or_piles_up_in_the_supervisor(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1").wait_live()
    address = ("127.0.0.1", port)

    def descriptors(pid: int) -> list[str]:
        found = []
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.append(os.readlink(fd).partition(":")[0])
            except OSError:
                pass
        return sorted(found)

    first = proxy.connect(address)
    worker_before, supervisor_before = descriptors(first.pid), descriptors(proxy.process.pid)
    first.socket.sendall(b"crash\n")
    second = proxy.until("replaced", lambda: (c := proxy.connect(address)).pid != first.pid and c)
    proxy.until("same again", lambda: descriptors(second.pid) == worker_before)
    proxy.until("same again", lambda: descriptors(proxy.process.pid) == supervisor_before)


def test_a_worker_that_does_not_start_is_an_error_not_a_loop(start_proxy: Start, port: int) -> None:
    proxy = start_proxy([listener(port)], "--concurrency", "1", env={"ECHO_DIE_AT_START": "1"})
    assert proxy.wait_exit() == 1
    assert "worker 0 does not start (exit code 3, 3 times)" in proxy.log
    assert "Traceback" not in proxy.log


def test_bind_conflict_is_one_readable_line(start_proxy: Start, port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        proxy = start_proxy([listener(port)], "--concurrency", "2")
        assert proxy.wait_exit() == 1
    assert f"listeners[0].address: cannot bind 127.0.0.1:{port}: Address already in use" in proxy.log
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "bootstrap.json is not valid JSON"),
        ('{"static_resources": {"listeners": [{"nme": "x"}]}}', "listeners[0]"),
        ('{"static_resources": {"listeners": [{"name": "x"}]}}', "listeners[0]"),
    ],
)
def test_bad_configuration_is_one_readable_message(start_proxy: Start, config: str, message: str) -> None:
    proxy = start_proxy(config=config)
    assert proxy.wait_exit() == 1
    assert message in proxy.log
    assert "Traceback" not in proxy.log


def test_a_unix_socket_is_shared_replaced_when_stale_and_removed_at_the_end(start_proxy: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "in.sock")
    config = listener(0, address={"pipe": {"path": path, "mode": 0o600}})
    first = start_proxy([config], "--concurrency", "2").wait_live()
    assert first.connect(path).ask("hello") == "hello"
    assert os.stat(path).st_mode & 0o777 == 0o600
    rival = start_proxy([config])
    assert rival.wait_exit() == 1
    assert f"cannot bind {path}: Address already in use" in rival.log
    below = first.children()
    first.connections[0].close()
    first.process.kill()
    first.until("all gone", lambda: not any(alive(pid) for pid in below))
    assert os.path.exists(path), "left behind"
    second = start_proxy([config]).wait_live()
    assert second.connect(path).ask("hello") == "hello"
    second.process.send_signal(signal.SIGINT)
    assert second.wait_exit() == 0
    assert not os.path.exists(path)


def test_missing_configuration_file(start_proxy: Start) -> None:
    proxy = start_proxy(None, "-c", "/nonexistent.yaml")
    assert proxy.wait_exit() == 1
    assert "cannot read /nonexistent.yaml: No such file or directory" in proxy.log
    assert "Traceback" not in proxy.log


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_configuration_is_read(start_proxy: Start, tmp_path: Path, sig: signal.Signals) -> None:
    fifo = tmp_path / "slow.yaml"
    os.mkfifo(fifo)
    proxy = start_proxy(None, "-c", str(fifo))
    proxy.until("supervisor, spawner, loader and a worker", lambda: len(proxy.children()) >= 3)
    proxy.until("signal handlers", lambda: handles(proxy.process.pid, sig))
    below = proxy.children()
    proxy.process.send_signal(sig)
    assert proxy.wait_exit() == 0
    assert "Traceback" not in proxy.log
    assert not any(alive(pid) for pid in below)


def handles(pid: int, sig: signal.Signals) -> bool:
    """The process has a handler for the signal, and not Python's own for SIGINT."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            caught = int(line.split()[1], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1 and caught >> (sig - 1) & 1)
    return False
