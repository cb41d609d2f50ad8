"""Hot upgrades that fail, at every step, on either side, by accident or by ill will. Who is left serves; the next works."""

from __future__ import annotations

import os
import re
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


def lines(proxy: Upgrades, text: str) -> int:
    return proxy.log().count(text)


def logged(proxy: Upgrades, text: str) -> None:
    until(f"log line {text!r}", lambda: lines(proxy, text) == 1, 30)


def test_new_processes_that_lie_change_nothing(chain: Chain) -> None:
    """One serving process under load, and one bad successor after the other. Not a single request fails."""
    proxy = chain(one_listener("back"), concurrency=2)
    with Load(proxy.port("in"), kept=6, fresh=2, pause=0.02) as load:
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
    assert proxy.stats()["hot_restart.upgrades_failed"] >= 6


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


@pytest.mark.parametrize("step", ["some sockets", "ready"])
def test_what_an_old_process_gave_before_it_died_is_used(chain: Chain, step: str) -> None:
    """A caller who waits in the accept queue of a socket that was passed is served."""
    proxy = chain(one_listener("back"), start=False)
    port = proxy.port("in")
    with socket.socket() as listening, FakeParent(proxy.meeting_point) as parent:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()
        with connect(port, timeout=60) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            child = proxy.launch()
            with parent.accept() as script:
                script.send(welcome())
                script.until(hr.PassSockets)
                script.send(hr.Sockets(entries=[entry("in", port)], last=False), [listening.fileno()])
                if step == "ready":
                    script.send(hr.Sockets(entries=[{"kind": "control", "inode": 0}]), [parent.socket.fileno()])
                    script.until(hr.Ready)
                parent.close()
                listening.close()
            child.wait_live()
            assert head_of(waiting).startswith(b"HTTP/1.1 200")
    proxy.upgrade()


def lie(script: Script, lie: str, port: int) -> None:
    """An old process says what cannot be."""
    if lie == "garbage":
        script.socket.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    elif lie == "version":
        script.send(welcome(), version=2)
    elif lie == "descriptors":
        script.send(welcome())
        script.until(hr.PassSockets)
        script.send(hr.Sockets(entries=[entry("in", port)]))
    else:
        script.send(hr.Proceed())


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("garbage", "it does not speak the hot-restart protocol"),
        ("version", "it speaks version 2 of the hot-restart protocol"),
        ("descriptors", "passed sockets without saying what they are"),
        ("order", "Proceed must not come in state GREETING"),
    ],
)
def test_an_old_process_that_lies_is_left_alone(chain: Chain, what: str, why: str) -> None:
    """Nobody knows what it does with its sockets: the new process ends, with the exit code that says so."""
    proxy = chain(one_listener("back"), start=False)
    with FakeParent(proxy.meeting_point) as parent:
        child = proxy.launch()
        with parent.accept() as script:
            lie(script, what, proxy.port("in"))
            assert child.wait_exit() == 2
    assert why in child.log()


def test_many_listeners_and_few_descriptors(chain: Chain) -> None:
    """150 listeners: a new process that may not open that many files gets cut-off descriptors, and says so; the next has all."""
    names = [f"in{number}" for number in range(150)]
    config = bootstrap([http_listener(name, "back") for name in names], [static_cluster("back", "back")])
    proxy = chain(config, concurrency=2)
    with Load(proxy.port("in7"), kept=2, fresh=1, pause=0.05) as load:
        load.wait_for(5, 60)
        poor = proxy.launch(files=120)
        assert poor.wait_exit() == 2
        assert "file descriptors were lost on the way (is the limit of open files reached?)" in poor.log()
        proxy.generations.remove(poor)
        logged(proxy, "this process goes on serving")
        proxy.upgrade()
        assert re.search(r"passed 30\d sockets of 150 addresses", proxy.log())
        load.wait_for(5, 60)
        load.stop()
    assert not load.failed()
    for name in names[::30]:
        with connect(proxy.port(name), timeout=60) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert head_of(caller).startswith(b"HTTP/1.1 200")


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
