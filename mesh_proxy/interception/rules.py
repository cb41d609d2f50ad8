"""The rules: Istio's chains in Istio's order, for IPv4 and IPv6.

What the chains are for:

* `ISTIO_INBOUND` decides which inbound connections are intercepted, `ISTIO_OUTPUT` which outbound ones.
* `ISTIO_REDIRECT` sends a connection to the outbound port, `ISTIO_IN_REDIRECT` to the inbound port.
* `ISTIO_TPROXY` and `ISTIO_DIVERT` do the latter without a change of addresses.
* `ISTIO_OUTPUT_DNS` sends DNS to the agent, `ISTIO_DROP` drops packets that belong to no connection.

The proxy's own connections are known by their user or group, and those to the application by their source 127.0.0.6. Order
matters: the first rule that fits decides. The order is that of istio/istio tools/istio-iptables/pkg/capture/run.go (1.32).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mesh_proxy.interception.settings import Settings, networks, of_version, split

BUILT_IN: Final = frozenset({"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING", "ACCEPT", "RETURN", "DROP"})
PREFIX: Final = "ISTIO_"
"""of all chains of ours"""
OUTBOUND_MARK: Final = "1338"
"""connections of the proxy to this machine's own address, in TPROXY mode"""
DNS_PORT: Final = "15053"
"""where the agent answers DNS"""
PASSTHROUGH: Final = {4: "127.0.0.6/32", 6: "::6/128"}
"""source address of connections from the proxy to the application"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one IP version."""

    table: str
    chain: str
    params: tuple[str, ...]
    """matches and target, as iptables takes them"""
    position: int = 0
    """0: at the end; else it is inserted there"""

    def line(self) -> str:
        """As in the input of iptables-restore."""
        where = f"-I {self.chain} {self.position}" if self.position else f"-A {self.chain}"
        return f"{where} {' '.join(self.params)}"

    @property
    def target(self) -> str:
        """The chain that it jumps to; empty when options follow the target."""
        return self.params[-1] if self.params[-2:-1] == ("-j",) else ""


@dataclass(slots=True)
class _Plan:
    """Collects the rules of one IP version."""

    version: int
    loopback: str
    rules: list[Rule] = field(default_factory=list)

    def add(self, table: str, chain: str, text: str) -> None:
        self.rules.append(Rule(table, chain, tuple(text.split())))

    def insert(self, table: str, chain: str, position: int, text: str) -> None:
        self.rules.append(Rule(table, chain, tuple(text.split()), position))


def plan(settings: Settings, version: int) -> tuple[Rule, ...]:
    """All rules for IPv4 (4) or IPv6 (6)."""
    if version == 6 and not settings.ipv6:
        return ()
    rules = _Plan(version, settings.host_ipv4_loopback_cidr if version == 4 else "::1/128")
    _interfaces(rules, settings)
    _spare(rules, settings)
    if settings.drop_invalid:
        rules.add("mangle", "PREROUTING", "-m conntrack --ctstate INVALID -j ISTIO_DROP")
        rules.add("mangle", "ISTIO_DROP", "-j DROP")
    rules.add("nat", "ISTIO_INBOUND", f"-p tcp --dport {settings.inbound_tunnel_port} -j RETURN")
    rules.add("nat", "ISTIO_REDIRECT", f"-p tcp -j REDIRECT --to-ports {settings.proxy_port}")
    rules.add("nat", "ISTIO_IN_REDIRECT", f"-p tcp -j REDIRECT --to-ports {settings.inbound_capture_port}")
    _inbound(rules, settings)
    rules.add("nat", "OUTPUT", "-j ISTIO_OUTPUT")
    for port in split(settings.outbound_ports_exclude):
        rules.add("nat", "ISTIO_OUTPUT", f"-p tcp --dport {port} -j RETURN")
        rules.add("nat", "ISTIO_OUTPUT", f"-p udp --dport {port} -j RETURN")
    _own_connections(rules, settings)
    _groups(rules, settings)
    _dns(rules, settings)
    _destinations(rules, settings)
    if settings.tproxy:
        _marks(rules, settings)
    return tuple(rules.rules)


def _spare(rules: _Plan, settings: Settings) -> None:
    """The kernel begins to track connections when there is a rule that needs it. Connections that are open at that moment look
    new to it with their next packet, in whichever direction, and would be redirected in the middle: so only the first packet of a
    connection decides."""
    if settings.spare_open_connections:
        for chain in ("PREROUTING", "OUTPUT"):
            rules.add("nat", chain, "-p tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN")


def _interfaces(rules: _Plan, settings: Settings) -> None:
    for table in ("nat", "mangle") if settings.tproxy else ("nat",):
        for name in split(settings.exclude_interfaces):
            rules.add(table, "PREROUTING", f"-i {name} -j RETURN")
            rules.add(table, "OUTPUT", f"-o {name} -j RETURN")
    for name in split(settings.reroute_virtual_interfaces):
        rules.insert("nat", "PREROUTING", 1, f"-i {name} -j RETURN")


