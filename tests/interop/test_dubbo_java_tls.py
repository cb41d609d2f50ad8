"""Apache Dubbo in Java over mutual TLS (`dubbo.ssl.*`), on both sides of the sidecar.

A consumer speaks TLS to our listener, our cluster speaks TLS to a provider; each side checks the certificate of the other. What
they say to each other is what they say without a sidecar between, also over TLS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from interop_support.config import bootstrap, dubbo_listener, provider_cluster, route
from interop_support.dubbo_java import VERSIONS
from peer_programs import EVERYTHING, REQUIRED

from mesh_proxy.tls.authority import Authority, Pair
from mesh_proxy.tls.certificate import certificates_in

from .conftest import Cast

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REQUIRED, reason="some minutes of Java: make interop")]

ALL = [(consumer, provider) for consumer in VERSIONS for provider in VERSIONS]
FEW = [("v27", "v32"), ("v32", "v33"), ("v33", "v27")]
CALLS = "values,failures,async,oneway,generic,echo,attachments,callback,big,concurrent"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
MESH = Authority("mesh.local")
STRANGERS = Authority("mesh.local")
"""the same names, another key"""
ADDRESS = {"dns": ["localhost"], "ips": ["127.0.0.1"]}


def put(folder: Path, name: str, pair: Pair) -> None:
    (folder / f"{name}.pem").write_bytes(pair.chain)
    (folder / f"{name}.key").write_bytes(pair.key)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a consumer, a provider, the sidecar, and somebody who is none of the mesh."""
    folder = tmp_path_factory.mktemp("certs")
    (folder / "root.pem").write_bytes(MESH.pem)
    for name in ("consumer", "provider", "sidecar"):
        put(folder, name, MESH.issue(uris=[f"spiffe://mesh.local/{name}"], **ADDRESS))
    put(folder, "stranger", STRANGERS.issue(uris=["spiffe://mesh.local/consumer"], **ADDRESS))
    return folder


def common(certs: Path, peer: str) -> dict[str, Any]:
    """We are the sidecar; the peer must be this workload."""
    own = {"certificate_chain": {"filename": f"{certs}/sidecar.pem"}, "private_key": {"filename": f"{certs}/sidecar.key"}}
    names = [{"san_type": "URI", "matcher": {"exact": f"spiffe://mesh.local/{peer}"}}]
    trust = {"trusted_ca": {"filename": f"{certs}/root.pem"}, "match_typed_subject_alt_names": names}
    return {"tls_certificates": [own], "validation_context": trust}


def config(certs: Path, port: int) -> dict[str, Any]:
    """Listeners `dubbo`, `told` (the provider hears who called) and `guarded` (nobody but `other` may call)."""
    down = {
        "@type": f"{TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": common(certs, "consumer"),
    }
    up = {"@type": f"{TLS}UpstreamTlsContext", "sni": "localhost", "common_tls_context": common(certs, "provider")}
    mode = {"forward_client_cert_details": "SANITIZE_SET", "set_current_client_cert_details": {"uri": True}}
    listeners = [
        dubbo_listener("dubbo", route("providers")),
        dubbo_listener("told", route("providers"), manager=mode),
        dubbo_listener("guarded", route("providers")),
    ]
    principal = {"authenticated": {"principal_name": {"exact": "spiffe://mesh.local/other"}}}
    rules = {"policies": {"other": {"permissions": [{"any": True}], "principals": [principal]}}}
    rbac = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": rules}
    listeners[2]["filter_chains"][0]["filters"][0]["typed_config"]["dubbo_filters"].insert(0, {"name": "rbac", "config": rbac})
    for listener in listeners:
        listener["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": down}
    return bootstrap(listeners, [provider_cluster("providers", port, transport_socket={"name": "tls", "typed_config": up})])


@pytest.mark.parametrize(("consumer", "provider"), ALL if EVERYTHING else FEW)
def test_every_call_over_mutual_tls(cast: Cast, certs: Path, consumer: str, provider: str) -> None:
    server = cast.provider(provider, certs=certs, identity="provider")
    client = cast.consumer(consumer, certs=certs, identity="consumer")
    sidecar = cast.sidecar(config(certs, server.port))
    kinds = ["hessian2"] + ["fastjson2"] * ("v27" not in (consumer, provider))
    count = threw = 0
    for kind in kinds:
        direct = client.run(CALLS, server.port, serialization=kind)
        through = client.run(CALLS, sidecar.port("dubbo"), serialization=kind)
        assert direct == through, kind
        count += len(direct)
        threw += sum(result.startswith("threw") for _, result in direct)
    assert count > 50
    assert threw < count / 3
    stats = sidecar.stats()
    listener, theirs = f"listener.127.0.0.1_{sidecar.port('dubbo')}", "cluster.providers.ssl"
    ours = f"{listener}.ssl"
    print(f"{consumer} to {provider}: {count} calls alike, {threw} of them failures, over TLS;", end=" ")
    print({name: value for name, value in stats.items() if re.match(rf"({ours}|{theirs})\.versions", name) and value})
    assert stats[f"{ours}.handshake"] == stats[f"{listener}.downstream_cx_total"] > 0
    assert stats[f"{theirs}.handshake"] == stats["cluster.providers.upstream_cx_total"] > 0
    assert stats[f"{ours}.no_certificate"] == stats[f"{ours}.connection_error"] == stats[f"{theirs}.connection_error"] == 0
    # Who the consumer is: told to the provider, and asked by a policy.
    told = dict(client.run("attachments", sidecar.port("told"), serialization="hessian2"))["small attachments there"]
    mark = certificates_in((certs / "consumer.pem").read_bytes())[0].fingerprint_256
    assert f"By=spiffe://mesh.local/sidecar;Hash={mark};URI=spiffe://mesh.local/consumer" in told
    denied = client.run("echo", sidecar.port("guarded"), serialization="hessian2")
    assert denied
    assert all(result.startswith("threw") for _, result in denied), denied
    assert sidecar.stats()["dubbo.guarded.rbac.denied"] == len(denied)
    assert "RBAC: access denied" in client.program.said()


def test_who_is_not_let_in(cast: Cast, certs: Path) -> None:
    """A consumer in plain text, and one with a certificate of another authority, whose name is right."""
    server = cast.provider("v33", certs=certs, identity="provider")
    sidecar = cast.sidecar(config(certs, server.port))
    for client in (cast.consumer("v33"), cast.consumer("v33", certs=certs, identity="stranger")):
        results = client.run("echo", sidecar.port("dubbo"), serialization="hessian2", timeout=3000)
        assert results
        assert all(result.startswith("threw") for _, result in results), results
    stats = sidecar.stats()
    assert stats["dubbo.dubbo.request"] == 0
    assert stats["cluster.providers.upstream_cx_total"] == 0
    # The control: the same with the right certificate.
    client = cast.consumer("v33", certs=certs, identity="consumer")
    results = client.run("echo", sidecar.port("dubbo"), serialization="hessian2")
    assert not any(result.startswith("threw") for _, result in results), results
