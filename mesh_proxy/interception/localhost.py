"""`mesh-proxy localhost`: a bootstrap from a short description of the ports of one application.

The application is told other addresses instead of having its connections redirected: what it provides on 20880 is reached by
others as the sidecar's 20881, and what it consumes it finds on 127.0.0.1:20882, or on a unix socket.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap

PROTOCOLS: Final = ("dubbo", "http", "grpc", "tcp")
UNIX_MODE: Final = 0o660
"""of the sockets that the sidecar makes: for the application, if it has the same group"""
_EXT: Final = "type.googleapis.com/envoy.extensions."
Tree = dict[str, Any]


class DescriptionError(ValueError):
    """The description makes no sense; the message says which part."""


@dataclass(frozen=True, slots=True)
class Address:
    """A port of a host, or a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_name(self) -> bool:
        """A DNS name."""
        if self.path:
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    def tree(self, *, listening: bool = False) -> Tree:
        """`envoy.config.core.v3.Address`."""
        if self.path:
            return {"pipe": {"path": self.path, **({"mode": UNIX_MODE} if listening and not self.path.startswith("@") else {})}}
        return {"socket_address": {"address": self.host, "port_value": self.port}}


@dataclass(frozen=True, slots=True)
class Port:
    """One port that the sidecar opens, and where it leads."""

    protocol: str
    listen: Address
    to: tuple[Address, ...]
    provider: bool
    """it leads to the application; else from it"""

    @property
    def name(self) -> str:
        """Of its listener and cluster."""
        return f"{'provider' if self.provider else 'consumer'}_{self.protocol}_{self.listen.path or self.listen.port}"


def parse_address(text: str, default_host: str) -> Address:
    """`20881`, `HOST:PORT`, `[IPv6]:PORT`, `/path`, `@name` or `unix:/path`. Raises DescriptionError."""
    text = str(text).strip().removeprefix("unix:")
    if text.startswith(("/", "@")) and len(text) > 1:
        return Address(path=text)
    host, colon, port = text.rpartition(":")
    if not colon:
        host = default_host
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise DescriptionError(f"{text!r} is no port, HOST:PORT or path of a unix socket")
    return Address(host=host, port=int(port))


def parse_port(text: str, *, provider: bool) -> Port:
    """`[PROTOCOL:]LISTEN=TARGET[,TARGET…]`. Raises DescriptionError."""
    listen, equals, targets = text.partition("=")
    protocol, colon, rest = listen.partition(":")
    if not colon or protocol not in PROTOCOLS:
        protocol, rest = PROTOCOLS[0], listen
    if not equals or not targets:
        raise DescriptionError(f"{text!r}: say [PROTOCOL:]LISTEN=TARGET")
    return make_port(protocol, rest, targets.split(","), provider=provider)


def make_port(protocol: str, listen: Any, targets: Sequence[Any], *, provider: bool) -> Port:
    """A port of its parts. A provider's is open to all, a consumer's to the application alone. Raises DescriptionError."""
    if protocol not in PROTOCOLS:
        raise DescriptionError(f"protocol {protocol!r}: one of {', '.join(PROTOCOLS)}")
    if not targets:
        raise DescriptionError(f"{listen}: it leads nowhere")
    address = parse_address(listen, "0.0.0.0" if provider else "127.0.0.1")
    if address.is_name:
        raise DescriptionError(f"{listen}: an IP address is needed to listen on, not a name")
    to = tuple(parse_address(target, "127.0.0.1") for target in targets)
    if address in to:
        raise DescriptionError(f"{address}: it leads to itself")
    return Port(protocol, address, to, provider)


def read_file(path: str) -> tuple[list[Port], str]:
    """(ports, admin address) of a short file. Raises DescriptionError."""
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise DescriptionError(f"{path}: {error}") from None
    if not isinstance(found, dict) or set(found) - {"providers", "consumers", "admin"}:
        raise DescriptionError(f"{path}: a mapping with providers, consumers and admin is needed")
    ports = []
    for key, target, provider in (("providers", "application", True), ("consumers", "endpoints", False)):
        for number, entry in enumerate(found.get(key) or ()):
            where = f"{path}: {key}[{number}]"
            if not isinstance(entry, dict) or set(entry) - {"protocol", "listen", target} or not {"listen", target} <= set(entry):
                raise DescriptionError(f"{where}: needs listen and {target}, and may have protocol")
            targets = entry[target] if isinstance(entry[target], list) else [entry[target]]
            try:
                ports.append(make_port(entry.get("protocol", PROTOCOLS[0]), entry["listen"], targets, provider=provider))
            except DescriptionError as error:
                raise DescriptionError(f"{where}: {error}") from None
    return ports, str(found.get("admin") or "")


