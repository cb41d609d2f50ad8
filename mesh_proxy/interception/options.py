"""The flags of `istio-iptables`, with their environment variables, as Settings.

Every flag has the name that Istio gives it, and a variable with the same name in capitals (`--istio-inbound-ports`,
`ISTIO_INBOUND_PORTS`); the flag wins.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mesh_proxy.interception.settings import Settings, SettingsError

RESOLV_CONF: Final = "/etc/resolv.conf"
IF_INET6: Final = "/proc/net/if_inet6"
PROXY_USER: Final = "istio-proxy"
DEFAULT_UID: Final = "1337"

_TEXT: Final = (
    ("-p", "envoy-port", "proxy_port", "port to which outbound connections go [15001]"),
    ("-z", "inbound-capture-port", "inbound_capture_port", "port to which inbound connections go [15006]"),
    ("-e", "inbound-tunnel-port", "inbound_tunnel_port", "port of HBONE, never intercepted [15008]"),
    ("-u", "proxy-uid", "proxy_uid", "users whose connections are the proxy's own [that of istio-proxy, or 1337]"),
    ("-g", "proxy-gid", "proxy_gid", "groups likewise [as -u]"),
    ("-m", "istio-inbound-interception-mode", "inbound_interception_mode", "REDIRECT or TPROXY [REDIRECT]"),
    ("-b", "istio-inbound-ports", "inbound_ports_include", "inbound ports that are intercepted; * is all [none]"),
    ("-d", "istio-local-exclude-ports", "inbound_ports_exclude", "inbound ports that are not, of all"),
    ("-c", "istio-exclude-interfaces", "exclude_interfaces", "interfaces where nothing is intercepted"),
    ("-i", "istio-service-cidr", "outbound_ip_ranges_include", "networks to which connections are intercepted; * is all [none]"),
    ("-x", "istio-service-exclude-cidr", "outbound_ip_ranges_exclude", "networks to which they are not"),
    ("-q", "istio-outbound-ports", "outbound_ports_include", "ports to which connections are intercepted wherever they go"),
    ("-o", "istio-local-outbound-ports-exclude", "outbound_ports_exclude", "ports to which they are not"),
    ("-k", "kube-virt-interfaces", "reroute_virtual_interfaces", "interfaces whose inbound traffic counts as outbound"),
    ("-t", "istio-inbound-tproxy-mark", "inbound_tproxy_mark", "packet mark of TPROXY [1337]"),
    ("-r", "istio-inbound-tproxy-route-table", "inbound_tproxy_route_table", "routing table of TPROXY [133]"),
)
"""(short flag, long flag, field, help)"""
_SWITCHES: Final = (
    ("redirect-dns", ("ISTIO_META_DNS_CAPTURE",), "redirect_dns", "capture DNS to the servers of resolv.conf"),
    ("capture-all-dns", (), "capture_all_dns", "with --redirect-dns: DNS to all servers"),
    ("drop-invalid", ("INVALID_DROP",), "drop_invalid", "drop packets that belong to no connection"),
)
_NUMBERS: Final = {
    "proxy_port",
    "inbound_capture_port",
    "inbound_tunnel_port",
    "inbound_tproxy_mark",
    "inbound_tproxy_route_table",
}
_ENVIRONMENT_ONLY: Final = (
    ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "host_ipv4_loopback_cidr"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS", "owner_groups_include"),
    ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "owner_groups_exclude"),
)
_TRUE: Final = ("1", "t", "true", "yes")
_IGNORED: Final = (
    "network-namespace",
    "cni-mode",
    "reconcile",
    "force-apply",
    "iptables-probe-port",
    "probe-timeout",
    "log_output_level",
)
"""flags of Istio that are accepted: rules are always reconciled, and a namespace is entered with `ip netns exec`"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All of them."""
    for short, long, field, text in _TEXT:
        parser.add_argument(short, f"--{long}", dest=field, metavar="LIST" if field not in _NUMBERS else "N", help=text)
    for long, _, field, text in _SWITCHES:
        parser.add_argument(f"--{long}", dest=field, nargs="?", const="true", metavar="BOOL", help=text)
    parser.add_argument("--ipv6", choices=("auto", "on", "off"), help="rules for IPv6 too [auto: if there is such an address]")
    parser.add_argument("--dual-stack", nargs="?", const="true", metavar="BOOL", help="Istio's word for --ipv6 on")
    parser.add_argument(
        "--force-iptables-binary",
        dest="backend",
        metavar="nft|legacy",
        help="back-end [the one that holds rules, else nft]",
    )
    for long in _IGNORED:
        parser.add_argument(f"--{long}", nargs="?", help=argparse.SUPPRESS)


