"""Which filter chain takes a connection: Envoy's order, the most specific at each step, and no way back.

Order (envoy.config.listener.v3.FilterChainMatch): destination port, destination address, server name, transport protocol,
application protocols, directly connected source address, source type, source address, source port. At each step only the chains
with the most specific match stay; if the later steps then find nothing, the connection gets the default chain or none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mesh_proxy.config.model import FilterChainConfig, FilterChainMatchConfig

if TYPE_CHECKING:
    from mesh_proxy.stream.info import ConnectionInfo

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_ANY = FilterChainMatchConfig()


@dataclass(slots=True)
class ConnectionFacts:
    """What the steps look at."""

    destination_ip: Address | None
    """None on a unix socket"""
    destination_port: int
    source_ip: Address | None
    source_port: int
    direct_source_ip: Address | None
    server_name: str = ""
    transport_protocol: str = "raw_buffer"
    application_protocols: tuple[str, ...] = ()


def _parse(ip: bytes) -> Address | None:
    if not ip:
        return None
    address = ipaddress.ip_address(ip.decode().partition("%")[0])
    # A connection over IPv4 to a socket that takes both is matched as IPv4.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def facts_of(info: ConnectionInfo) -> ConnectionFacts:
    """What is known of a connection by now."""
    source = _parse(info.remote_ip)
    return ConnectionFacts(
        destination_ip=_parse(info.local_ip),
        destination_port=info.local_port,
        source_ip=source,
        source_port=info.remote_port,
        direct_source_ip=source,
        server_name=info.requested_server_name.decode("latin-1"),
        transport_protocol=info.transport_protocol,
        application_protocols=info.application_protocols,
    )


@dataclass(slots=True)
class _Candidate:
    chain: FilterChainConfig
    match: FilterChainMatchConfig
    destinations: tuple[Network, ...]
    direct_sources: tuple[Network, ...]
    sources: tuple[Network, ...]


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


class FilterChainMatcher:
    """The chains of one listener."""

    __slots__ = ("_candidates", "_default", "needs_application_protocols", "needs_server_name", "trivial")

    def __init__(self, chains: tuple[FilterChainConfig, ...], default: FilterChainConfig | None) -> None:
        self._default = default
        self._candidates = []
        for chain in chains:
            match = chain.match or _ANY
            self._candidates.append(
                _Candidate(
                    chain,
                    match,
                    _networks(match.prefix_ranges),
                    _networks(match.direct_source_prefix_ranges),
                    _networks(match.source_prefix_ranges),
                )
            )
        self.trivial = len(chains) == 1 and (chains[0].match is None or chains[0].match == _ANY)
        """one chain that takes everything"""
        self.needs_server_name = any(c.match.server_names or c.match.transport_protocol == "tls" for c in self._candidates)
        self.needs_application_protocols = any(c.match.application_protocols for c in self._candidates)

    def find(self, facts: ConnectionFacts) -> FilterChainConfig | None:
        """The chain for a connection, the default chain, or None."""
        if self.trivial:
            return self._candidates[0].chain
        left = self._candidates
        left = _exact_or_any(left, lambda c: c.match.destination_port, facts.destination_port, None)
        left = _narrowest(left, lambda c: c.destinations, facts.destination_ip)
        left = _server_name(left, facts.server_name)
        left = _exact_or_any(left, lambda c: c.match.transport_protocol, facts.transport_protocol, "")
        left = _application_protocol(left, facts.application_protocols)
        left = _narrowest(left, lambda c: c.direct_sources, facts.direct_source_ip)
        left = _source_type(left, facts)
        left = _narrowest(left, lambda c: c.sources, facts.source_ip)
        ported = [c for c in left if facts.source_port in c.match.source_ports]
        left = ported or [c for c in left if not c.match.source_ports]
        return left[0].chain if left else self._default


def _exact_or_any(
    left: list[_Candidate], of: Callable[[_Candidate], Hashable], value: Hashable, anything: Any
) -> list[_Candidate]:
    exact = [c for c in left if of(c) == value]
    return exact or [c for c in left if of(c) == anything]


def _narrowest(left: list[_Candidate], of: Callable[[_Candidate], tuple[Network, ...]], ip: Address | None) -> list[_Candidate]:
    best = -1
    found: list[_Candidate] = []
    for candidate in left:
        networks = of(candidate)
        length = -1
        if not networks:
            length = 0
        elif ip is not None:
            # A network of any length is more specific than none at all.
            length = max((n.prefixlen + 1 for n in networks if n.version == ip.version and ip in n), default=-1)
        if length > best:
            best = length
            found = []
        if length == best and length >= 0:
            found.append(candidate)
    return found


def _server_name(left: list[_Candidate], name: str) -> list[_Candidate]:
    name = name.lower()
    if name:
        exact = [c for c in left if name in c.match.server_names]
        if exact:
            return exact
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            wildcard = [c for c in left if "*." + rest in c.match.server_names]
            if wildcard:
                return wildcard
    return [c for c in left if not c.match.server_names]


def _application_protocol(left: list[_Candidate], offered: tuple[str, ...]) -> list[_Candidate]:
    for protocol in offered:
        found = [c for c in left if protocol in c.match.application_protocols]
        if found:
            return found
    return [c for c in left if not c.match.application_protocols]


def _source_type(left: list[_Candidate], facts: ConnectionFacts) -> list[_Candidate]:
    local = facts.source_ip is None or facts.source_ip.is_loopback or facts.source_ip == facts.destination_ip
    wanted = "SAME_IP_OR_LOOPBACK" if local else "EXTERNAL"
    return _exact_or_any(left, lambda c: c.match.source_type, wanted, "ANY")
