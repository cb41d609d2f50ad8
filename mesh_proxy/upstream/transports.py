"""Which transport socket an endpoint gets (`transport_socket_matches`, `transport_socket`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.stats.cluster_group import TransportSocketMatchStats
from mesh_proxy.tls.client import TlsConnector

if TYPE_CHECKING:
    from mesh_proxy.config.model import ClusterConfig
    from mesh_proxy.config.model.tls import UpstreamTlsConfig
    from mesh_proxy.stats.registry import StatRegistry
    from mesh_proxy.tls.secrets import SecretStore

METADATA: Final = "envoy.transport_socket_match"
"""what of an endpoint's metadata counts"""


class Transports:
    """Those of one cluster. Raises ValueError for certificates that cannot be used."""

    __slots__ = ("_groups", "_matches", "_otherwise", "_registry")

    def __init__(self, config: ClusterConfig, secrets: SecretStore, registry: StatRegistry, prefix: str) -> None:
        def connector(socket: UpstreamTlsConfig | None) -> TlsConnector | None:
            return TlsConnector(socket, secrets, registry, prefix) if socket is not None else None

        self._registry = registry
        self._otherwise = connector(config.transport_socket)
        self._matches = tuple((one.match, connector(one.socket)) for one in config.transport_matches)
        names = (*(one.name for one in config.transport_matches), "default")
        self._groups = tuple(registry.get(TransportSocketMatchStats, f"{prefix}{name}.") for name in names)

    def choose(self, metadata: Mapping[str, Any]) -> TlsConnector | None:
        """By the endpoint's metadata; None = plain text."""
        return self._find(metadata)[0]

    def count(self, metadata: Mapping[str, Any]) -> TlsConnector | None:
        """The same for a new endpoint."""
        connector, place = self._find(metadata)
        self._groups[place].total_match_count += 1
        return connector

    def _find(self, metadata: Mapping[str, Any]) -> tuple[TlsConnector | None, int]:
        if self._matches:
            labels = metadata.get(METADATA) or {}
            for place, (match, connector) in enumerate(self._matches):
                if all(key in labels and labels[key] == value for key, value in match):
                    return connector, place
        return self._otherwise, -1

    def close(self) -> None:
        """The cluster is gone, or has another name in statistics."""
        for group in self._groups:
            self._registry.remove(group)
        for one in (self._otherwise, *(connector for _, connector in self._matches)):
            if one is not None:
                one.close()
