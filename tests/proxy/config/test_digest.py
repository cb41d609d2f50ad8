"""Digests: the same for the same content however it is written, another one for any other content, and nothing secret in them."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bootstraps import everything_on
from bootstraps.good import GOOD, ISTIO
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from google.protobuf.descriptor import FieldDescriptor

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


def mutants(message: Any, path: str = "") -> Iterator[str]:
    """Change one field after the other, also inside `Any`s, and each one back: those that are set, and those that are not.

    While the generator waits, the message is as the path says that it gives.
    """
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        inner = extensions.new_message(message.type_url) if message.type_url else None
        if inner is not None:
            kept = message.value
            inner.MergeFromString(kept)
            for where in mutants(inner, path):
                message.value = inner.SerializeToString()
                yield where
            message.value = kept
        return
    kept = message.SerializeToString()
    present = {field.name for field, _ in message.ListFields()}
    for field in message.DESCRIPTOR.fields:
        where = f"{path}.{field.name}"
        for how, change in changes(message, field, field.name in present):
            change()
            yield f"{where} {how}"
            message.ParseFromString(kept)
        if field.name in present and field.message_type is not None:
            value = getattr(message, field.name)
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].message_type is not None:
                    for key in list(value):
                        yield from mutants(value[key], f"{where}[{key}]")
            else:
                for i, one in enumerate(value if field.is_repeated else [value]):
                    yield from mutants(one, f"{where}[{i}]" if field.is_repeated else where)


def changes(message: Any, field: Any, present: bool) -> list[tuple[str, Callable[[], object]]]:
    """What can be done to one field itself."""
    name = field.name

    def now() -> Any:
        return getattr(message, name)

    found: list[tuple[str, Callable[[], object]]] = [("gone", lambda: message.ClearField(name))] if present else []
    nested = field.message_type
    if nested is not None and nested.GetOptions().map_entry:
        key = "new" if nested.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING else 77
        if nested.fields_by_name["value"].message_type is not None:
            found.append(("grown", lambda: now()[key]))
        else:
            found.append(("grown", lambda: now().__setitem__(key, other(nested.fields_by_name["value"], None))))
    elif field.is_repeated:
        found.append(("grown", lambda: now().add() if nested is not None else now().append(other(field, None))))
        if len(now()) > 1 and now()[0] != now()[1]:
            found.append(("in another order", lambda: swap(message, name)))
    elif nested is not None:
        if not present:
            found.append(("there", lambda: now().SetInParent()))
    else:
        found.append(("another", lambda: setattr(message, name, other(field, now()))))
    return found


def swap(message: Any, name: str) -> None:
    items = [copy.deepcopy(one) for one in getattr(message, name)]
    message.ClearField(name)
    getattr(message, name).extend([items[1], items[0], *items[2:]])


def other(field: Any, value: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not value
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return next((one for one in field.enum_type.values_by_number if one != value), 77)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return (value or b"") + b"x" if field.type == FieldDescriptor.TYPE_BYTES else (value or "") + "x"
    return (value or 0) + 1 if (value or 0) < 1000 else value - 1


SAMPLES = [*GOOD[::4], *ISTIO]
INTERCEPTING = Path(__file__).parents[3] / "docker" / "compose" / "intercepting.yaml"


@pytest.mark.parametrize("text", [*(one.text for one in SAMPLES), INTERCEPTING.read_text()])
def test_any_field_that_changes_changes_the_digest(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of every message in a listener or cluster: changed, removed, added."""
    everything_on(monkeypatch)
    message = bootstrap_pb2.Bootstrap()
    Parser(Problems()).fill(message, parse_yaml(text, Problems().warn), "")
    for resource in (*message.static_resources.listeners, *message.static_resources.clusters):
        before, whole = digest(resource, "n"), resource.SerializeToString(deterministic=True)
        count = 0
        for path in mutants(resource):
            assert digest(resource, "n") != before, path
            count += 1
        assert resource.SerializeToString(deterministic=True) == whole, "the mutations were taken back"
        assert count > 50


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
