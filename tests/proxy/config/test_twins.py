"""A cluster that is like an earlier one is what it would be if it had been translated itself."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh_proxy.config import json_proto, twins
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model.bootstrap import BootstrapConfig
from mesh_proxy.config.model.twin import ClusterTwin, in_full

EXT = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def endpoint(host: str, port: int, **more: Any) -> dict[str, Any]:
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}, **more}


def cluster(name: str, *endpoints: dict[str, Any], assigned: str = "", **more: Any) -> dict[str, Any]:
    assignment = {"cluster_name": assigned or name, "endpoints": [{"lb_endpoints": list(endpoints)}]}
    return {"name": name, "type": "STATIC", "load_assignment": assignment, **more}


def families(i: int) -> Iterator[dict[str, Any]]:
    """Clusters of every kind that has twins, or looks as if."""
    host, port = f"10.0.{i}.7", 8000 + i
    yield cluster(f"plain-{i}", endpoint(host, port))
    yield cluster(f"other-{i}", endpoint(host, port), assigned=f"service-{i}")
    yield cluster(f"two-{i}", endpoint(host, port), endpoint("127.0.0.1", port))
    yield cluster(f"none-{i}")
    yield {"name": f"nothing-{i}", "type": "STATIC", "connect_timeout": "2s"}
    yield {"name": f"destination-{i}", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    yield cluster(f"dns-{i}", endpoint(f"host-{i}.example", port)) | {"type": "STRICT_DNS"}
    yield cluster(f"mixed-{i}", endpoint(f"host-{i}.example" if i % 2 else host, port)) | {"type": "STRICT_DNS"}
    yield cluster(f"logical-{i}", endpoint(f"host-{i}.example", port)) | {"type": "LOGICAL_DNS"}
    yield cluster(f"a:b/{i}\"\\'", endpoint(host, port), alt_stat_name=f"stat-{i % 3}")
    yield cluster(f"ü-{i}", endpoint(host, port))
    yield cluster(f"six-{i}", endpoint(f"::{i + 1}", port))
    yield cluster(f"text-{i}", endpoint(host, port) | endpoint(host, str(port)))  # type: ignore[arg-type]
    limits = {"thresholds": [{"max_connections": 7, "retry_budget": {"budget_percent": {"value": 12.5}}}]}
    yield cluster(
        f"rich-{i}",
        endpoint(host, port, load_balancing_weight=3, metadata={"filter_metadata": {"envoy.lb": {"version": "v1"}}}),
        circuit_breakers=limits,
        outlier_detection={"consecutive_5xx": 3},
        health_checks=[
            {
                "timeout": "1s",
                "interval": "5s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/"},
            }
        ],
        typed_extension_protocol_options={
            EXT: {"@type": f"type.googleapis.com/{EXT}", "explicit_http_config": {"http2_protocol_options": {}}}
        },
        metadata={"filter_metadata": {"a": {"b": [1, "x", {"c": None}]}}},
    )


def load(tmp_path: Path, clusters: list[dict[str, Any]], name: str = "bootstrap.yaml") -> BootstrapConfig:
    path = tmp_path / name
    path.write_text(json.dumps({"node": {"id": "n"}, "static_resources": {"clusters": clusters}}))
    return load_bootstrap(str(path))


def load_all(tmp_path: Path, clusters: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> BootstrapConfig:
    """Without twins."""
    with monkeypatch.context() as patched:
        patched.setattr(json_proto, "MANY", 1 << 30)
        config = load(tmp_path, clusters)
    assert not any(isinstance(one, ClusterTwin) for one in config.clusters)
    return config


def test_twins_are_what_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = [one for i in range(20) for one in families(i)]
    assert len(clusters) >= twins.MANY
    config = load(tmp_path, clusters)
    wanted = load_all(tmp_path, clusters, monkeypatch)
    config, again = pickle.loads(pickle.dumps(config)), config
    assert config.clusters == again.clusters
    twin_names = {one.name.rpartition("-")[0] for one in config.clusters if isinstance(one, ClusterTwin)}
    assert twin_names >= {"plain", "other", "two", "none", "nothing", "destination", "dns", "mixed", "logical", "rich"}
    assert not twin_names & {"ü", "six", "text"}
    assert [in_full(one) for one in config.clusters] == list(wanted.clusters)
    assert [one.name for one in config.clusters] == [one.name for one in wanted.clusters]
    for mine, full in zip(config.clusters, wanted.clusters, strict=True):
        for name in ("kind", "alt_stat_name", "health_check", "references", "tls_secrets"):
            assert getattr(mine, name) == getattr(full, name), (mine.name, name)
    for shown, wanted_one in zip(config.resources, wanted.resources, strict=True):
        assert (shown.type_url, shown.name, shown.version) == (wanted_one.type_url, wanted_one.name, wanted_one.version)
        assert json.loads(shown.json) == json.loads(wanted_one.json)
        assert shown.digest == wanted_one.digest, shown.name
    assert json.loads(config.proto_json)["static_resources"]["clusters"] == [json.loads(one.json) for one in config.resources[1:]]


def test_few_clusters_are_no_twins(tmp_path: Path) -> None:
    config = load(tmp_path, [cluster(f"c{i}", endpoint("127.0.0.1", 80)) for i in range(twins.MANY - 1)])
    assert not any(isinstance(one, ClusterTwin) for one in config.clusters)


def test_a_fault_has_the_path_of_its_own_cluster(tmp_path: Path) -> None:
    clusters = [cluster(f"c{i}", endpoint("127.0.0.1", 80)) for i in range(twins.MANY)]
    clusters[150] = cluster("c150", endpoint("127.0.0.1", 65536))
    clusters[160] = cluster("c160", endpoint("localhost", 80))
    clusters[170] = cluster("", endpoint("127.0.0.1", 80))
    clusters[180] = cluster("c5", endpoint("127.0.0.1", 80))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, clusters)
    assert caught.value.problems == (
        (
            "clusters[150].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value",
            "must be at most 65535, not 65536",
        ),
        (
            "clusters[160].load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address",
            "must be an IP address, not 'localhost'",
        ),
        ("clusters[170].name", "must not be empty"),
        ("clusters[170].load_assignment.cluster_name", "must not be empty"),
        ("clusters[180].name", "another cluster is named 'c5' too"),
    )


def test_what_is_wrong_with_all_is_said_of_each(tmp_path: Path) -> None:
    clusters = [cluster(f"c{i}", endpoint("127.0.0.1", 80), lb_policy="CLUSTER_PROVIDED") for i in range(twins.MANY)]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, clusters)
    assert [path for path, _ in caught.value.problems] == [f"clusters[{i}].lb_policy" for i in range(twins.MANY)]


def test_what_is_remarked_of_all_is_said_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = [
        cluster(f"c{i}", endpoint("127.0.0.1", 80), track_timeout_budgets=True, health_checks=[]) for i in range(twins.MANY)
    ]
    wanted = load_all(tmp_path, clusters, monkeypatch)
    config = load(tmp_path, clusters)
    assert config.warnings == wanted.warnings
    assert len(config.warnings) == twins.MANY
    assert config.clusters == wanted.clusters
    assert [one.digest for one in config.resources] == [one.digest for one in wanted.resources]


def test_what_depends_on_others_has_no_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    tls = {"name": "tls", "typed_config": {"@type": kind, "common_tls_context": {}, "sni": "x"}}
    clusters = [cluster(f"c{i}", endpoint("127.0.0.1", 80), transport_socket=tls) for i in range(twins.MANY)]
    wanted = load_all(tmp_path, clusters, monkeypatch)
    assert load(tmp_path, clusters).clusters == wanted.clusters


def test_a_second_text_adds_clusters(tmp_path: Path) -> None:
    clusters = [cluster(f"c{i}", endpoint("127.0.0.1", 80 + i)) for i in range(twins.MANY)]
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps({"static_resources": {"clusters": clusters}}))
    config = load_bootstrap(str(path), json.dumps({"static_resources": {"clusters": [cluster("more", endpoint("::1", 1))]}}))
    assert [one.name for one in config.clusters] == [*(f"c{i}" for i in range(twins.MANY)), "more"]
    last = in_full(config.clusters[-2]).endpoints
    assert last is not None
    assert last.localities[0].endpoints[0].address.port == 80 + twins.MANY - 1
