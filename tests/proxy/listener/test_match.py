"""Which filter chain takes a connection."""

from __future__ import annotations

import ipaddress

import pytest

from mesh_proxy.config.model import FilterChainConfig, FilterChainMatchConfig
from mesh_proxy.listener.match import ConnectionFacts, FilterChainMatcher


def chain(name: str, **match: object) -> FilterChainConfig:
    return FilterChainConfig(name=name, match=FilterChainMatchConfig(**match) if match else None)  # type: ignore[arg-type]


def facts(**changes: object) -> ConnectionFacts:
    values: dict[str, object] = {
        "destination_ip": ipaddress.ip_address("10.1.2.3"),
        "destination_port": 80,
        "source_ip": ipaddress.ip_address("192.168.0.9"),
        "source_port": 5000,
        "direct_source_ip": ipaddress.ip_address("192.168.0.9"),
    }
    return ConnectionFacts(**{**values, **changes})  # type: ignore[arg-type]


DEFAULT = chain("default")

CASES = [
    ("lone chain takes all", [chain("a")], {}, "a"),
    ("port before address", [chain("port", destination_port=80), chain("net", prefix_ranges=("10.0.0.0/8",))], {}, "port"),
    (
        "no way back from the port",
        [chain("port", destination_port=80, server_names=("x.test",)), chain("any")],
        {"server_name": "y.test"},
        "default",
    ),
    (
        "longest network",
        [chain("8", prefix_ranges=("10.0.0.0/8",)), chain("24", prefix_ranges=("10.1.2.0/24",)), chain("any", source_ports=(1,))],
        {},
        "24",
    ),
    ("network of the other family", [chain("v6", prefix_ranges=("::/0",)), chain("any", source_ports=(5000,))], {}, "any"),
    ("a network of length 0 beats none", [chain("zero", prefix_ranges=("0.0.0.0/0",)), chain("any", source_ports=(5000,))], {}, "zero"),
    ("exact server name", [chain("w", server_names=("*.a.test",)), chain("x", server_names=("b.a.test",))], {"server_name": "b.a.test"}, "x"),
    (
        "longest wildcard",
        [chain("1", server_names=("*.test",)), chain("2", server_names=("*.a.test",))],
        {"server_name": "c.b.a.test"},
        "2",
    ),
    ("server names ignore case", [chain("x", server_names=("b.test",)), chain("y")], {"server_name": "B.Test"}, "x"),
    ("no server name", [chain("x", server_names=("b.test",)), chain("y", transport_protocol="raw_buffer")], {}, "y"),
    ("transport protocol", [chain("tls", transport_protocol="tls"), chain("raw", transport_protocol="raw_buffer")], {}, "raw"),
    (
        "first offered protocol",
        [chain("h2", application_protocols=("h2",)), chain("h1", application_protocols=("http/1.1",))],
        {"application_protocols": ("http/1.1", "h2")},
        "h1",
    ),
    ("external source", [chain("local", source_type="SAME_IP_OR_LOOPBACK"), chain("ext", source_type="EXTERNAL")], {}, "ext"),
    (
        "loopback source",
        [chain("local", source_type="SAME_IP_OR_LOOPBACK"), chain("ext", source_type="EXTERNAL")],
        {"source_ip": ipaddress.ip_address("127.0.0.1")},
        "local",
    ),
    ("source network", [chain("in", source_prefix_ranges=("192.168.0.0/16",)), chain("any", source_ports=(5000,))], {}, "in"),
    ("source port", [chain("p", source_ports=(5000,)), chain("q", source_ports=(5001,))], {}, "p"),
    ("source port after source network, no way back", [chain("n", source_prefix_ranges=("192.168.0.0/16",), source_ports=(1,)), chain("any")], {}, "default"),
    ("direct source", [chain("d", direct_source_prefix_ranges=("192.168.0.9/32",)), chain("any")], {}, "d"),
    ("unix socket", [chain("n", prefix_ranges=("0.0.0.0/0",)), chain("u", source_type="SAME_IP_OR_LOOPBACK")], {"destination_ip": None, "source_ip": None, "direct_source_ip": None}, "u"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "chains", "changes", "expected"), CASES, ids=[c[0] for c in CASES])
def test_chain(name: str, chains: list[FilterChainConfig], changes: dict[str, object], expected: str) -> None:
    found = FilterChainMatcher(tuple(chains), DEFAULT).find(facts(**changes))
    assert found is not None
    assert found.name == expected


def test_nothing_matches_and_no_default() -> None:
    assert FilterChainMatcher((chain("a", destination_port=81),), None).find(facts()) is None
