"""Bootstraps whose resources come from files."""

from pathlib import Path

from bootstraps import HCM, web
from bootstraps.bad import Bad, unsupported
from bootstraps.good import Good

FILES = Path(__file__).parents[1] / "data" / "dynamic"
NODE = "node: {id: a, cluster: b}"
EDS = "type: EDS, load_assignment: ~, eds_cluster_config: "


def file(name: str, more: str = "") -> str:
    return f"{{path_config_source: {{path: {FILES / name}{more}}}, resource_api_version: V3}}"


def rds(source: str) -> str:
    return web(top=NODE, hcm=f"route_config: ~, rds: {{route_config_name: r, config_source: {source}}}")


GOOD = [
    Good(
        "listeners and clusters from files",
        web(top=f"{NODE}\ndynamic_resources: {{lds_config: {file('lds.yaml')}, cds_config: {file('cds.yaml')}}}"),
        {"lds.path": str(FILES / "lds.yaml"), "cds.path": str(FILES / "cds.yaml"), "cds.initial_fetch_timeout_s": 15.0},
    ),
    Good(
        "routes from a file",
        rds(file("rds.yaml", f", watched_directory: {{path: {FILES}}}")),
        {
            "listeners.0.references.0.name": "r",
            "listeners.0.references.0.kind": "rds",
            "listeners.0.references.0.source.watched_directory": str(FILES),
        },
    ),
    Good(
        "endpoints from a file",
        web(
            top=NODE,
            cluster=f"{EDS}{{service_name: somewhere, eds_config: {{path: {FILES / 'eds.yaml'}, initial_fetch_timeout: 0s}}}}",
        ),
        {
            "clusters.0.kind": "EDS",
            "clusters.0.references.0.name": "somewhere",
            "clusters.0.references.0.source.initial_fetch_timeout_s": None,
        },
    ),
]

NOWHERE = "{path_config_source: {path: /nonexistent/r.yaml}}"
BAD = [
    Bad("rds without a file", rds(NOWHERE), f"{HCM}.rds.config_source.path_config_source.path", "does not exist"),
    Bad(
        "lds without a file",
        web(top=f"{NODE}\ndynamic_resources: {{lds_config: {NOWHERE}}}"),
        "dynamic_resources.lds_config.path_config_source.path",
        "does not exist",
        envoy_refuses=False,  # it does when it starts to read
    ),
    Bad(
        "no directory to watch",
        rds(file("rds.yaml", ", watched_directory: {path: /nonexistent}")),
        f"{HCM}.rds.config_source.path_config_source.watched_directory.path",
        "is not a directory",
    ),
    unsupported("rds by ads", rds("{ads: {}}"), f"{HCM}.rds.config_source.ads", "only files"),
    Bad(
        "ads",
        web(top=f"{NODE}\ndynamic_resources: {{ads_config: {{api_type: GRPC}}}}"),
        "dynamic_resources.ads_config",
        "not supported",
    ),
    Bad("EDS without a source", web(cluster="type: EDS, load_assignment: ~"), "clusters[0].eds_cluster_config", "is required"),
]
