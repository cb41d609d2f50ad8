"""docker/compose without docker: every service of ours with its own command, user and files, each host in a namespace of its own.

What an image would bring is taken from this installation; images of others (Prometheus, Grafana) are left out. Each service has
mounts of its own: /etc with the names of the other services and the files that are mounted there, the root read-only where the
file says so.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from netns_support import Namespace, missing, readable_by_all

from e2e_support.sidecar import until

ROOT = Path(__file__).parents[2]
START_S = 60.0
Tree = dict[str, Any]


class Composed:
    """The services of a file, started in its order."""

    def __init__(self, path: Path, directory: Path) -> None:
        if missing():
            pytest.skip(missing())
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
            pytest.skip("no mount namespaces")
        self._path = path
        self._directory = directory
        (compose,) = yaml.safe_load_all(path.read_text())
        self.services: dict[str, Tree] = {name: one for name, one in compose["services"].items() if "build" in one}
        self.foreign = compose["services"].keys() - self.services.keys()
        self.outside = Namespace()
        """where a newcomer sits: beside the containers"""
        self.hosts: dict[str, Namespace] = {}
        self.addresses: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self._join()
            for name in self._order():
                self._start(name)
        except BaseException:
            self.close()
            raise

    def _join(self) -> None:
        """Every host on one bridge, as in the default network of a project."""
        self.outside.run("ip", "link", "add", "br0", "type", "bridge")
        self.outside.run("ip", "addr", "add", "10.79.0.1/24", "dev", "br0")
        self.outside.run("ip", "link", "set", "br0", "up")
        for number, (name, service) in enumerate(self.services.items(), 2):
            if "network_mode" in service:
                continue
            host = self.hosts[name] = Namespace()
            self.addresses[name] = f"10.79.0.{number}"
            self.outside.run("ip", "link", "add", f"veth{number}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            self.outside.run("ip", "link", "set", f"veth{number}", "master", "br0", "up")
            host.run("ip", "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def _order(self) -> list[str]:
        """As `depends_on` and shared networks ask."""
        order: list[str] = []

        def visit(name: str) -> None:
            service = self.services[name]
            for other in (*service.get("depends_on", ()), *_shared(service)):
                visit(other)
            if name not in order:
                order.append(name)

        for name in self.services:
            visit(name)
        return order

    def _start(self, name: str) -> None:
        service = self.services[name]
        depends = service.get("depends_on", {})
        for other in depends if isinstance(depends, dict) else ():
            if depends[other]["condition"] == "service_completed_successfully":
                assert self.processes[other].wait(START_S) == 0, self.log(other)
        (host,) = [self.hosts[other] for other in (*_shared(service), name) if other in self.hosts]
        script = self._directory / f"{name}.sh"
        script.write_text(self._script(name, service))
        with self._log_file(name).open("wb") as sink:
            self.processes[name] = subprocess.Popen(
                host.command("unshare", "--mount", "--propagation", "private", "sh", "-eu", str(script)),
                stdin=subprocess.PIPE if service.get("stdin_open") else subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    def _script(self, name: str, service: Tree) -> str:
        """The mounts of the service, then its command in its place."""
        etc = self._directory / f"{name}-etc"
        with contextlib.suppress(shutil.Error):  # what cannot be copied (a socket) is not needed
            shutil.copytree("/etc", etc, symlinks=True)
        names = "".join(f"{address} {host}\n" for host, address in self.addresses.items())
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (etc / "mesh").mkdir()
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            assert target.startswith("/etc/")
            shutil.copy(self._path.parent / source, etc / target.removeprefix("/etc/"))
            readable_by_all(etc / target.removeprefix("/etc/"))
        lines = [f"mount --bind {etc} /etc"]
        user = service.get("user", "1337:1337")
        uid, _, gid = user.partition(":")
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            **service.get("environment", {}),
        }
        rights = ""
        if service["cap_drop"] == ["ALL"]:
            # Whoever runs this may have an installation that others cannot read; an image has not.
            kept = ",".join(["-all", *(f"+{one.lower()}" for one in ("DAC_READ_SEARCH", *service.get("cap_add", ())))])
            rights = f"--inh-caps={kept} --ambient-caps={kept} --bounding-set={kept}"
        if service.get("security_opt"):
            rights += " --no-new-privs"
        if service.get("read_only"):
            if not any(place.startswith("/tmp/") for place in (sys.prefix, str(ROOT))):
                lines += [f"mount -t tmpfs tmpfs {place}" for place in service["tmpfs"]]
            lines.append("mount -o remount,bind,ro /")
        words = [*service.get("entrypoint", entrypoint(service["build"].get("target", ""))), *service["command"]]
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in environment.items())
        command = f"setpriv --reuid {uid} --regid {gid} --clear-groups {rights} {shlex.join(words)}"
        lines.append(f"cd /; exec env -i {variables} {command}")
        return "\n".join(lines) + "\n"

    def _log_file(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def log(self, name: str) -> str:
        """What a service has written."""
        return self._log_file(name).read_text()

    def until(self, what: str, check: Any) -> None:
        """Wait; no service but those that end by themselves may end meanwhile."""

        def look() -> Any:
            for name, process in self.processes.items():
                assert process.poll() in (None, 0), f"{name}: exit code {process.poll()}\n{self.log(name)}"
            return check()

        until(what, look, START_S)

    def close(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)
            if process.stdin is not None:
                process.stdin.close()
        for host in (*self.hosts.values(), self.outside):
            host.close()


def entrypoint(target: str) -> list[str]:
    """Of a stage of the Dockerfile: the last one, or a named one."""
    stage, found = "", {}
    for line in (ROOT / "docker" / "Dockerfile").read_text().splitlines():
        if line.startswith("FROM "):
            stage = line.partition(" AS ")[2]
        elif line.startswith("ENTRYPOINT "):
            found[stage] = yaml.safe_load(line.removeprefix("ENTRYPOINT "))
    words: list[str] = found[target]
    return words


def _shared(service: Tree) -> list[str]:
    """Whose network it has."""
    mode = service.get("network_mode", "")
    return [mode.removeprefix("service:")] if mode else []
