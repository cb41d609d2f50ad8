"""Dubbo routes in a file (`drds`): what it may hold, and how its faults are reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh_proxy.config.discovery import DiscoveryReader
from mesh_proxy.config.model import DubboRoutesConfig
from mesh_proxy.xds.resources import Fault, Response

MULTIPLE = '"@type": type.googleapis.com/envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration'
ROUTE = "{match: {method: {name: {exact: m}}}, route: {cluster: a}}"


def load(file: Path, text: str) -> Response | Fault:
    file.write_text(text)
    return DiscoveryReader({}, reject_unknown_fields=True).read("drds", str(file))


def test_resources_have_names(tmp_path: Path) -> None:
    routes = f"{{{MULTIPLE}, name: routes, route_config: [{{interface: demo.A, routes: [{ROUTE}]}}]}}"
    found = load(tmp_path / "r.yaml", f"resources: [{{{MULTIPLE}, name: other}}, {routes}]")
    assert isinstance(found, Response)
    assert [resource.name for resource in found.resources] == ["other", "routes"]
    config = found.resources[1].config
    assert isinstance(config, DubboRoutesConfig)
    assert [table.interface for table in config.routes] == ["demo.A"]
    assert not config.routes[0].routes[0].own_options


@pytest.mark.parametrize(
    ("text", "path", "why"),
    [
        ("a: [", "FILE", "not valid YAML"),
        ("[]", "", "FILE does not hold a mapping"),
        ("nothing: 1", "FILE nothing", "unknown field"),
        (
            'resources: [{"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a}]',
            "FILE resources[0]",
            "must be a envoy.extensions.filters.network.dubbo_proxy.v3.MultipleRouteConfiguration",
        ),
        (f"resources: [{{{MULTIPLE}}}]", "FILE resources[0]", "needs a name"),
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
    found = load(file, text)
    assert isinstance(found, Fault)
    assert any(reason.startswith(why.replace("FILE", str(file))) for _, reason in found.problems), found.problems
    assert found.problems[0][0] == path.replace("FILE", str(file))
