"""What is to be intercepted: the options of `istio-iptables`, under its names.

Source: istio/istio, tools/common/config/config.go and tools/istio-iptables/pkg/cmd/root.go (1.32).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_OWNER_GROUPS: Final = 64
"""Istio's: all groups of an include list are matched in one rule"""

Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface


class SettingsError(ValueError):
    """An option that makes no sense; the message begins with its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Lists are comma separated, as they are given; `*` is everything where that is allowed."""

    proxy_port: int = 15001
    """outbound connections go there (`-p`)"""
    inbound_capture_port: int = 15006
    """inbound connections go there (`-z`)"""
    inbound_tunnel_port: int = 15008
    """HBONE, never intercepted (`-e`)"""
    proxy_uid: str = "1337"
    """users whose connections are the proxy's own (`-u`)"""
    proxy_gid: str = "1337"
    inbound_interception_mode: str = "REDIRECT"
    """`REDIRECT` or `TPROXY` (`-m`)"""
    inbound_tproxy_mark: int = 1337
    inbound_tproxy_route_table: int = 133
    inbound_ports_include: str = ""
    """`*`, ports, or empty for none (`-b`)"""
    inbound_ports_exclude: str = ""
    """of `*` (`-d`)"""
    owner_groups_include: str = "*"
    """groups whose outbound connections are intercepted"""
    owner_groups_exclude: str = ""
    outbound_ports_include: str = ""
    """intercepted wherever they go (`-q`)"""
    outbound_ports_exclude: str = ""
    """(`-o`)"""
    outbound_ip_ranges_include: str = ""
    """`*`, networks, or empty for none (`-i`)"""
    outbound_ip_ranges_exclude: str = ""
    """(`-x`)"""
    reroute_virtual_interfaces: str = ""
    """what comes in there is treated as outbound (`-k`)"""
    exclude_interfaces: str = ""
    """(`-c`)"""
    redirect_dns: bool = False
    capture_all_dns: bool = False
    """also DNS to servers that are not in resolv.conf"""
    dns_servers_v4: tuple[str, ...] = ()
    dns_servers_v6: tuple[str, ...] = ()
    drop_invalid: bool = False
    ipv6: bool = False
    host_ipv4_loopback_cidr: str = "127.0.0.1/32"
    spare_open_connections: bool = False
    """not Istio's: leave connections alone that are open already when the rules come, see rules._spare"""

    @property
    def tproxy(self) -> bool:
        """Inbound connections keep their addresses."""
        return self.inbound_interception_mode == "TPROXY"

    def check(self) -> None:
        """Raises SettingsError."""
        if self.inbound_interception_mode not in ("REDIRECT", "TPROXY"):
            raise SettingsError(f"-m: REDIRECT or TPROXY, not {self.inbound_interception_mode!r}")
        for name, port in (("-p", self.proxy_port), ("-z", self.inbound_capture_port), ("-e", self.inbound_tunnel_port)):
            _check_port(name, str(port))
        for name, ports in (
            ("-b", self.inbound_ports_include),
            ("-d", self.inbound_ports_exclude),
            ("-q", self.outbound_ports_include),
            ("-o", self.outbound_ports_exclude),
        ):
            for text in split(ports) if ports != "*" or name != "-b" else ():
                _check_port(name, text)
        if self.outbound_ip_ranges_exclude == "*":
            raise SettingsError("-x: networks, not *")
        networks("-x", self.outbound_ip_ranges_exclude)
        networks("-i", self.outbound_ip_ranges_include)
        networks("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", self.host_ipv4_loopback_cidr)
        for name, interfaces in (("-c", self.exclude_interfaces), ("-k", self.reroute_virtual_interfaces)):
            for one in split(interfaces):
                _check_word(name, one)
        for name, owners in (
            ("-u", self.proxy_uid),
            ("-g", self.proxy_gid),
            ("ISTIO_OUTBOUND_OWNER_GROUPS", self.owner_groups_include if self.owner_groups_include != "*" else ""),
            ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", self.owner_groups_exclude),
        ):
            for one in split(owners):
                _check_word(name, one)
        if self.owner_groups_include != "*" and self.owner_groups_exclude:
            raise SettingsError("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE: only together with all groups (*) included")
        if len(split(self.owner_groups_include)) > MAX_OWNER_GROUPS:
            raise SettingsError(f"ISTIO_OUTBOUND_OWNER_GROUPS: at most {MAX_OWNER_GROUPS} groups")
        if not split(self.proxy_uid) and not split(self.proxy_gid):
            raise SettingsError("-u: without the proxy's user its own connections would come back to it for ever")


def split(text: str) -> list[str]:
    """A comma-separated list; empty members do not count."""
    return [part.strip() for part in text.split(",") if part.strip()]


def networks(name: str, text: str) -> list[Network]:
    """The networks of an option, with their host bits as given. Raises SettingsError."""
    found = []
    for part in split(text) if text != "*" else ():
        if "/" not in part:
            raise SettingsError(f"{name}: {part!r} is no network such as 10.0.0.0/8")
        try:
            found.append(ipaddress.ip_interface(part))
        except ValueError as error:
            raise SettingsError(f"{name}: {error}") from None
    return found


def of_version(version: int, found: Sequence[Network]) -> list[str]:
    """Those of IPv4 or of IPv6, as text."""
    return [f"{one.ip}/{one.network.prefixlen}" for one in found if one.version == version]


def _check_port(name: str, text: str) -> None:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 65536:
        raise SettingsError(f"{name}: {text!r} is no port")


def _check_word(name: str, text: str) -> None:
    """It becomes part of a line for iptables-restore."""
    if not text.isprintable() or any(c.isspace() or c in "\"'\\!" for c in text) or text.startswith("-"):
        raise SettingsError(f"{name}: {text!r} is no name")