def _inbound(rules: _Plan, settings: Settings) -> None:
    if not settings.inbound_ports_include:
        return
    established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT"
    mark = settings.inbound_tproxy_mark
    if settings.tproxy:
        rules.add("mangle", "ISTIO_DIVERT", f"-j MARK --set-mark {mark}")
        rules.add("mangle", "ISTIO_DIVERT", "-j ACCEPT")
        target = f"-j TPROXY --tproxy-mark {mark}/0xffffffff --on-port {settings.inbound_capture_port}"
        rules.add("mangle", "ISTIO_TPROXY", f"! -d {rules.loopback} -p tcp {target}")
    table = "mangle" if settings.tproxy else "nat"
    rules.add(table, "PREROUTING", "-p tcp -j ISTIO_INBOUND")
    if settings.inbound_ports_include == "*":
        for port in split(settings.inbound_ports_exclude):
            rules.add(table, "ISTIO_INBOUND", f"-p tcp --dport {port} -j RETURN")
        wanted = [""]
    else:
        wanted = [f" --dport {port}" for port in split(settings.inbound_ports_include)]
    for port in wanted:
        if settings.tproxy:
            rules.add("mangle", "ISTIO_INBOUND", f"-p tcp{port} {established}")
            rules.add("mangle", "ISTIO_INBOUND", f"-p tcp{port} -j ISTIO_TPROXY")
        else:
            rules.add("nat", "ISTIO_INBOUND", f"-p tcp{port} -j ISTIO_IN_REDIRECT")


def _own_connections(rules: _Plan, settings: Settings) -> None:
    """No loop: what the proxy sends goes where it is sent, except to this machine's own service by another address."""
    dns = _redirects_dns(settings)
    included = networks("-i", settings.outbound_ip_ranges_include)
    to_loopback = any(one.ip.is_loopback for one in included)
    rules.add("nat", "ISTIO_OUTPUT", f"-o lo -s {PASSTHROUGH[rules.version]} -j RETURN")
    tunnel = settings.inbound_tunnel_port
    for option, owners in (("--uid-owner", settings.proxy_uid), ("--gid-owner", settings.proxy_gid)):
        for owner in split(owners):
            # A call of the application to its own service address: application -> proxy -> proxy -> application.
            without = f"! --dport {tunnel}"
            if dns and option == "--uid-owner":
                without = f"-m multiport ! --dports 53,{tunnel}"
            back = f"-o lo ! -d {rules.loopback} -p tcp {without} -m owner {option} {owner} -j ISTIO_IN_REDIRECT"
            rules.add("nat", "ISTIO_OUTPUT", back)
            if not to_loopback:
                other = "-p tcp ! --dport 53 " if dns else ""  # a DNS server on localhost is captured nevertheless
                rules.add("nat", "ISTIO_OUTPUT", f"-o lo {other}-m owner ! {option} {owner} -j RETURN")
            rules.add("nat", "ISTIO_OUTPUT", f"-m owner {option} {owner} -j RETURN")


def _groups(rules: _Plan, settings: Settings) -> None:
    if settings.owner_groups_include == "*":
        for group in split(settings.owner_groups_exclude):
            rules.add("nat", "ISTIO_OUTPUT", f"-m owner --gid-owner {group} -j RETURN")
    else:
        others = " ".join(f"-m owner ! --gid-owner {group}" for group in split(settings.owner_groups_include))
        rules.add("nat", "ISTIO_OUTPUT", f"{others} -j RETURN".lstrip())


def _redirects_dns(settings: Settings) -> bool:
    return settings.redirect_dns and bool(settings.capture_all_dns or settings.dns_servers_v4 or settings.dns_servers_v6)