def bootstrap(ports: Sequence[Port], admin: str) -> Tree:
    """The configuration. Raises DescriptionError."""
    if not ports:
        raise DescriptionError("no port is described")
    taken: set[Address] = set()
    for port in ports:
        if port.listen in taken:
            raise DescriptionError(f"{port.listen}: it is there twice")
        taken.add(port.listen)
    tree: Tree = {"static_resources": {"listeners": [_listener(p) for p in ports], "clusters": [_cluster(p) for p in ports]}}
    return {"admin": {"address": parse_address(admin, "127.0.0.1").tree()}, **tree} if admin else tree


def _typed(name: str, kind: str, **fields: Any) -> Tree:
    return {"name": name, "typed_config": {"@type": _EXT + kind, **fields}}


def _listener(port: Port) -> Tree:
    name = port.name
    match port.protocol:
        case "dubbo":
            match: Tree = {"method": {"name": {"safe_regex": {"regex": ".*"}}}}
            routes: list[Tree] = [{"name": name, "interface": "*", "routes": [{"match": match, "route": {"cluster": name}}]}]
            last = _typed(
                "envoy.filters.network.dubbo_proxy",
                "filters.network.dubbo_proxy.v3.DubboProxy",
                stat_prefix=name,
                multiple_route_config={"name": name, "route_config": routes},
            )
        case "http" | "grpc":
            # A call takes as long as it takes: the time-out is the application's, as it was without the sidecar.
            routes = [{"match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}]
            last = _typed(
                "envoy.filters.network.http_connection_manager",
                "filters.network.http_connection_manager.v3.HttpConnectionManager",
                stat_prefix=name,
                route_config={"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
                http_filters=[_typed("envoy.filters.http.router", "filters.http.router.v3.Router")],
            )
        case _:
            last = _typed(
                "envoy.filters.network.tcp_proxy", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=name, cluster=name
            )
    return {
        "name": name,
        "address": port.listen.tree(listening=True),
        "traffic_direction": "INBOUND" if port.provider else "OUTBOUND",
        "filter_chains": [{"filters": [last]}],
    }


def _cluster(port: Port) -> Tree:
    endpoints = [{"endpoint": {"address": target.tree()}} for target in port.to]
    found: Tree = {
        "name": port.name,
        "type": "STRICT_DNS" if any(target.is_name for target in port.to) else "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": port.name, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    kind = {"http": "use_downstream_protocol_config", "grpc": "explicit_http_config"}.get(port.protocol)
    if kind is not None:
        name = "upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": _EXT + name, kind: {"http2_protocol_options": {}}}
        found["typed_extension_protocol_options"] = {f"envoy.extensions.{name}": options}
    return found


def localhost(arguments: Sequence[str], prog: str) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog=f"{prog} localhost",
        allow_abbrev=False,
        description="Write a bootstrap for an application that is told the sidecar's addresses. PROTOCOL is dubbo (if none is "
        "given), http, grpc or tcp; LISTEN is a port, HOST:PORT or the path of a unix socket; TARGET likewise, or NAME:PORT.",
    )
    parser.add_argument("--provider", metavar="[PROTOCOL:]LISTEN=TARGET", action="append", default=[], help="e.g. 20881=20880")
    parser.add_argument(
        "--consumer",
        metavar="[PROTOCOL:]LISTEN=TARGET,…",
        action="append",
        default=[],
        help="e.g. 20882=10.0.0.1:20881,10.0.0.2:20881 or http:/run/app/web.sock=web.default.svc:80",
    )
    parser.add_argument("--file", metavar="FILE", help="a short YAML file with the same (docs/interception.md)")
    parser.add_argument("--admin", metavar="HOST:PORT", default="", help="admin interface [127.0.0.1:15000]; none: without")
    parser.add_argument("-o", "--output", metavar="FILE", help="[standard output]")
    given = parser.parse_args(arguments)
    try:
        ports, admin = read_file(given.file) if given.file else ([], "")
        ports += [parse_port(text, provider=True) for text in given.provider]
        ports += [parse_port(text, provider=False) for text in given.consumer]
        admin = given.admin or admin or "127.0.0.1:15000"
        tree = bootstrap(ports, "" if admin == "none" else admin)
        text = yaml.safe_dump(tree, sort_keys=False, default_flow_style=False, width=120)
        load_bootstrap(None, text)  # nothing leaves here that the proxy would refuse
        if given.output:
            Path(given.output).write_text(text)
        else:
            print(text, end="")
    except (DescriptionError, ConfigError, OSError) as error:
        print(f"{prog} localhost: {error}", file=sys.stderr)
        return 1
    return 0
