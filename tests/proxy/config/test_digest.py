"""Digests: the same for the same content however it is written, another one for any other content, and nothing secret in them."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bootstraps import everything_on
from bootstraps.good import GOOD
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mesh_proxy.config import extensions
from mesh_proxy.config.digest import digest
from mesh_proxy.config.discovery import DiscoveryReader
from mesh_proxy.config.dump import dump
from mesh_proxy.config.json_proto import Parser
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.yaml_text import parse_yaml
from mesh_proxy.supervisor.digests import total_of
from mesh_proxy.xds.resources import Response

CLUSTER = """
version_info: "7"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  connect_timeout: 1.5s
  metadata: {filter_metadata: {x: {k: 1, l: [a, {b: true}]}, y: {z: "s"}}}
  load_assignment: {cluster_name: a}
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {http_protocol_options: {}}
      common_http_protocol_options: {idle_timeout: 1s, max_headers_count: 7}
"""
SAME = """{"resources": [{
  "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "common_http_protocol_options": {"maxHeadersCount": "7", "idleTimeout": "1.000s"},
    "explicit_http_config": {"http_protocol_options": {}},
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"}},
  "load_assignment": {"cluster_name": "a"},
  "metadata": {"filter_metadata": {"y": {"z": "s"}, "x": {"l": ["a", {"b": true}], "k": 1}}},
  "connect_timeout": "1.5s",
  "name": "a",
  "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster"}],
 "version_info": "another"}"""


def read(path: Path, text: str) -> str:
    path.write_text(text)
    found = DiscoveryReader({}, reject_unknown_fields=True).read("cds", str(path))
    assert isinstance(found, Response), found
    return found.resources[0].digest


def test_layout_order_and_version_make_no_difference(tmp_path: Path) -> None:
    first = read(tmp_path / "a.yaml", CLUSTER)
    assert read(tmp_path / "b.json", SAME) == first
    assert read(tmp_path / "a.yaml", CLUSTER.replace("k: 1", "k: 2")) != first
    assert read(tmp_path / "a.yaml", CLUSTER.replace("l: [a, {b: true}]", "l: [{b: true}, a]")) != first, "lists have an order"


def test_no_digest_depends_on_how_maps_are_kept() -> None:
    digests = set()
    for names in (["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]):
        message = cluster_pb2.Cluster(name="x")
        for name in names:
            message.metadata.filter_metadata[name].update({one: name for one in reversed(names)})
        packed = bootstrap_pb2.Bootstrap()
        packed.typed_dns_resolver_config.typed_config.Pack(message)
        digests.add((digest(message, "x"), digest(packed, "")))
    assert len(digests) == 1


def test_the_total_knows_no_order() -> None:
    resources = [("t.A", "x", "1"), ("t.A", "y", "2"), ("t.B", "x", "3")]
    assert total_of(resources) == total_of(reversed(resources))
    assert total_of([("t.A", "x", "2"), ("t.A", "y", "1"), ("t.B", "x", "3")]) != total_of(resources)


# -- any field


def leaves(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, function that changes a copy of the whole) for every value that is set, also inside `Any`s."""
    for field, value in list(message.ListFields()):
        where = f"{path}.{field.name}"
        nested = field.message_type
        if nested is not None and nested.GetOptions().map_entry:
            for key in list(value):
                if nested.fields_by_name["value"].message_type is None:
                    yield f"{where}[{key}]", lambda one=value, key=key: one.__setitem__(key, f"{one[key]}x")
                else:
                    yield from leaves(value[key], f"{where}[{key}]")
        elif field.is_repeated:
            yield f"{where}[-]", lambda one=value: one.pop()
            for i, item in enumerate(value):
                if nested is not None:
                    yield from leaves(item, f"{where}[{i}]")
        elif nested is not None:
            yield f"{where} gone", lambda one=message, name=field.name: one.ClearField(name)
            yield from leaves(value, where)
        else:
            yield where, lambda one=message, field=field, value=value: setattr(one, field.name, other(field, value))


def other(field: Any, value: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not value
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return next(one for one in field.enum_type.values_by_number if one != value)
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value + b"x"
    return value + 1 if value < 1000 else value - 1


@pytest.mark.parametrize("good", GOOD[::4], ids=lambda good: good.name)
def test_any_field_that_changes_changes_the_digest(good: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    everything_on(monkeypatch)
    message = bootstrap_pb2.Bootstrap()
    Parser(Problems()).fill(message, parse_yaml(good.text, Problems().warn), "")
    resources: list[Message] = [*message.static_resources.listeners, *message.static_resources.clusters]
    for resource in resources:
        before = digest(resource, "n")
        for i, (path, _) in enumerate(leaves(resource)):
            changed = copy.deepcopy(resource)
            change = list(leaves(changed))[i][1]
            change()
            assert digest(changed, "n") != before, path
        for packed in opened(resource):
            inner = extensions.new_message(packed.type_url)
            assert inner is not None
            inner.MergeFromString(packed.value)
            for i, (path, _) in enumerate(leaves(inner)):
                changed = copy.deepcopy(inner)
                list(leaves(changed))[i][1]()
                kept = packed.value
                packed.value = changed.SerializeToString()
                differs = digest(resource, "n") != before
                packed.value = kept
                assert differs, path


def opened(message: Any) -> Iterator[Any]:
    """The `Any`s in a message, as they stand in it."""
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in value:
                    yield from opened(value[key])
        else:
            for one in value if field.is_repeated else [value]:
                yield from opened(one)


# -- secrets

KEY = "-----BEGIN PRIVATE KEY-----\nvery secret\n-----END PRIVATE KEY-----"


def secret(name: str, key: str = KEY, password: str = "guess me") -> Any:
    found = secret_pb2.Secret(name=name)
    found.tls_certificate.private_key.inline_string = key
    found.tls_certificate.password.inline_string = password
    return found


def test_secrets_count_but_do_not_show() -> None:
    first = dump(secret("a"), "a")
    assert first.digest == dump(secret("a"), "a").digest
    assert first.digest != dump(secret("a", KEY.replace("very", "most")), "a").digest
    assert first.digest != dump(secret("a", password="guess you"), "a").digest
    assert "secret" not in first.json
    assert "guess" not in first.json
    assert json.loads(first.json)["tls_certificate"]["password"]["inline_string"] == "[redacted]"


def test_one_password_under_two_names_cannot_be_seen_to_be_one() -> None:
    def only_password(name: str) -> str:
        certificate = common_pb2.TlsCertificate()
        certificate.password.inline_string = "guess me"
        return digest(certificate, name)

    assert only_password("a") != only_password("b")