def _dns(rules: _Plan, settings: Settings) -> None:
    """DNS over TCP and UDP goes to the agent. Its own questions have a connection-tracking zone of their own, so that they are
    not taken for answers to the application's with the same ports."""
    if not _redirects_dns(settings):
        return
    servers = settings.dns_servers_v4 if rules.version == 4 else settings.dns_servers_v6
    length = 32 if rules.version == 4 else 128
    to, source = [""], [""]
    if not settings.capture_all_dns:
        to = [f" -d {server}/{length}" for server in servers]
        source = [f" -s {server}/{length}" for server in servers]
    rules.add("raw", "OUTPUT", "-j ISTIO_OUTPUT_DNS")
    if to:
        rules.add("nat", "ISTIO_OUTPUT", "-j ISTIO_OUTPUT_DNS")
    for one in to:
        rules.add("nat", "ISTIO_OUTPUT_DNS", f"-p tcp --dport 53{one} -j REDIRECT --to-ports {DNS_PORT}")
    for one in to:
        rules.add("nat", "ISTIO_OUTPUT_DNS", f"-p udp --dport 53{one} -j REDIRECT --to-port {DNS_PORT}")
    for option, owners in (("--uid-owner", settings.proxy_uid), ("--gid-owner", settings.proxy_gid)):
        for owner in split(owners):
            rules.add("raw", "ISTIO_OUTPUT_DNS", f"-p udp --dport 53 -m owner {option} {owner} -j CT --zone 1")
            rules.add("raw", "ISTIO_OUTPUT_DNS", f"-p udp --sport {DNS_PORT} -m owner {option} {owner} -j CT --zone 2")
    if to:
        rules.add("raw", "PREROUTING", "-j ISTIO_INBOUND")
    for there, back in zip(to, source, strict=True):
        rules.add("raw", "ISTIO_OUTPUT_DNS", f"-p udp --dport 53{there} -j CT --zone 2")
        rules.add("raw", "ISTIO_INBOUND", f"-p udp --sport 53{back} -j CT --zone 1")


def _destinations(rules: _Plan, settings: Settings) -> None:
    rules.add("nat", "ISTIO_OUTPUT", f"-d {rules.loopback} -j RETURN")
    for network in of_version(rules.version, networks("-x", settings.outbound_ip_ranges_exclude)):
        rules.add("nat", "ISTIO_OUTPUT", f"-d {network} -j RETURN")
    for port in split(settings.outbound_ports_include):
        rules.add("nat", "ISTIO_OUTPUT", f"-p tcp --dport {port} -j ISTIO_REDIRECT")
    interfaces = split(settings.reroute_virtual_interfaces)
    if settings.outbound_ip_ranges_include == "*":
        rules.add("nat", "ISTIO_OUTPUT", "-j ISTIO_REDIRECT")
        for name in interfaces:
            rules.insert("nat", "PREROUTING", 1, f"-i {name} -j ISTIO_REDIRECT")
    for network in of_version(rules.version, networks("-i", settings.outbound_ip_ranges_include)):
        for name in interfaces:
            rules.insert("nat", "PREROUTING", 1, f"-i {name} -d {network} -j ISTIO_REDIRECT")
        rules.add("nat", "ISTIO_OUTPUT", f"-d {network} -j ISTIO_REDIRECT")


def _marks(rules: _Plan, settings: Settings) -> None:
    """TPROXY: packets of connections that the proxy made in the caller's name must come back to it, and no others."""
    mark = settings.inbound_tproxy_mark
    rules.add("mangle", "PREROUTING", f"-p tcp -m mark --mark {mark} -j CONNMARK --save-mark")
    rules.add("mangle", "OUTPUT", f"-p tcp -o lo -m mark --mark {mark} -j RETURN")
    for option, owners in (("--uid-owner", settings.proxy_uid), ("--gid-owner", settings.proxy_gid)):
        for owner in split(owners):
            own = f"! -d {rules.loopback} -p tcp -o lo -m owner {option} {owner}"
            rules.add("mangle", "OUTPUT", f"{own} -j MARK --set-mark {OUTBOUND_MARK}")
    rules.add("mangle", "OUTPUT", f"-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark")
    rules.insert("mangle", "ISTIO_INBOUND", 1, f"-p tcp -m mark --mark {mark} -j RETURN")
    rules.insert("mangle", "ISTIO_INBOUND", 2, f"-p tcp -s {PASSTHROUGH[rules.version]} -i lo -j RETURN")
    rules.insert("mangle", "ISTIO_INBOUND", 3, f"-p tcp -i lo -m mark ! --mark {OUTBOUND_MARK} -j RETURN")


def tables(rules: tuple[Rule, ...]) -> Iterator[tuple[str, list[str], list[Rule]]]:
    """(table, chains that are ours, rules) in the order of the tables' names."""
    for table in sorted({rule.table for rule in rules}):
        mine = [rule for rule in rules if rule.table == table]
        chains = dict.fromkeys(rule.chain for rule in mine if rule.chain not in BUILT_IN)
        # Chains that are jumped to and hold nothing must be there, too.
        targets = dict.fromkeys(rule.target for rule in mine if rule.target and rule.target not in BUILT_IN)
        yield table, [*chains, *(target for target in targets if target not in chains)], mine


def restore_text(rules: tuple[Rule, ...]) -> str:
    """For `iptables-restore --noflush`, where nothing of ours is there yet."""
    lines: list[str] = []
    for table, chains, mine in tables(rules):
        lines += [f"*{table}", *(f"-N {chain}" for chain in chains), *(rule.line() for rule in mine), "COMMIT"]
    return "".join(f"{line}\n" for line in lines)
