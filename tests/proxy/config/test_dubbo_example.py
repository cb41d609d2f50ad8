"""docs/examples/dubbo.yaml loads, and routes as its comments say."""

from __future__ import annotations

from pathlib import Path

import pytest
from dubbo_support.wire import call, frame, generic_call

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import DubboProxyConfig
from mesh_proxy.routing.dubbo import DubboRouteTable

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "dubbo.yaml"
HELLO = "org.apache.dubbo.demo.HelloService"


@pytest.fixture(scope="module")
def manager() -> DubboProxyConfig:
    config = load_bootstrap(str(EXAMPLE))
    assert config.warnings == ()
    assert config.clusters[0].dubbo.connections_per_endpoint == 2
    (manager,) = config.listeners[0].filter_chains[0].filters
    assert isinstance(manager, DubboProxyConfig)
    return manager


@pytest.mark.parametrize(
    ("data", "cluster", "route", "timeout"),
    [
        (call(HELLO, attachments={"dubbo.tag": "gray"}), "hello-gray", "hello[0]", 3.0),
        (call(HELLO, "getById", types="J", arguments=(1500,)), "hello-gray", "hello[1]", 10.0),
        (call(HELLO, "getById", types="J", arguments=(2000,)), "hello", "hello[2]", 10.0),
        (call(HELLO), "hello", "hello[2]", 10.0),
        (generic_call("getName", service=HELLO), "hello", "hello[2]", 10.0),
        (
            call("org.apache.dubbo.demo.Other", version="2.0.0", attachments={"group": "internal"}),
            "hello-gray",
            "internal[0]",
            10.0,
        ),
        (call("org.apache.dubbo.demo.Other"), "hello", "rest[0]", 10.0),
        (frame(0xC8, 0, 1, b"kryo"), "hello", "rest[0]", 10.0),
    ],
)
def test_it_routes_as_it_says(manager: DubboProxyConfig, data: bytes, cluster: str, route: str, timeout: float) -> None:
    (message,) = DubboCodec(HeadMemo()).receive_data(data)
    assert isinstance(message, DubboMessage)
    target = DubboRouteTable.of(manager).find(message, pick=0)
    assert target is not None
    assert (target.cluster, target.route_name, target.options.timeout_s) == (cluster, route, timeout)


def test_the_options_of_the_tagged_route(manager: DubboProxyConfig) -> None:
    options = manager.routes[0].routes[0].options
    assert (options.fallback_cluster, options.retries, options.retry_on_connect_failure) == ("hello", 2, True)
    assert options.use_request_timeout
    assert "%DUBBO_STATUS%" in (manager.access_logs[0].text_format or "")
