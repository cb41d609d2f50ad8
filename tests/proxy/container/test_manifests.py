"""The files of docker/: they load, agree with each other and with the commands that they run, and fit Kubernetes' schemas."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from schema_support import faults

from mesh_proxy.cli.arguments import parse_arguments
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.health.probers import VARIABLE, parse
from mesh_proxy.health.rewrite import pod_spec
from mesh_proxy.health.termination import MINIMUM, ON_ZERO, termination
from mesh_proxy.interception.options import add_flags, settings_of

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
COMPOSE = DOCKER / "compose" / "compose.yaml"
PODS = ("sidecar.yaml", "native-sidecar.yaml")
SCHEMA_VERSION = "1.33"
Tree = dict[str, Any]


def documents(path: Path) -> list[Tree]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def pod(name: str) -> tuple[Tree, dict[str, Tree]]:
    """(spec, containers by name) of a manifest."""
    (manifest,) = documents(DOCKER / "kubernetes" / name)
    spec = pod_spec(manifest)
    assert spec is not None
    return spec, {one["name"]: one for one in [*spec["initContainers"], *spec["containers"]]}


def rules(arguments: list[str]) -> Any:
    """The settings that `mesh-proxy iptables apply …` comes to."""
    assert arguments[0] == "apply"
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return settings_of(parser.parse_args(arguments[1:]), {})


@pytest.mark.parametrize("path", sorted(DOCKER.glob("kubernetes/*.yaml")), ids=lambda path: path.name)
def test_kubernetes_takes_them(path: Path) -> None:
    """By the schemas of its API."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make container-check installs kubernetes-validate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for document in documents(path):
            kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)


@pytest.mark.parametrize("path", ["compose/compose.yaml", "ratelimit/compose.yaml"])
def test_compose_takes_them(path: str) -> None:
    (compose,) = documents(DOCKER / path)
    assert faults(compose, "compose") == []


def sidecar_set() -> Tree:
    (manifest,) = documents(DOCKER / "sidecarset.yaml")
    return manifest


def test_openkruise_takes_the_sidecar_set() -> None:
    manifest = sidecar_set()
    assert faults(manifest, "sidecarset") == []
    spec = manifest["spec"]
    volumes = {one["name"] for one in spec["volumes"]}
    for container in spec["containers"]:
        assert {one["name"] for one in container["volumeMounts"]} <= volumes
        if container["upgradeStrategy"]["upgradeType"] == "HotUpgrade":
            assert container["upgradeStrategy"]["hotUpgradeEmptyImage"]
        assert parse_arguments(container["command"][1:]).config_path == "/etc/mesh/bootstrap.yaml"
        (hook,) = container["lifecycle"]["postStart"].values()
        assert hook["command"][:2] == ["mesh-proxy", "migrate"]


