"""`/config_dump`: secrets do not show, everything else does."""

import json

from bootstraps.tls import GOOD as TLS
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2
from google.protobuf import json_format

from mesh_proxy.config.dump import dump, to_json
from mesh_proxy.config.loader import load_bootstrap

CERTIFICATE = {
    "certificate_chain": {"inline_string": "public"},
    "private_key": {"inline_string": "hush"},
    "password": {"filename": "p"},
}


def test_secrets_are_redacted_and_certificates_are_not() -> None:
    secret = json_format.ParseDict({"name": "s", "tls_certificate": CERTIFICATE}, secret_pb2.Secret())
    shown = json.loads(to_json(secret))["tls_certificate"]
    assert shown["certificate_chain"] == {"inline_string": "public"}
    assert shown["private_key"] == {"inline_string": "[redacted]"}
    assert shown["password"] == {"filename": "[redacted]"}
    assert "hush" in str(secret)  # the message itself is untouched


def test_secrets_inside_an_any_are_redacted() -> None:
    context = json_format.ParseDict(
        {"common_tls_context": {"tls_certificates": [CERTIFICATE]}, "sni": "a"}, tls_pb2.UpstreamTlsContext()
    )
    cluster = cluster_pb2.Cluster(name="c")
    cluster.transport_socket.name = "tls"
    cluster.transport_socket.typed_config.Pack(context)
    resource = dump(cluster, "c")
    assert "hush" not in resource.json
    assert "public" in resource.json
    assert '"sni":"a"' in resource.json
    assert resource.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def test_bytes_maps_and_lists_in_a_sensitive_field() -> None:
    secret = json_format.ParseDict(
        {"generic_secret": {"secret": {"inline_bytes": "aHVzaA=="}, "secrets": {"a": {"inline_string": "hush"}}}},
        secret_pb2.Secret(),
    )
    text = to_json(secret)
    assert "aHVzaA" not in text
    assert "hush" not in text
    assert "W3JlZGFjdGVkXQ==" in text


def test_the_digest_sees_the_secret() -> None:
    one, two = (secret_pb2.Secret(generic_secret={"secret": {"inline_string": text}}) for text in ("a", "b"))
    assert dump(one, "").json == dump(two, "").json
    assert dump(one, "").digest != dump(two, "").digest


def test_private_keys_of_transport_sockets_are_not_shown() -> None:
    for good in TLS:
        config = load_bootstrap(None, good.text)
        shown = "".join(resource.json for resource in config.resources)
        assert "PRIVATE KEY" not in shown
        assert "PRIVATE KEY" not in repr(config)
        assert ("[redacted]" in shown) is any(word in good.text for word in ("private_key:", "sds_config:"))
