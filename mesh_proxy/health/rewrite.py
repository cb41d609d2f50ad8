"""`mesh-proxy probes`: a manifest whose probes ask the sidecar instead of the application.

Every `httpGet`, `tcpSocket` and `grpc` probe of a container that is not the sidecar's becomes an `httpGet` of `/app-health/…` on
the status port; the originals go into ISTIO_KUBE_APP_PROBERS of the sidecar's container.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from mesh_proxy.health.probers import VARIABLE

NAMES: Final = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}
KINDS: Final = ("httpGet", "tcpSocket", "grpc")
DEFAULT_PORT: Final = 15020
Tree = dict[str, Any]


class RewriteError(ValueError):
    """The manifest cannot be rewritten; the message says where."""


def rewrite(manifest: Tree, sidecar: str, port: int = DEFAULT_PORT) -> Tree:
    """The manifest of a pod, or of anything with a pod template, with its probes rewritten. Raises RewriteError."""
    result = copy.deepcopy(manifest)
    spec = pod_spec(result)
    if spec is None:
        return result
    # A native sidecar is among the init containers.
    everybody = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    mine = next((one for one in everybody if one.get("name") == sidecar), None)
    if mine is None:
        raise RewriteError(f"there is no container {sidecar!r}")
    probers: Tree = {}
    for container in spec.get("containers", ()):
        if container is not mine:
            _container(container, port, probers)
    if probers:
        variables = [one for one in mine.get("env", ()) if one.get("name") != VARIABLE]
        mine["env"] = [*variables, {"name": VARIABLE, "value": json.dumps(probers, separators=(",", ":"), sort_keys=True)}]
    return result


def pod_spec(manifest: Tree) -> Tree | None:
    """The spec of a pod or of a pod template, wherever it is; None for other kinds."""
    spec = manifest.get("spec")
    if manifest.get("kind") == "Pod":
        return spec if isinstance(spec, dict) else None
    while isinstance(spec, dict):
        template = spec.get("template") or spec.get("jobTemplate")
        if not isinstance(template, dict):
            return None
        spec = template.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            return spec
    return None


def _container(container: Tree, port: int, probers: Tree) -> None:
    name = container.get("name", "")
    ports = {one.get("name"): one.get("containerPort") for one in container.get("ports", ()) if one.get("name")}
    for field, path in NAMES.items():
        probe = container.get(field)
        kind = next((one for one in KINDS if probe and one in probe), None)
        if probe is None or kind is None:
            continue  # a command is run in the container itself
        where = f"/app-health/{name}/{path}"
        original = copy.deepcopy(probe.pop(kind))
        number = original.get("port")
        if isinstance(number, str) and not number.isdecimal():
            if number not in ports:
                raise RewriteError(f"container {name!r}: {field}: there is no port {number!r}")
            number = ports[number]
        original["port"] = int(number)
        probers[where] = {kind: original, **({"timeoutSeconds": probe["timeoutSeconds"]} if "timeoutSeconds" in probe else {})}
        probe["httpGet"] = {"path": where, "port": port}


def probes(arguments: Sequence[str], prog: str) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog=f"{prog} probes", allow_abbrev=False, description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("file", metavar="FILE", help="manifests, YAML; - is standard input")
    parser.add_argument("--sidecar", metavar="NAME", default="mesh-proxy", help="name of the sidecar's container [mesh-proxy]")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"its --status-port [{DEFAULT_PORT}]")
    given = parser.parse_args(arguments)
    try:
        text = sys.stdin.read() if given.file == "-" else Path(given.file).read_text()
        found = [rewrite(one, given.sidecar, given.port) for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except (OSError, yaml.YAMLError, RewriteError, TypeError) as error:
        print(f"{prog} probes: {given.file}: {error}", file=sys.stderr)
        return 1
    print(yaml.safe_dump_all(found, sort_keys=False, width=120), end="")
    return 0
