"""ORIGINAL_DST clusters: the endpoint is where the intercepted connection was going, or what a request header names.

Endpoints are made on demand and dropped when nobody chose them for a whole cleanup interval and no connection uses them.
"""

from __future__ import annotations

import asyncio
import ipaddress

from mesh_proxy.config.model import AddressConfig, ClusterConfig, EndpointConfig, LocalityConfig
from mesh_proxy.upstream.cluster import Cluster, LbContext
from mesh_proxy.upstream.endpoint import Endpoint
from mesh_proxy.upstream.environment import Environment

_NOWHERE = LocalityConfig()


class OriginalDstCluster(Cluster):
    """One endpoint per address that was asked for lately."""

    __slots__ = ("_by_address", "_header", "_timer", "_used")

    def __init__(self, config: ClusterConfig, environment: Environment) -> None:
        self._by_address: dict[tuple[str, int], Endpoint] = {}
        self._used: set[Endpoint] = set()
        """chosen since the last cleanup"""
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(config, environment)
        self._header = config.original_dst_http_header.encode()
        self.needs_context = True

    def start(self) -> None:
        """There is nothing to begin with."""
        self.refresh()

    def pick(self, context: LbContext | None = None) -> Endpoint | None:
        """The endpoint for the address, made if need be; None (counted) when no address is known."""
        address = self._address(context) if context is not None else None
        if address is None:
            return self._none()
        endpoint = self._by_address.get(address)
        if endpoint is None:
            endpoint = self._add(*address)
        self._used.add(endpoint)
        return endpoint

    def _address(self, context: LbContext) -> tuple[str, int] | None:
        if self._header and context.headers is not None:
            value = context.headers.get(self._header)
            if value is not None:
                address = parse_address(value)
                if address is not None:
                    return address
                self.stats.original_dst_host_invalid += 1
        return context.original_destination

    def _add(self, host: str, port: int) -> Endpoint:
        config = EndpointConfig(address=AddressConfig(host=host, port=port))
        endpoint = Endpoint(self.name, config, host, _NOWHERE, 0, "")
        endpoint.tls = self.transports.count(endpoint.metadata)
        endpoint.hostname = self.name + endpoint.address  # as Envoy names them
        self._by_address[host, port] = endpoint
        self._changed()
        if self._timer is None:
            self._schedule()
        return endpoint

    def _schedule(self) -> None:
        self._timer = self.environment.loop.call_later(self.config.cleanup_interval_s, self._clean_up)

    def _clean_up(self) -> None:
        self._timer = None
        used, self._used = self._used, set()
        idle = [
            (key, endpoint)
            for key, endpoint in self._by_address.items()
            if endpoint not in used and not endpoint.stats.cx_active and not endpoint.stats.rq_active
        ]
        for key, _ in idle:
            del self._by_address[key]
        if idle:
            self._changed()
            for _, endpoint in idle:
                self._remove(endpoint)
        if self._by_address:
            self._schedule()

    def _changed(self) -> None:
        self.endpoints = tuple(self._by_address.values())
        self.stats.membership_change += 1
        if self.outlier is not None:
            self.outlier.watch(self.endpoints)
        self.refresh()

    def refresh(self) -> None:
        """No choice to work out; health does not count either."""
        self.stats.membership_total = self.stats.membership_healthy = len(self.endpoints)

    def renew_members(self, renew: bool) -> None:
        """Endpoints stay as they are, or all go."""
        self._header = self.config.original_dst_http_header.encode()
        if renew:
            gone = self.endpoints
            self._by_address.clear()
            self._used.clear()
            self._changed()
            for endpoint in gone:
                self._remove(endpoint)

    def close(self, *, replaced: bool = False) -> None:
        """Stop cleaning up and let everything go."""
        if self._timer is not None:
            self._timer.cancel()
        self._by_address.clear()
        super().close(replaced=replaced)


def parse_address(value: bytes) -> tuple[str, int] | None:
    """`1.2.3.4:80` or `[::1]:80`; None for anything else."""
    host, colon, port = value.decode("latin-1").rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or not 0 <= int(port) <= 65535:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    if bracketed != (address.version == 6):
        return None
    return str(address), int(port)
