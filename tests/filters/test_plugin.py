"""The example filter of the documentation, as another distribution: found by its entry point, configured, at work."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bootstraps import ROUTER, web
from plane_support import GET, answer, at, head, plane, run, upstream

from mesh_proxy.config import registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "filter"
FILTER = "listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].typed_config"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as an installed distribution on the path."""
    shutil.copy(EXAMPLE / "require_tenant.py", tmp_path)
    info = tmp_path / "require_tenant-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: require-tenant\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mesh_proxy.filters]\nrequire_tenant = require_tenant:definition\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    registry.forget_plugins()
    sys.modules.pop("require_tenant", None)


def tenant(fields: str = "", wrapper: str = "xds.type.v3.TypedStruct", url: str = "type.googleapis.com/") -> str:
    return (
        f'{{name: tenant, typed_config: {{"@type": type.googleapis.com/{wrapper}, type_url: {url}example.RequireTenant, '
        f"value: {{{fields}}}}}}}"
    )


def chain(*filters: str) -> str:
    return f"http_filters: [{', '.join((*filters, ROUTER))}]"


@pytest.mark.parametrize("wrapper", ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"])
def test_it_works(installed: Path, wrapper: str) -> None:
    async def test() -> None:
        async with upstream(answer) as address, plane(web(hcm=chain(tenant(wrapper=wrapper)), endpoint=at(address))) as proxy:
            reader, writer = await proxy.connect("web")
            writer.write(GET)
            assert (await head(reader)).startswith(b"HTTP/1.1 403 ")
            assert await reader.readexactly(12) == b"who are you?"
            writer.write(GET.replace(b"host:", b"x-tenant: me\r\nhost:"))
            assert (await head(reader)).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(test())


@pytest.mark.parametrize(
    ("fields", "path", "why"),
    [("header: ''", ".value.header", "must be the name of a header"), ("headr: x", ".value.headr", "unknown field")],
)
def test_a_wrong_configuration_is_refused_with_its_path(installed: Path, fields: str, path: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(tenant(fields))))
    assert (caught.value.path, caught.value.why) == (FILTER + path, why)


def test_it_is_unknown_where_it_is_not_installed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(tenant())))
    assert caught.value.why == "example.RequireTenant is not a supported HTTP filter"


def test_a_plugin_that_cannot_be_loaded_is_named(installed: Path) -> None:
    (installed / "require_tenant.py").write_text("import nothing_of_the_kind\n")
    with pytest.raises(ConfigError, match=r"require_tenant = require_tenant:definition cannot be loaded: ModuleNotFound"):
        load_bootstrap(None, web(hcm=chain(tenant())))


def test_it_is_left_out_when_optional() -> None:
    optional = tenant().replace("{name", "{is_optional: true, name", 1)
    bootstrap = load_bootstrap(None, web(hcm=chain(optional)))
    assert bootstrap.listeners[0].filter_chains[0].filters[0].filters == ()  # type: ignore[union-attr]
