"""SIGKILL at every step of an upgrade, on either side, between two real processes: who is left serves, and the next upgrade
works."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest
from e2e_support import Load, head_of, one_listener, until
from e2e_support.peers import connect
from e2e_support.relay import Relay
from e2e_support.upgrades import Chain, Upgrades

from mesh_hotrestart import messages as hr

pytestmark = pytest.mark.slow

STEPS: dict[str, type[hr.Message]] = {
    "it has come": hr.Hello,
    "it was heard": hr.Welcome,
    "it was welcomed": hr.PassSockets,
    "it asked for sockets": hr.Sockets,
    "it has the sockets": hr.Ready,
    "it is ready": hr.Proceed,
    "it accepts": hr.Accepting,
    "connections move": hr.Adopted,
}
"""what is true of the new process when this message is on its way, and has not arrived"""


def killed(pid: int) -> None:
    """The supervisor alone: its workers notice."""
    os.kill(pid, signal.SIGKILL)


def left_over(pids: set[int]) -> set[int]:
    """Of these, who still lives (zombies do not)."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
    return found


def answers(proxy: Upgrades) -> None:
    """Whoever connects now is served, whichever socket of the listener he meets."""
    for _ in range(12):
        with connect(proxy.port("in"), timeout=60) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert head_of(caller).startswith(b"HTTP/1.1 200")


def finish(proxy: Upgrades, meeting_point: Path, dead: set[int]) -> None:
    """An upgrade works, nobody is left of those who were killed, and the last one takes the socket with it."""
    proxy.upgrade()
    until("all of the killed are gone", lambda: not left_over(dead), 60)
    os.kill(proxy.pid, signal.SIGTERM)
    assert proxy.newest.wait_exit() == 0
    assert not meeting_point.exists()
    assert not meeting_point.with_suffix(".hidden").exists()


def test_the_new_process_is_killed(chain: Chain, tmp_path: Path) -> None:
    """At each step the old one goes on. Until the new one accepts not a single request fails."""
    proxy = chain(one_listener("back"), concurrency=2, socket_path=str(tmp_path / "meet"))
    meeting_point = Path(proxy.meeting_point)
    dead: set[int] = set()
    old = proxy.newest
    with Load(proxy.port("in"), kept=6, fresh=3, pause=0.04) as load:
        load.wait_for(30, 60)
        for number, (step, message) in enumerate(STEPS.items()):
            with Relay(meeting_point) as relay:
                new = proxy.launch()
                relay.meet()
                relay.hold(message)
                dead |= set(new.tree())
                killed(new.pid)
                new.wait_exit()
            proxy.generations.remove(new)
            if step == "connections move":
                old.wait_log("serving again on all listeners")
            else:
                noticed = number + 1
                until(f"failure {noticed} is noticed", lambda n=noticed: old.log().count("this process goes on serving") == n, 60)
            if step in ("it accepts", "connections move"):
                before = len(load.failed())
                print(f"{step}: {before} requests failed so far")
            else:
                assert not load.failed(), step
            answers(proxy)
            assert old.process.poll() is None, step
        until("all of the killed are gone", lambda: not left_over(dead), 60)
        load.wait_for(60, 60)  # and whoever was with them has noticed
        seen = len(load.failed())
        proxy.upgrade()
        load.wait_for(60, 60)
        assert len(load.failed()) == seen
        load.stop()
    print(load.summary())
    finish(proxy, meeting_point, dead)


def test_the_old_process_is_killed(chain: Chain, tmp_path: Path) -> None:
    """At each step the new one goes on alone, and is the old one of the next."""
    proxy = chain(one_listener("back"), concurrency=2, socket_path=str(tmp_path / "meet"))
    meeting_point = Path(proxy.meeting_point)
    dead: set[int] = set()
    with Load(proxy.port("in"), kept=6, fresh=3, pause=0.04) as load:
        load.wait_for(30, 60)
        for step, message in STEPS.items():
            old = proxy.newest
            with Relay(meeting_point) as relay:
                new = proxy.launch()
                relay.meet()
                relay.hold(message)
                dead |= set(old.tree())
                killed(old.pid)
                old.wait_exit()
            new.wait_live()
            proxy.generations.remove(old)
            answers(proxy)
            print(f"{step}: {len(load.failed())} requests failed so far")
        until("all of the killed are gone", lambda: not left_over(dead), 60)  # and with them what they had not given away
        load.wait_for(60, 60)
        before = len(load.failed())
        proxy.upgrade()
        load.wait_for(60, 60)
        assert len(load.failed()) == before
        load.stop()
    print(load.summary())
    finish(proxy, meeting_point, dead)
