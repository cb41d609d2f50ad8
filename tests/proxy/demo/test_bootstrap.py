"""The demo's configurations: valid, the same as the examples in the documentation, and without a way around mutual TLS."""

import os
from pathlib import Path

import pytest

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import BootstrapConfig
from mesh_proxy.demo.bootstrap import Ports, bootstrap_yaml
from mesh_proxy.demo.identities import make_certificates
from mesh_proxy.demo.shop_bootstrap import shop_bootstrap_yaml

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
NAMES = ["shop-v1", "shop-v2", "flaky", "grpc-v1", "grpc-v2", "dubbo-v1", "dubbo-v2"]


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "certs"
    make_certificates(folder)
    return folder


def load(text: str, certs: Path) -> BootstrapConfig:
    file = certs.parent / "demo.yaml"
    file.write_text(text)
    return load_bootstrap(str(file), None)


@pytest.mark.parametrize(("name", "text"), [("demo", bootstrap_yaml(Ports())), ("demo-shop", shop_bootstrap_yaml(Ports()))])
def test_the_examples_are_what_the_demo_writes(name: str, text: str) -> None:
    """Rewrite them with MESH_PROXY_UPDATE_DOCS=1."""
    example = EXAMPLES / f"{name}.yaml"
    if os.environ.get("MESH_PROXY_UPDATE_DOCS"):
        example.write_text(text)
    assert example.read_text() == text


def test_the_callers_is_accepted_without_a_warning(certs: Path) -> None:
    loaded = load(bootstrap_yaml(Ports(), certs=str(certs)), certs)
    assert loaded.warnings == ()
    assert [cluster.name for cluster in loaded.clusters] == NAMES


def test_the_services_is_accepted_without_a_warning(certs: Path) -> None:
    loaded = load(shop_bootstrap_yaml(Ports(), certs=str(certs)), certs)
    assert loaded.warnings == ()
    assert [cluster.name for cluster in loaded.clusters] == NAMES


def test_every_way_between_the_sidecars_is_mutual_tls(certs: Path) -> None:
    web = load(bootstrap_yaml(Ports(), certs=str(certs)), certs)
    names = []
    for cluster in web.clusters:
        outbound = cluster.transport_socket
        assert outbound is not None
        assert outbound.common.certificates
        trusted = outbound.common.validation_secret or outbound.common.validation
        assert trusted
        names.append(outbound.sni)
    assert names == NAMES
    shop = load(shop_bootstrap_yaml(Ports(), certs=str(certs)), certs)
    (inbound,) = shop.listeners
    assert [name for chain in inbound.filter_chains for name in chain.match.server_names] == NAMES
    for chain in inbound.filter_chains:
        assert chain.transport_socket is not None
        assert chain.transport_socket.require_client_certificate


def test_ports_land_where_they_belong(certs: Path) -> None:
    ports = Ports(
        listen=1, admin=2, v1=3, v2=4, flaky=5, dubbo=6, dubbo_v1=7, dubbo_v2=8, grpc_v1=9, grpc_v2=10, shop=11, shop_admin=12
    )
    web = load(bootstrap_yaml(ports, certs=str(certs), access_log="/dev/null"), certs)
    assert places(web) == ([2, 1, 6], [11] * 7)
    assert places(load(shop_bootstrap_yaml(ports, certs=str(certs)), certs)) == ([12, 11], [3, 4, 5, 9, 10, 7, 8])


def places(loaded: BootstrapConfig) -> tuple[list[int], list[int]]:
    """Ports of the admin interface and the listeners, and of the endpoints."""
    assert loaded.admin is not None
    sets = [cluster.endpoints for cluster in loaded.clusters]
    return (
        [loaded.admin.address.port, *(listener.address.port for listener in loaded.listeners)],
        [found.localities[0].endpoints[0].address.port for found in sets if found is not None],
    )
