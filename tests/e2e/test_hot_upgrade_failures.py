"""Hot upgrades that fail, at every step, on either side, by accident or by ill will. Who is left serves; the next works."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from e2e_support import Load, Peer, head_of, http_listener, one_listener, static_cluster, tcp_listener, until
from e2e_support.peers import connect
from e2e_support.scripted import FakeParent, Script, entry, welcome
from e2e_support.upgrades import Chain, Upgrades
from parity.config import bootstrap

from mesh_hotrestart import messages as hr

pytestmark = pytest.mark.slow
STEPS = ("connected", "hello", "sockets", "ready", "accepting")


def advance(script: Script, step: str, listener: tuple[str, str]) -> None:
    """The new process comes so far."""
    if step == "connected":
        return
    script.hello()
    if step == "hello":
        return
    script.take_sockets([listener])
    if step == "sockets":
        return
    script.ready()
    if step == "ready":
        return
    script.send(hr.Accepting())
    script.until(hr.Stats)


def lines(proxy: Upgrades, text: str) -> int:
    return proxy.log().count(text)


def logged(proxy: Upgrades, text: str) -> None:
    until(f"log line {text!r}", lambda: lines(proxy, text) == 1, 30)


def test_new_processes_that_die_or_lie_change_nothing(chain: Chain) -> None:
    """One serving process under load, and one bad successor after the other. Not a single request fails."""
    proxy = chain(one_listener("back"), concurrency=2)
    port = proxy.port("in")
    listener = ("in", f"127.0.0.1:{port}")
    with Load(port, kept=6, fresh=2, pause=0.02) as load:
        for step in STEPS:
            failed = lines(proxy, "failed")
            with Script.to(proxy.meeting_point) as script:
                advance(script, step, listener)
            until(f"the old process notices the death after {step}", lambda seen=failed: lines(proxy, "failed") > seen, 30)
            load.wait_for(20, 60)
        until("serving again", lambda: lines(proxy, "serving again on all listeners") == 1, 30)

        with Script.to(proxy.meeting_point) as script:
            script.socket.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert script.receive() is None
        logged(proxy, "it does not speak the hot-restart protocol")
        with Script.to(proxy.meeting_point) as script:
            script.send(hr.Hello(program="future", pid=1), version=2)
            answer = script.receive()
            assert isinstance(answer, hr.NotUnderstood)
            assert "version 2 of the hot-restart protocol" in answer.what
            assert script.receive() is None
        with Script.to(proxy.meeting_point) as script:
            script.send(hr.Ready())
            assert script.receive() is None
        logged(proxy, "Ready must not come in state NEW")
        with Script.to(proxy.meeting_point) as script:
            script.send(hr.Hello(program="", pid=1, epoch=5))
            assert script.refused() == "its --restart-epoch is 5; after epoch 0 comes 1"
        with Script.to(proxy.meeting_point) as script:
            script.hello(epoch=1)
            script.send(hr.PassSockets(listeners=[["other", "127.0.0.1:1"]]))
            assert "no listener in common" in script.refused()
        with Script.to(proxy.meeting_point) as script:
            script.hello()
            script.send(hr.GiveUp(why="the moon is full"))
            assert script.receive() is None
        logged(proxy, "it gave up: the moon is full")

        with Script.to(proxy.meeting_point) as script:
            script.hello()
            second = proxy.launch()
            assert second.wait_exit() == 2
            assert f"refuses: another upgrade is under way, by pid {os.getpid()}" in second.log()
            proxy.generations.remove(second)
        bad = proxy.dir / "bad.yaml"
        bad.write_text("static_resources: {listeners: [{name: x, nonsense: 1}]}")
        broken = proxy.launch(config=bad)
        assert broken.wait_exit() == 1
        proxy.generations.remove(broken)
        logged(proxy, "it gave up: error initializing configuration")
        load.wait_for(20, 60)
        proxy.upgrade()
        load.wait_for(20, 60)
        load.stop()
    print(load.summary())
    assert not load.failed()
    assert proxy.stats()["hot_restart.upgrades"] == 1
    assert proxy.stats()["hot_restart.upgrades_failed"] >= len(STEPS)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(chain: Chain) -> None:
    proxy = chain(one_listener("back"))
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "s.connect('\\0' + sys.argv[1][1:]); s.settimeout(30); print(s.recv(65536))"
    )
    command = [sys.executable, "-c", program, proxy.meeting_point]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "it runs as user 65534, this process as 0" in said
    proxy.upgrade()


@pytest.mark.parametrize("step", ["greeted", "welcomed", "some sockets", "sockets", "ready"])
def test_an_old_process_that_dies_leaves_a_new_one_that_serves(chain: Chain, step: str) -> None:
    """Whatever the new process has got from it is used: a caller who waits in the accept queue is served."""
    proxy = chain(one_listener("back"), start=False)
    port = proxy.port("in")
    with socket.socket() as listening, FakeParent(proxy.meeting_point) as parent:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        waiting = connect(port, timeout=60)
        waiting.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        child = proxy.launch()
        with parent.accept() as script:
            if step != "greeted":
                script.send(welcome())
                script.until(hr.PassSockets)
            if step not in ("greeted", "welcomed"):
                entries = [entry("in", port), {"kind": "control", "inode": 0}]
                descriptors = [listening.fileno(), parent.socket.fileno()]
                script.send(hr.Sockets(entries=entries[:1], last=False), descriptors[:1])
                if step != "some sockets":
                    script.send(hr.Sockets(entries=entries[1:]), descriptors[1:])
                    script.until(hr.Ready)
            parent.close()
            listening.close()
        child.wait_live()
        if step in ("greeted", "welcomed"):
            waiting.close()  # its queue died with the old process
            waiting = connect(port, timeout=60)
            waiting.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert head_of(waiting).startswith(b"HTTP/1.1 200")
        waiting.close()
    proxy.upgrade()


def test_the_new_process_dies_after_it_took_over(chain: Chain) -> None:
    """The old one still has a byte stream; it serves again, and a third process takes over from it."""
    config = bootstrap(
        [http_listener("in", "back"), tcp_listener("bytes", "raw")], [static_cluster("back", "back"), static_cluster("raw", 1)]
    )

    def echo(sock: socket.socket) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    with Peer(echo) as peer:
        config["static_resources"]["clusters"][1] = static_cluster("raw", peer.port)
        proxy = chain(config)
        first = proxy.newest
        with connect(proxy.port("bytes"), timeout=60) as stream:
            stream.sendall(b"one")
            assert stream.recv(100) == b"one"
            second = proxy.launch().wait_live()
            until("the second serves", lambda: proxy.settled({"server.hot_restart_generation": 2}), 30)
            second.kill()
            first.wait_log("serving again on all listeners")
            proxy.generations.remove(second)
            with Load(proxy.port("in"), kept=2, fresh=2, pause=0.02) as load:
                load.wait_for(20, 60)
                proxy.launch().wait_live()
                load.wait_for(20, 60)
                stream.sendall(b"two")
                assert stream.recv(100) == b"two"
                os.kill(first.pid, signal.SIGKILL)  # and now the old one, which still drains
                load.wait_for(20, 60)
                load.stop()
            assert not load.failed()
        first.wait_exit()
        proxy.generations.remove(first)
        proxy.upgrade()


@pytest.mark.parametrize("epoch", ["0", "1", "3"])
def test_epochs_that_are_given_must_fit(chain: Chain, epoch: str) -> None:
    proxy = chain(one_listener("back"), flags=("--drain-time-s", "5"))
    if epoch == "1":
        proxy.upgrade(flags=("--restart-epoch", "1"))
        assert proxy.stats()["server.hot_restart_epoch"] == 1
        return
    wrong = proxy.launch(flags=("--restart-epoch", epoch))
    assert wrong.wait_exit() == (1 if epoch == "0" else 2)
    assert ("another mesh-proxy? see --base-id" if epoch == "0" else "after epoch 0 comes 1") in wrong.log()
    proxy.generations.remove(wrong)
    assert proxy.admin("/ready").status == 200


def test_no_old_process(chain: Chain) -> None:
    proxy = chain(one_listener("back"), start=False)
    alone = proxy.launch(flags=("--restart-epoch", "2"))
    assert alone.wait_exit() == 2
    assert "no process of an earlier epoch listens on" in alone.log()
    proxy.launch(flags=("--restart-epoch", "2", "--skip-hot-restart-on-no-parent")).wait_live()
    assert proxy.stats()["server.hot_restart_epoch"] == 2
