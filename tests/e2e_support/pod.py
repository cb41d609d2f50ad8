"""A pod and another host: an application on both, and on the first a sidecar that gets its traffic, configured as istiod does."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bootstraps import EXT
from build_support import of_this_build
from netns_support import Cable, Namespace, need_program, readable_by_all
from parity.proxy import command

from e2e_support import backends
from e2e_support.sidecar import until

UID = "1337"
START_S = 60.0
SERVER_FIRST = b"220 who are you?\r\n"
PORTS = {"http": 8080, "grpc": 8081, "dubbo": 20880, "bytes": 9000, "first": 3306, "excluded": 9999}
LISTENER_FILTERS = EXT + "filters.listener."
Tree = dict[str, Any]


class Host:
    """Servers in a namespace, on both IP versions: HTTP, gRPC, Dubbo, echo, and one that speaks first. `peers`: who connected."""

    def __init__(self, namespace: Namespace) -> None:
        self.peers: dict[str, list[str]] = {name: [] for name in PORTS}
        self._namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="host")
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.BaseTransport] = set()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    async def _start(self) -> None:
        kinds: dict[str, type[backends.Endpoint]] = {
            "http": backends.Http1,
            "grpc": backends.Grpc,
            "dubbo": backends.Dubbo,
            "bytes": backends.Echo,
            "first": _SpeaksFirst,
            "excluded": backends.Echo,
        }
        for name, kind in kinds.items():
            for host in ("0.0.0.0", "::"):
                with self._namespace.inside():
                    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if ":" in host:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((host, PORTS[name]))
                self._servers.append(await self._loop.create_server(self._noting(name, kind), sock=sock))

    def _noting(self, name: str, kind: type[backends.Endpoint]) -> Callable[[], asyncio.Protocol]:
        """The kind, that also notes who connects."""
        host = self

        class Noting(kind):  # type: ignore[misc,valid-type]
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                host.peers[name].append(transport.get_extra_info("peername")[0])
                host._open.add(transport)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                host._open.discard(self.transport)
                super().connection_lost(error)

        return Noting

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for transport in tuple(self._open):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
        while self._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class _SpeaksFirst(backends.Echo):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(SERVER_FIRST)


# The configuration


def _typed(name: str, kind: str, **fields: Any) -> Tree:
    return {"name": name, "typed_config": {"@type": EXT + kind, **fields}}


def tcp(cluster: str) -> Tree:
    return _typed("tcp", "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=cluster, cluster=cluster)


def http(prefix: str, cluster: str) -> Tree:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]
    return _typed(
        "http",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=prefix,
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[_typed("router", "filters.http.router.v3.Router")],
    )


def dubbo(prefix: str, cluster: str) -> Tree:
    route = {"match": {"method": {"name": {"safe_regex": {"regex": ".*"}}}}, "route": {"cluster": cluster}}
    return _typed(
        "dubbo",
        "filters.network.dubbo_proxy.v3.DubboProxy",
        stat_prefix=prefix,
        multiple_route_config={"name": "all", "route_config": [{"name": "all", "interface": "*", "routes": [route]}]},
    )


def _address(host: str, port: int) -> Tree:
    return {"socket_address": {"address": host, "port_value": port}}


def _both(port: int) -> Tree:
    return {"address": _address("0.0.0.0", port), "additional_addresses": [{"address": _address("::", port)}]}


def _http_inspector(*without: int) -> Tree:
    rules = [{"destination_port_range": {"start": port, "end": port + 1}} for port in without]
    return {
        **_typed("http_inspector", "filters.listener.http_inspector.v3.HttpInspector"),
        "filter_disabled": {"or_match": {"rules": [*rules, *rules]}},
    }


HTTP_MATCH = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}


def configuration(*, transparent: bool = False, original_src: bool = False, admin: int = 15000) -> Tree:
    """virtualInbound and virtualOutbound as istiod lays them out, the plain-text part."""
    sources = [_typed("envoy.filters.listener.original_src", "filters.listener.original_src.v3.OriginalSrc", mark=1337)]
    inbound = {
        "name": "virtualInbound",
        **_both(15006),
        "transparent": transparent,
        "traffic_direction": "INBOUND",
        "continue_on_listener_filters_timeout": True,
        "listener_filters_timeout": "0s",
        "listener_filters": [
            _typed("original_dst", "filters.listener.original_dst.v3.OriginalDst"),
            *(sources if original_src else []),
            _http_inspector(PORTS["first"], PORTS["dubbo"], PORTS["bytes"], 15006),
        ],
        "filter_chains": [
            {
                "name": "virtualInbound-blackhole",
                "filter_chain_match": {"destination_port": 15006},
                "filters": [tcp("BlackHoleCluster")],
            },
            {
                "name": "virtualInbound-catchall-http",
                "filter_chain_match": HTTP_MATCH,
                "filters": [http("inbound", "InboundPassthroughCluster")],
            },
            {
                "name": "0.0.0.0_20880",
                "filter_chain_match": {"destination_port": PORTS["dubbo"]},
                "filters": [dubbo("inbound", "inbound|20880||")],
            },
            {
                "name": "virtualInbound",
                "filter_chain_match": {"transport_protocol": "raw_buffer"},
                "filters": [tcp("InboundPassthroughCluster")],
            },
        ],
    }
    outbound = {
        "name": "virtualOutbound",
        **_both(15001),
        "transparent": transparent,
        "traffic_direction": "OUTBOUND",
        "use_original_dst": True,
        "filter_chains": [
            {
                "name": "virtualOutbound-blackhole",
                "filter_chain_match": {"destination_port": 15001},
                "filters": [tcp("BlackHoleCluster")],
            },
            {"name": "virtualOutbound-catchall-tcp", "filters": [tcp("PassthroughCluster")]},
        ],
    }
    by_port = [
        {
            "name": f"0.0.0.0_{PORTS['http']}",
            **_both(PORTS["http"]),
            "bind_to_port": False,
            "traffic_direction": "OUTBOUND",
            "continue_on_listener_filters_timeout": True,
            "listener_filters": [_typed("http_inspector", "filters.listener.http_inspector.v3.HttpInspector")],
            "filter_chains": [{"filter_chain_match": HTTP_MATCH, "filters": [http("outbound", "PassthroughCluster")]}],
            "default_filter_chain": {"name": "PassthroughFilterChain", "filters": [tcp("PassthroughCluster")]},
        },
        {
            "name": f"0.0.0.0_{PORTS['dubbo']}",
            **_both(PORTS["dubbo"]),
            "bind_to_port": False,
            "traffic_direction": "OUTBOUND",
            "filter_chains": [{"filters": [dubbo("outbound", "PassthroughCluster")]}],
        },
        {
            "name": f"{Cable.THERE}_{PORTS['bytes']}",
            "address": _address(Cable.THERE, PORTS["bytes"]),
            "bind_to_port": False,
            "traffic_direction": "OUTBOUND",
            "filter_chains": [{"filters": [tcp("PassthroughCluster")]}],
        },
    ]
    same_protocol = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": EXT + "upstreams.http.v3.HttpProtocolOptions",
            "use_downstream_protocol_config": {"http2_protocol_options": {}},
        }
    }
    original: Tree = {"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "typed_extension_protocol_options": same_protocol}
    to_application = {
        **original,
        "upstream_bind_config": {
            "source_address": {"address": "127.0.0.6", "port_value": 0},
            "additional_source_addresses": [{"address": "::6", "port_value": 0}],
        },
    }
    return {
        "admin": {"address": _address("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [inbound, outbound, *by_port],
            "clusters": [
                {"name": "BlackHoleCluster", "type": "STATIC"},
                {"name": "PassthroughCluster", **original},
                {"name": "InboundPassthroughCluster", **to_application},
                {"name": "inbound|20880||", **to_application},
            ],
        },
    }


# The sidecar


class Pod:
    """The sidecar in the first namespace of a cable, as user 1337."""

    def __init__(
        self,
        cable: Cable,
        config: Tree,
        *,
        user: str = UID,
        capabilities: str = "",
        environment: dict[str, str] | None = None,
        flags: tuple[str, ...] = ("--disable-hot-restart",),
        kind: str = "mesh-proxy",
    ) -> None:
        self.cable = cable
        self.host = cable.here
        self.directory = tempfile.TemporaryDirectory(prefix="pod-")
        path = Path(self.directory.name)
        self.file = path / "proxy.json"
        self.file.write_text(json.dumps(config, indent=1))
        readable_by_all(self.file)
        need_program("nsenter")
        python = [sys.executable, "-c", "import mesh_proxy.supervisor.run"]
        if subprocess.run(self.host.command(*python, user=UID), capture_output=True, check=False).returncode:
            pytest.skip(f"user {UID} cannot read this installation")
        # As Istio's injector has it: the group is the one that the rules know, whatever the user.
        self.log = path / "output.log"
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                self.host.command(
                    *command(kind),
                    *("-c", str(self.file), "--concurrency", "1"),
                    *("--log-level", "warning", *flags),
                    user=user,
                    group=UID,
                    capabilities=capabilities,
                ),
                stdout=sink,
                stderr=sink,
                env={**os.environ, **(environment or {}), "HOME": "/"},
            )
        try:
            until("the sidecar is live", self._live, START_S)
            if kind != "envoy":
                of_this_build(self.process.pid)
        except BaseException:
            self.close()
            raise

    def _live(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.admin("GET", "/ready").startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def admin(self, method: str, path: str, port: int = 15000) -> bytes:
        """The whole answer."""
        with self.host.connect("127.0.0.1", port) as sock:
            sock.sendall(
                f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
            )
            answer = b""
            while data := sock.recv(65536):
                answer += data
        return answer

    def stats(self) -> dict[str, int]:
        body = self.admin("GET", "/stats").partition(b"\r\n\r\n")[2].decode()
        lines = [line.rpartition(": ") for line in body.splitlines()]
        return {name: int(value) for name, _, value in lines if value.isdigit()}

    def accepted(self, listener: str) -> int:
        """Connections that a listener has taken."""
        return self.stats().get(f"listener.{listener}.downstream_cx_total", 0)

    def iptables(self, *words: str) -> str:
        """`mesh-proxy iptables …` in the pod, as root."""
        return self.host.run(sys.executable, "-m", "mesh_proxy", "iptables", *words)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        print(self.log.read_text()[-4000:])
        self.directory.cleanup()
