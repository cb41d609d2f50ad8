"""The demo's configuration: valid, and the same as the example in the documentation."""

import os
from pathlib import Path

from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.demo.bootstrap import Ports, bootstrap_yaml

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "demo.yaml"


def test_the_example_is_what_the_demo_writes() -> None:
    """Rewrite it with MESH_PROXY_UPDATE_DOCS=1."""
    if os.environ.get("MESH_PROXY_UPDATE_DOCS"):
        EXAMPLE.write_text(bootstrap_yaml(Ports()))
    assert EXAMPLE.read_text() == bootstrap_yaml(Ports())


def test_it_is_accepted_without_a_warning() -> None:
    loaded = load_bootstrap(str(EXAMPLE), None)
    assert loaded.warnings == ()
    assert [cluster.name for cluster in loaded.clusters] == [
        "shop-v1",
        "shop-v2",
        "flaky",
        "grpc-v1",
        "grpc-v2",
        "dubbo-v1",
        "dubbo-v2",
    ]


def test_ports_land_where_they_belong(tmp_path: Path) -> None:
    ports = Ports(listen=1, admin=2, v1=3, v2=4, flaky=5, dubbo=6, dubbo_v1=7, dubbo_v2=8, grpc_v1=9, grpc_v2=10)
    file = tmp_path / "demo.yaml"
    file.write_text(bootstrap_yaml(ports, access_log="/dev/null"))
    loaded = load_bootstrap(str(file), None)
    assert loaded.admin is not None
    assert (loaded.admin.address.port, *(listener.address.port for listener in loaded.listeners)) == (2, 1, 6)
    sets = [cluster.endpoints for cluster in loaded.clusters]
    assert [found.localities[0].endpoints[0].address.port for found in sets if found is not None] == [3, 4, 5, 9, 10, 7, 8]
