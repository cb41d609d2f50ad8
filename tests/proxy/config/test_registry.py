"""How a later HTTP filter brings its own configuration."""

from collections.abc import Iterator
from typing import Any

import pytest
from bootstraps import EXT, ROUTER, web

from mesh_proxy.config import registry
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import FilterSwitch, HttpManagerConfig
from mesh_proxy.config.reader import Extension
from mesh_proxy.config.registry import register_http_filter, unregister_http_filter
from mesh_proxy.config.translate import Context

FAULT = f"{EXT}filters.http.fault.v3.HTTPFault"
FAULT_MODULE = "envoy.extensions.filters.http.fault.v3.fault_pb2"
LABEL = "type.googleapis.com/mesh.filters.Label"
PATH = "listeners[0].filter_chains[0].filters[0].typed_config"


def translate_fault(extension: Extension, context: Context) -> tuple[int, str]:
    reader = extension.reader
    abort = reader.sub("abort")
    return (abort.number("http_status") if abort is not None else 0, reader.text("upstream_cluster"))


def translate_label(extension: Extension, context: Context) -> dict[str, Any]:
    extension.struct.only("header", "values")
    return dict(extension.struct.values)


@pytest.fixture(autouse=True)
def filters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The real fault filter may be registered already, by an import that happens only once: it must be there again afterwards.
    monkeypatch.setattr(registry, "_by_type", dict(registry._by_type))
    monkeypatch.setattr(registry, "_by_route_type", dict(registry._by_route_type))
    register_http_filter(FAULT, translate_fault, module=FAULT_MODULE, route_type_url=FAULT, translate_route=translate_fault)
    register_http_filter(LABEL, translate_label)
    yield
    unregister_http_filter(FAULT)
    unregister_http_filter(LABEL)


def chain(*filters: str) -> str:
    return f"http_filters: [{', '.join((*filters, ROUTER))}]"


def fault(fields: str, more: str = "") -> str:
    return f'{{name: fault, typed_config: {{"@type": {FAULT}, {fields}}}{more}}}'


def label(fields: str) -> str:
    return (
        '{name: label, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, '
        f"type_url: {LABEL}, value: {{{fields}}}}}}}"
    )


def manager(text: str) -> HttpManagerConfig:
    config = load_bootstrap(None, text).listeners[0].filter_chains[0].filters[0]
    assert isinstance(config, HttpManagerConfig)
    return config


def test_a_filter_with_a_message() -> None:
    config = manager(
        web(
            hcm=chain(fault("abort: {http_status: 503, percentage: {}}, upstream_cluster: a", ", disabled: true")).replace(
                ", percentage: {}", ""
            )
        )
    )
    assert [(f.name, f.type_url, f.config, f.disabled) for f in config.filters] == [
        ("fault", "envoy.extensions.filters.http.fault.v3.HTTPFault", (503, "a"), True)
    ]


def test_what_the_filter_does_not_read_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(fault("downstream_nodes: [a]"))))
    assert caught.value.path == f"{PATH}.http_filters[0].typed_config.downstream_nodes"


def test_a_filter_of_ours_is_a_typed_struct() -> None:
    config = manager(web(hcm=chain(label("header: x-tag, values: [1, 2]"))))
    assert config.filters[0].config == {"header": "x-tag", "values": [1, 2]}
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, web(hcm=chain(label("headr: x"))))
    assert caught.value.path == f"{PATH}.http_filters[0].typed_config.value.headr"


def test_per_route_configuration() -> None:
    wrapper = '"@type": type.googleapis.com/envoy.config.route.v3.FilterConfig'
    wrapped = f'{{{wrapper}, config: {{"@type": {FAULT}, upstream_cluster: b}}}}'
    off = f"{{{wrapper}, disabled: true}}"
    text = web(
        hcm=chain(fault("upstream_cluster: a")),
        table=f'typed_per_filter_config: {{fault: {{"@type": {FAULT}, upstream_cluster: t}}}}',
        host=f"typed_per_filter_config: {{fault: {wrapped}}}",
        route=f"match: {{prefix: /}}, route: {{cluster: a}}, typed_per_filter_config: {{fault: {off}}}",
    )
    table = manager(text).route_table
    assert table is not None
    assert table.per_filter_config == {"fault": (0, "t")}
    assert table.virtual_hosts[0].per_filter_config == {"fault": (0, "b")}
    assert table.virtual_hosts[0].routes[0].per_filter_config == {"fault": FilterSwitch.OFF}
