"""The rules equal Istio's golden files for the same options.

The files are istio/istio (Apache-2.0), tools/istio-iptables/pkg/capture/testdata at commit 86c9f01fd735 (1.32). They are not
copied here: each is known by a digest of its rules. With `MESH_PROXY_ISTIO_GOLDENS` naming that directory the texts themselves
are compared, which shows the line that differs.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from mesh_proxy.interception.rules import plan, restore_text
from mesh_proxy.interception.settings import Settings, SettingsError

TWO_OWNERS = {"proxy_gid": "1,2", "proxy_uid": "3,4"}
NETWORK = {"outbound_ip_ranges_exclude": "2001:db8::/32", "outbound_ip_ranges_include": "2001:db8::/32"}
PORTS = {"inbound_ports_include": "4000,5000", "ipv6": True}
INTERFACES = {"reroute_virtual_interfaces": "eth0,eth1"}
DNS = {"redirect_dns": True, "dns_servers_v4": ("127.0.0.53",)}
TPROXY = {"inbound_interception_mode": "TPROXY"}
RANGES = {"outbound_ip_ranges_exclude": "1.1.0.0/16", "outbound_ip_ranges_include": "9.9.0.0/16"}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ipv6-empty-inbound-ports": ({"ipv6": True}, "cf0f5decdce41a320c89aa4fbd38d06a26607bf29bde44afa32ac4b0e140a300"),
    "ip-range": ({**RANGES, **DNS, **TWO_OWNERS}, "5e538b0990957702d70fade624e7a8883738e3b2720c16e472af200047142057"),
    "tproxy": (
        {**TPROXY, **RANGES, **DNS, "inbound_ports_include": "*", "exclude_interfaces": "not-istio-nic", "ipv6": True},
        "b61bd0f2d727e8ba36ef4e2a0c16471a31025af32196cf867feb76471f3e4e63",
    ),
    "ipv6-inbound-ports": (PORTS, "17520a3b337b2e217fff9a462c37c00a6006b1f3cdc7a5ba03791812ceb02fb1"),
    "ipv6-virt-interfaces": ({**PORTS, **INTERFACES}, "c1c7415fd3fadb152e000db447d3b2224eb1bc33a44becfb94ec3e21f33cf071"),
    "ipv6-ipnets": (
        {**PORTS, **INTERFACES, **NETWORK, "inbound_ports_exclude": "6000,7000,"},
        "82818b3967fedf532944373f6f3d2044020a2276af222f8386f3c461c3bee67b",
    ),
    "ipv6-uid-gid": (
        {**PORTS, **INTERFACES, **NETWORK, **TWO_OWNERS, "inbound_ports_exclude": "6000,7000"},
        "6aadbee246be9f8a19696dc7c53c22be4c3771cf5bfaf1aa998e1c73cd2f12f8",
    ),
    "ipv6-outbound-ports": (
        {"outbound_ports_include": "32000,31000", "ipv6": True},
        "a750e1e535f92bd95a88b9a4899acb7afae3167eef54d1a4b8ac12e958787a90",
    ),
    "empty": ({}, "35d290f40ab374e085e7530c9f7ba218210cd54ff8a5ce88ec6b2b2efbbdff2f"),
    "kube-virt-interfaces": (
        {"reroute_virtual_interfaces": "eth1,eth2", "outbound_ip_ranges_include": "*"},
        "76dd13eec09d8d9dd136b1d1ed15a3bf2499b8868c0524599912b9307cd08c55",
    ),
    "ipnets": ({"outbound_ip_ranges_include": "10.0.0.0/8"}, "46e1e213917ec4bc1b2a6f8c36bb587d386b7b5ee1e90e716f2b1645fc274119"),
    "ipnets-with-kube-virt-interfaces": (
        {"reroute_virtual_interfaces": "eth1,eth2", "outbound_ip_ranges_include": "10.0.0.0/8"},
        "222ec1408ee8cdef26d3fc866b59398ace26b0777bb7a74b68524c66e7686f03",
    ),
    "inbound-ports-include": (
        {"inbound_ports_include": "32000,31000"},
        "eaae42e225b9b3b0cd0d32d9385523888e31714cf4842623e853b724a11f2f08",
    ),
    "inbound-ports-wildcard": (
        {"inbound_ports_include": "*"},
        "d5433e4326dba84425d20de8ee0dc66ea947af877edc880e94e6b1942ec8b8dc",
    ),
    "inbound-ports-tproxy": (
        {**TPROXY, "inbound_ports_include": "32000,31000"},
        "67f27bec0503d9643d81db1cc957da497f548bc4594a72a13b7fc323d447e189",
    ),
    "inbound-ports-wildcard-tproxy": (
        {**TPROXY, "inbound_ports_include": "*"},
        "c4edb50e819ebb251947c18df2db679bdd6f91bc74449d903028e2264f596461",
    ),
    "dns-uid-gid": (
        {**DNS, **TWO_OWNERS, "dns_servers_v6": ("::127.0.0.53",), "ipv6": True},
        "bd0ae567aacd1076def6cfc08d7060e7ad53344f2bc30b07fd159e9aeca315ec",
    ),
    "ipv6-dns-uid-gid": (
        {**TWO_OWNERS, "ipv6": True, "redirect_dns": True},
        "1262a9ea779268037024873d4e11b8d01000409d34482552aaa8600dee104ce1",
    ),
    "outbound-owner-groups": (
        {"owner_groups_include": "java,202"},
        "01a2b73251eb4d055812010e0e11c76dd40d00089f988964b7ca2d1f76190d0a",
    ),
    "outbound-owner-groups-exclude": (
        {"owner_groups_exclude": "888,ftp"},
        "cce4f623991dbc5be819f11a0664735bb3f24796f96e7389b657ebada4d769e8",
    ),
    "ipv6-dns-outbound-owner-groups": (
        {"ipv6": True, "redirect_dns": True, "owner_groups_include": "java,202"},
        "0f50126a6dae8cca37dbb0fab1b0e5caf3244ce9817e9a664e470ce0e12a98aa",
    ),
    "ipv6-dns-outbound-owner-groups-exclude": (
        {"ipv6": True, "redirect_dns": True, "owner_groups_exclude": "888,ftp"},
        "aba9888d5cb645fd4cdfb66530284b18fc0c61f3b45bedb548b5e33139a3246f",
    ),
    "outbound-ports-include": (
        {"outbound_ports_include": "32000,31000"},
        "f50e4ea859dd4ec01c83ea40fb9808aef6ed4e7f215262eb0abd84a519ff39fc",
    ),
    "loopback-outbound-iprange": (
        {**DNS, **TWO_OWNERS, "outbound_ip_ranges_include": "127.1.2.3/32"},
        "533e03836824928288c3a4e4f727c70875ac409debdb0738cfbc4ec48098ccf5",
    ),
    "basic-exclude-nic": (
        {"exclude_interfaces": "not-istio-nic"},
        "50bd33db69647a7afe09686982ebcb0c64e5b0dab18628ea23b7a4c309febc9f",
    ),
    "drop-invalid": ({"drop_invalid": True}, "ee1252169f44857c5666218e94c30edaee0e7a7b72f27c35fa1d9aedc705359c"),
    "host-ipv4-loopback-cidr": (
        {"host_ipv4_loopback_cidr": "127.0.0.1/8"},
        "7dceea2e0e925f5f043db0012deb6cb7f5a6405ac636b8204285377cf0fbd6ab",
    ),
}
"""Istio's name → (the options that differ from the defaults, SHA-256 of the rules)"""


