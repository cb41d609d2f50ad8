"""Where a bootstrap comes from: kinds of files, `--config-yaml` over a file, the flags that change it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bootstraps import web
from envoy.config.bootstrap.v3 import bootstrap_pb2
from google.protobuf import text_format

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import LoadOptions, load_bootstrap

NODE = {"node": {"id": "n1"}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.yaml", b"node: {id: n1}"),
        ("b.yml", b"node: {id: n1}"),
        ("b.YAML", b"\xef\xbb\xbfnode: {id: n1}"),
        ("b.json", json.dumps(NODE).encode()),
        ("b.conf", json.dumps(NODE).encode()),
        ("b.conf", b"node:\n  id: n1\n"),
        ("b.pb", bootstrap_pb2.Bootstrap(**NODE).SerializeToString()),
        ("b.pb_text", text_format.MessageToString(bootstrap_pb2.Bootstrap(**NODE)).encode()),
        ("b.pbtxt", b'node { id: "n1" }'),
    ],
)
def test_the_name_says_what_is_in_the_file(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert load_bootstrap(str(file)).node.id == "n1"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("b.json", b"node: {id: n1}", "is not valid JSON"),
        ("b.yaml", b"a: [", "not valid YAML: line"),
        ("b.yaml", b"", "does not hold a mapping"),
        ("b.yaml", b"a: \xff", "is not UTF-8 text (byte 3)"),
        ("b.conf", b"{", "not valid YAML"),
        ("b.pb", b"\xff\xff", "is not a serialized Bootstrap"),
        ("b.pb_text", b"nodes {}", "is not a Bootstrap in text format"),
    ],
)
def test_a_file_that_cannot_be_read(name: str, content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(str(file))
    assert why in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"cannot read /nonexistent/b\.yaml: No such file"):
        load_bootstrap("/nonexistent/b.yaml")


def test_nothing_given() -> None:
    with pytest.raises(ConfigError, match="at least one of --config-path and --config-yaml"):
        load_bootstrap(None, "")


def test_config_yaml_is_merged_as_protobufs_merge(tmp_path: Path) -> None:
    file = tmp_path / "b.yaml"
    file.write_text("node: {id: n1, cluster: c1, metadata: {a: 1}}\nstatic_resources: {clusters: [{name: a}]}")
    config = load_bootstrap(str(file), "node: {id: n2, metadata: {b: 2}}\nstatic_resources: {clusters: [{name: b}]}")
    assert (config.node.id, config.node.cluster) == ("n2", "c1")
    assert config.node.metadata == {"a": 1, "b": 2}
    assert [cluster.name for cluster in config.clusters] == ["a", "b"]


def test_the_flags_name_the_node() -> None:
    options = LoadOptions(service_node="flag", service_cluster="flags")
    for text in ("node: {id: n1, cluster: c1}", "{}"):
        config = load_bootstrap(None, text, options=options)
        assert (config.node.id, config.node.cluster) == ("flag", "flags")


def test_unknown_fields_can_be_allowed_but_not_unsupported_ones() -> None:
    options = LoadOptions(allow_unknown_static_fields=True)
    config = load_bootstrap(None, web(hcm="novelty: 1", cluster="other: {}"), options=options)
    assert config.unknown_static_fields == 2
    assert [path for path, _ in config.warnings] == [
        "listeners[0].filter_chains[0].filters[0].typed_config.novelty",
        "clusters[0].other",
    ]
    with pytest.raises(ConfigError, match="tracing: this field is not supported"):
        load_bootstrap(None, web(hcm="tracing: {}"), options=options)


def test_dumps_of_all_resources() -> None:
    config = load_bootstrap(None, web())
    kinds = [(resource.type_url.rpartition(".")[2], resource.name) for resource in config.resources]
    assert kinds == [("Bootstrap", ""), ("Listener", "web"), ("Listener", "tcp"), ("Cluster", "a"), ("Cluster", "b")]
    cluster = json.loads(config.resources[4].json)
    assert cluster == {"name": "b"}
    listener = json.loads(config.resources[1].json)
    assert listener["filter_chains"][0]["filters"][0]["typed_config"]["@type"].endswith("HttpConnectionManager")
    assert json.loads(config.proto_json)["static_resources"]["clusters"][1] == {"name": "b"}
    again = load_bootstrap(None, web(cluster="connect_timeout: 1s"))
    changed = [a.name for a, b in zip(config.resources, again.resources, strict=True) if a.digest != b.digest]
    assert changed == ["a"]  # what has a digest of its own does not count in the bootstrap's


@pytest.mark.slow
def test_the_dataclasses_need_no_protobuf_and_the_loader_no_grpc() -> None:
    def loaded(imports: str) -> set[str]:
        code = f"import {imports}, sys; print(' '.join(sys.modules))"
        return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())

    assert not {"google.protobuf", "yaml", "grpc"} & loaded("mesh_proxy.config.model")
    modules = loaded("mesh_proxy.config.loader")
    assert "google.protobuf" in modules
    assert not {"grpc", "envoy.extensions.filters.network.http_connection_manager.v3"} & modules