def backend_of(given: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> str:
    """`nft`, `legacy`, or empty for whichever there is. Raises SettingsError."""
    text = given.backend or environment.get("FORCE_IPTABLES_BINARY", "")
    found = text.removeprefix("iptables-")
    if found not in ("", "nft", "legacy"):
        raise SettingsError(f"--force-iptables-binary: nft or legacy, not {text!r}")
    return str(found)


def settings_of(given: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """What the flags and the environment say, checked. Raises SettingsError."""
    values: dict[str, Any] = {}
    for short, long, field, _ in _TEXT:
        text = _given(given, field, long, environment)
        if text is None:
            continue
        values[field] = _number(short, text) if field in _NUMBERS else text
    for long, more, field, _ in _SWITCHES:
        text = _given(given, field, long, environment)
        for name in more:
            text = text if text is not None else environment.get(name)
        if text is not None:
            values[field] = text.lower() in _TRUE
    for variable, field in _ENVIRONMENT_ONLY:
        if environment.get(variable):
            values[field] = environment[variable]
    if not values.get("inbound_interception_mode"):
        values["inbound_interception_mode"] = environment.get("INBOUND_INTERCEPTION_MODE") or "REDIRECT"
    values["proxy_uid"] = values.get("proxy_uid") or _proxy_user(environment)
    values["proxy_gid"] = values.get("proxy_gid") or values["proxy_uid"]
    values["ipv6"] = _ipv6(given, environment)
    if values.get("redirect_dns") and not values.get("capture_all_dns"):
        values["dns_servers_v4"], values["dns_servers_v6"] = name_servers()
    settings = Settings(**values)
    settings.check()
    return settings


def name_servers(path: str = RESOLV_CONF) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(IPv4, IPv6) servers of resolv.conf. Raises SettingsError."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError as error:
        raise SettingsError(f"--redirect-dns: {path}: {error.strerror}") from None
    found: dict[int, list[str]] = {4: [], 6: []}
    for line in lines:
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            found[address.version].append(str(address))
    return tuple(found[4]), tuple(found[6])


def has_ipv6(path: str = IF_INET6) -> bool:
    """This machine has an IPv6 address that others can reach: the fourth column, the scope, is 00 for global ones."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[3:4] == ["00"] and not line.startswith("0" * 30) for line in lines)


def _given(given: argparse.Namespace, field: str, long: str, environment: Mapping[str, str]) -> str | None:
    value = getattr(given, field)
    return value if value is not None else environment.get(long.upper().replace("-", "_"))


def _number(flag: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise SettingsError(f"{flag}: {text!r} is no number")
    return int(text)


def _proxy_user(environment: Mapping[str, str]) -> str:
    try:
        return str(pwd.getpwnam(environment.get("ENVOY_USER") or PROXY_USER).pw_uid)
    except KeyError:
        return DEFAULT_UID


def _ipv6(given: argparse.Namespace, environment: Mapping[str, str]) -> bool:
    if given.ipv6 in ("on", "off"):
        return bool(given.ipv6 == "on")
    dual = given.dual_stack or environment.get("DUAL_STACK") or environment.get("ISTIO_DUAL_STACK") or ""
    return dual.lower() in _TRUE or has_ipv6()