def test_kubernetes_takes_what_the_sidecar_set_injects() -> None:
    """Its containers and volumes as those of a pod, without what only OpenKruise reads."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make container-check installs kubernetes-validate")
    spec = sidecar_set()["spec"]
    own = ("podInjectPolicy", "shareVolumePolicy", "upgradeStrategy", "transferEnv")
    containers = [{key: value for key, value in one.items() if key not in own} for one in spec["containers"]]
    injected = {"containers": containers, "volumes": spec["volumes"]}
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "injected"}, "spec": injected}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("spec.updateStrategy.type", "Sometimes", ".spec.updateStrategy.type: 'Sometimes' is none of"),
        ("spec.updateStrategy.maxUnavailable", "a tenth", ".spec.updateStrategy.maxUnavailable: fits no alternative"),
        ("spec.containers.0.upgradeStrategy.kind", "HotUpgrade", ".spec.containers[0].upgradeStrategy.kind: unknown field"),
        ("spec.containers.0.podInjectPolicy", "Before", ".spec.containers[0].podInjectPolicy: 'Before' is none of"),
        ("spec.replicas", 1, ".spec.replicas: unknown field"),
        ("spec.selector", [], ".spec.selector: must be of the type object"),
        ("metadata.name", "Mesh Proxy", ".metadata.name: 'Mesh Proxy' does not match"),
    ],
)
def test_the_schema_finds_faults(place: str, value: Any, fault: str) -> None:
    manifest = sidecar_set()
    inner: Any = manifest
    *way, last = place.split(".")
    for step in way:
        inner = inner[int(step)] if isinstance(inner, list) else inner[step]
    inner[last] = value
    (found,) = faults(manifest, "sidecarset")
    assert found.startswith(fault)


def test_the_compose_schema_finds_faults() -> None:
    (compose,) = documents(COMPOSE)
    compose["services"]["sidecar"] |= {"ports": ["all"], "capdrop": ["ALL"], "depends_on": {"shop-v1": {"condition": "healthy"}}}
    assert [one.partition(":")[0] for one in sorted(faults(compose, "compose"))] == [
        ".services.sidecar.capdrop",
        ".services.sidecar.depends_on",
        ".services.sidecar.ports[0]",
    ]


def test_the_configurations_load() -> None:
    (config_map,) = documents(DOCKER / "kubernetes" / "bootstrap.yaml")
    inside = config_map["data"]["bootstrap.yaml"]
    assert yaml.safe_load(inside) == yaml.safe_load((COMPOSE.parent / "intercepting.yaml").read_text())
    for text in (inside, (COMPOSE.parent / "bootstrap.yaml").read_text()):
        assert load_bootstrap(None, text).listeners


@pytest.mark.parametrize("name", PODS)
def test_a_pod_agrees_with_itself(name: str) -> None:
    """User, ports, files and probes: what one container is told fits what another one does."""
    spec, containers = pod(name)
    proxy, init, app = containers["mesh-proxy"], containers["mesh-init"], containers["shop"]
    options = parse_arguments(proxy["args"])
    assert options.status_ports == (15021, 15020)
    security = proxy["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    settings = rules(init["args"])
    assert settings.proxy_uid == str(security["runAsUser"]) == "1337"
    assert app["securityContext"]["runAsUser"] != 1337
    assert set(settings.inbound_ports_exclude.split(",")) == {str(port) for port in options.status_ports}
    (config_map,) = documents(DOCKER / "kubernetes" / "bootstrap.yaml")
    listeners = load_bootstrap(None, config_map["data"]["bootstrap.yaml"]).listeners
    bound = {one.address.port for one in listeners if one.bind_to_port}
    assert bound == {settings.proxy_port, settings.inbound_capture_port}
    mounted = {one["name"]: one["mountPath"] for one in proxy["volumeMounts"]}
    assert options.config_path == f"{mounted['mesh-bootstrap']}/bootstrap.yaml"
    assert set(mounted) <= {one["name"] for one in spec["volumes"]}
    environment = {one["name"]: one.get("value", "") for one in proxy["env"]}
    probers = parse(environment[VARIABLE])
    asked = {app[kind]["httpGet"]["path"] for kind in ("livenessProbe", "readinessProbe")}
    assert asked == set(probers)
    assert {app[kind]["httpGet"]["port"] for kind in ("livenessProbe", "readinessProbe")} == {15020}
    assert {one.port for one in probers.values()} == {port["containerPort"] for port in app["ports"]}
    drain = termination(environment)
    assert drain is not None
    assert drain.until_idle, f"{ON_ZERO}, {MINIMUM}"
    assert drain.accept_s < spec["terminationGracePeriodSeconds"]


def test_the_two_kinds_of_sidecar() -> None:
    spec, _ = pod("native-sidecar.yaml")
    assert [one["name"] for one in spec["initContainers"]] == ["mesh-init", "mesh-proxy"]
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    spec, containers = pod("sidecar.yaml")
    assert [one["name"] for one in spec["containers"]] == ["mesh-proxy", "shop"], (
        "the first one's postStart holds the others back"
    )
    assert containers["mesh-proxy"]["lifecycle"]["postStart"]["exec"]["command"][:2] == ["mesh-proxy", "wait"]


def test_compose_names_what_is_there() -> None:
    """Every file that is mounted, every command, every service that another one waits for or shares its network with."""
    (compose,) = documents(COMPOSE)
    services: dict[str, Tree] = compose["services"]
    for name, service in services.items():
        for volume in service.get("volumes", ()):
            assert (COMPOSE.parent / volume.partition(":")[0]).is_file(), volume
        for other in service.get("depends_on", ()):
            assert other in services
        shared = service.get("network_mode", "")
        assert not shared or shared.removeprefix("service:") in services
        built = service.get("build")
        if built:
            dockerfile = COMPOSE.parent / built["context"] / built["dockerfile"]
            assert dockerfile.is_file()
            assert "target" not in built or f"AS {built['target']}\n" in dockerfile.read_text()
        if name in ("sidecar", "application-sidecar"):
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert parse_arguments(service["command"]).config_path == "/etc/mesh/bootstrap.yaml"
    assert rules(services["application-init"]["command"]).inbound_ports_exclude == "15020,15021"
    (scrape,) = documents(DOCKER / "monitoring" / "prometheus.yaml")
    for target in scrape["scrape_configs"][0]["static_configs"][0]["targets"]:
        assert target.partition(":")[0] in services


def test_the_image_is_made_of_what_is_there() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}\n" in ignored
    assert "ARG COMPILED=true\n" in text
    assert "HATCH_BUILD_HOOK_ENABLE_CUSTOM=$COMPILED " in text
    assert "HATCH_BUILD_HOOK_ENABLE_CUSTOM=${COMPILED:-true} " in (DOCKER / "rootfs.sh").read_text()
    assert "USER 1337:1337" in text
