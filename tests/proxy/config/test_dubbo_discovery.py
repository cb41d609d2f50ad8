"""`drds`: what the file may hold, and how its faults are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from bootstraps.dubbo import MANAGER, drds

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import DubboProxyConfig

MULTIPLE = '"@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration'
ROUTE = "{match: {method: {name: {exact: m}}}, route: {cluster: a}}"


def load(file: Path, text: str) -> DubboProxyConfig:
    file.write_text(text)
    config = load_bootstrap(None, drds(f"path_config_source: {{path: {file}}}"))
    (manager,) = config.listeners[0].filter_chains[0].filters
    assert isinstance(manager, DubboProxyConfig)
    return manager


def test_the_resource_of_the_name_is_taken(tmp_path: Path) -> None:
    routes = f"{{{MULTIPLE}, name: routes, route_config: [{{interface: demo.A, routes: [{ROUTE}]}}]}}"
    manager = load(tmp_path / "r.yaml", f"resources: [{{{MULTIPLE}, name: other}}, {routes}]")
    assert [table.interface for table in manager.routes] == ["demo.A"]


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("resources: []", f"{MANAGER}.drds", "does not hold the routes 'routes', only none"),
        ("a: [", "FILE", "not valid YAML"),
        ("[]", "FILE", "does not hold a mapping"),
        ("nothing: 1", "FILE nothing", "unknown field"),
        (
            'resources: [{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a}]',
            "FILE resources[0]",
            "type",
        ),
        (f"resources: [{{{MULTIPLE}, name: routes, nothing: 1}}]", "FILE resources[0].nothing", "unknown field"),
        (
            f"resources: [{{{MULTIPLE}, name: routes, route_config: [{{routes: [{{match: {{}}}}]}}]}}]",
            "FILE resources[0].route_config[0].routes[0].route",
            "is required",
        ),
        (
            f"resources: [{{{MULTIPLE}, name: routes, route_config: [{{routes: [{ROUTE.replace('name: {exact: m}', '')}]}}]}}]",
            "FILE resources[0].route_config[0].routes[0].match.method.name",
            "is required",
        ),
    ],
)
def test_faults_name_the_file_and_the_field(tmp_path: Path, text: str, path: str, why: str) -> None:
    file = tmp_path / "r.yaml"
    with pytest.raises(ConfigError) as caught:
        load(file, text)
    assert [(where, reason) for where, reason in caught.value.problems if why in reason], caught.value.problems
    assert caught.value.problems[0][0] in (path.replace("FILE", str(file)), ""), caught.value.problems
    assert str(file) in str(caught.value)
