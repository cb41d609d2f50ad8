"""Hot upgrades as containers have them: process 1 of a PID namespace, and two containers that share a network and a volume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_support import Load, one_listener, until
from e2e_support.sidecar import children_of
from e2e_support.upgrades import Chain, Generation, Upgrades
from parity.proxy import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def container() -> tuple[str, ...]:
    """What to put before a command so that it is process 1 of a PID namespace of its own."""
    unshare = shutil.which("unshare")
    for rights in ((), ("--user", "--map-root-user")):
        prefix = (unshare or "", *rights, "--pid", "--fork", "--mount-proc", "--kill-child")
        if unshare and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    pytest.skip("PID namespaces cannot be made here")


def process_1(container: Generation) -> int:
    """As we know it from outside."""
    (pid,) = children_of(container.pid)
    assert Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].split()[1] == "1"
    return pid


def zombies(container: Generation) -> list[int]:
    return [pid for pid in container.tree() if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]


def generation(proxy: Upgrades, number: int) -> None:
    until(f"generation {number}", lambda: proxy.settled({"server.hot_restart_generation": number}), 60)


def test_as_process_1(chain: Chain, container: tuple[str, ...]) -> None:
    """The kernel treats process 1 in its own way: signals without a handler are lost on it, and orphans become its children."""
    proxy = chain(one_listener("back"), concurrency=2, start=False)
    one = proxy.launch(before=container)
    one.wait_live()
    first = process_1(one)
    with Load(proxy.port("in"), kept=4, fresh=1, pause=0.02) as load:
        load.wait_for(20, 60)
        os.kill(first, signal.SIGHUP)
        one.wait_log("staying as the guardian")
        generation(proxy, 2)
        os.kill(first, signal.SIGHUP)
        generation(proxy, 3)
        until("the second has ended", lambda: one.log().count("ended with exit code 0") == 1, 60)
        load.wait_for(20, 60)
        load.stop()
    assert not load.failed()
    assert process_1(one) == first
    until("no zombies", lambda: not zombies(one), 30)
    os.kill(first, signal.SIGTERM)
    assert one.wait_exit() == 0


def test_process_1_ends_as_its_last_successor_does(chain: Chain, container: tuple[str, ...]) -> None:
    proxy = chain(one_listener("back"), start=False)
    one = proxy.launch(before=container)
    one.wait_live()
    first = process_1(one)
    os.kill(first, signal.SIGHUP)
    one.wait_log("staying as the guardian")
    (second,) = children_of(first)
    os.kill(second, signal.SIGKILL)
    assert one.wait_exit() == 128 + signal.SIGKILL
    assert "ended with exit code 137" in one.log()


def versions(own: int, other: int) -> dict[str, str]:
    return {"SIDECARSET_VERSION": str(own), "SIDECARSET_VERSION_ALT": str(other)}


def hook(proxy: Upgrades, own: int, other: int, timeout: str = "60") -> subprocess.CompletedProcess[str]:
    """The postStart hook of a container."""
    admin = f"127.0.0.1:{proxy.ports['port.admin']}"
    command = [sys.executable, "-m", "mesh_proxy", "migrate", "--admin", admin, "--timeout", timeout]
    env = {**os.environ, **versions(own, other)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_the_containers_of_a_sidecar_set(chain: Chain, container: tuple[str, ...], tmp_path: Path) -> None:
    """The versions in the environment say which takes over, over a socket on a shared volume; neither sees the other's processes.
    The hook waits until it has."""
    proxy = chain(one_listener("back"), start=False, socket_path=str(tmp_path / "meet"))
    empty = proxy.launch(before=container, env=versions(0, 1))
    empty.wait_log("the empty one")
    first = proxy.launch(before=container, env=versions(1, 0))
    assert (hook(proxy, 1, 0).returncode, hook(proxy, 0, 1).returncode) == (0, 0)
    early = hook(proxy, 2, 1, "0.2")
    assert early.returncode == 1
    assert "version 1 still serves, not 2" in early.stderr
    os.kill(process_1(empty), signal.SIGTERM)
    assert empty.wait_exit() == 0
    with Load(proxy.port("in"), kept=4, fresh=1, pause=0.02) as load:
        load.wait_for(20, 60)
        second = proxy.launch(before=container, env=versions(2, 1))
        done = hook(proxy, 2, 1)
        assert (done.returncode, done.stdout) == (0, "version 2 serves alone\n")
        assert first.wait_exit() == 0
        # The kubelet starts the old container again before OpenKruise has emptied it.
        older = proxy.launch(before=container, env=versions(1, 2))
        older.wait_log("was replaced")
        assert hook(proxy, 1, 2).returncode == 0
        load.wait_for(20, 60)
        load.stop()
    assert not load.failed()
    os.kill(process_1(older), signal.SIGTERM)
    assert older.wait_exit() == 0
    assert proxy.admin("/ready").status == 200
    os.kill(process_1(second), signal.SIGTERM)
    assert second.wait_exit() == 0


def test_the_hook_fails_when_the_new_process_does(chain: Chain, container: tuple[str, ...], tmp_path: Path) -> None:
    """Then the kubelet starts the container anew; the old one serves all the while."""
    proxy = chain(one_listener("back"), start=False)
    proxy.launch(env=versions(1, 0)).wait_live()
    broken = tmp_path / "broken.yaml"
    broken.write_text("no: configuration")
    new = proxy.launch(before=container, env=versions(2, 1), config=broken)
    assert new.wait_exit() == 1
    proxy.generations.remove(new)
    failed = hook(proxy, 2, 1, "0.5")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "not done after 0.5 s: version 1 still serves, not 2" in failed.stderr
    assert proxy.admin("/ready").status == 200