def made(options: dict[str, Any]) -> str:
    settings = Settings(**options)
    settings.check()
    return "".join(restore_text(plan(settings, version)) for version in (4, 6))


@pytest.mark.parametrize("name", CASES)
def test_rules_are_those_of_istio(name: str) -> None:
    options, digest = CASES[name]
    text = made(options)
    directory = os.environ.get("MESH_PROXY_ISTIO_GOLDENS")
    if directory:
        lines = Path(directory, f"{name}.golden").read_text().splitlines()
        golden = "".join(f"{line.replace('* ', '*')}\n" for line in lines if not line.endswith("tables-save"))
        assert text == golden
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_what_istio_injects() -> None:
    """The injected init container's options (istio-proxy's ports excluded), line by line."""
    text = made({"inbound_ports_include": "*", "inbound_ports_exclude": "15090,15021,15020", "outbound_ip_ranges_include": "*"})
    assert "-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN\n" in text
    assert text.index("--dport 15020") < text.index("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n")
    assert text.endswith("-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\nCOMMIT\n")


def test_all_dns_is_captured_by_port_alone() -> None:
    text = made({"redirect_dns": True, "capture_all_dns": True})
    assert "-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053\n" in text
    assert "-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1\n" in text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"inbound_interception_mode": "NONE"}, "-m: REDIRECT or TPROXY, not 'NONE'"),
        ({"proxy_port": 0}, "-p: '0' is no port"),
        ({"inbound_ports_include": "80,http"}, "-b: 'http' is no port"),
        ({"outbound_ports_exclude": "*"}, "-o: '*' is no port"),
        ({"outbound_ip_ranges_include": "10.0.0.1"}, "-i: '10.0.0.1' is no network such as 10.0.0.0/8"),
        ({"outbound_ip_ranges_include": "10.0.0.0/33"}, "-i: '10.0.0.0/33' does not appear to be an IPv4 or IPv6 interface"),
        ({"outbound_ip_ranges_exclude": "*"}, "-x: networks, not *"),
        ({"exclude_interfaces": "eth0 -j ACCEPT"}, "-c: 'eth0 -j ACCEPT' is no name"),
        ({"proxy_uid": "-1"}, "-u: '-1' is no name"),
        ({"proxy_uid": "", "proxy_gid": ""}, "-u: without the proxy's user its own connections would come back to it for ever"),
        (
            {"owner_groups_include": "a", "owner_groups_exclude": "b"},
            "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE: only together with all groups (*) included",
        ),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(**options).check()
    assert str(caught.value) == why
