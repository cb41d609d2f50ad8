"""TLS with the endpoints of a cluster (`UpstreamTlsContext`)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mesh_proxy.config.model.tls import UpstreamTlsConfig
from mesh_proxy.tls.context import client_context
from mesh_proxy.tls.secrets import CurrentMaterial, Material, SecretStore
from mesh_proxy.tls.stats import SocketFactoryStats, SslStats, count_by_name
from mesh_proxy.tls.transport import TlsTransport
from mesh_proxy.tls.validation import PeerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh_proxy.stats.registry import StatRegistry
    from mesh_proxy.upstream.endpoint import Endpoint

_log = logging.getLogger("tls")

MOST_SESSIONS: Final = 1024
"""endpoints of which a session is kept"""


Key = tuple[str, str]
"""address and server name"""


class TlsFailed(OSError):
    """No TLS connection came to be; the text is for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`."""


class TlsConnector:
    """One of a cluster's TLS transport sockets. Raises ValueError for certificates that cannot be used."""

    __slots__ = ("_material", "_named", "_offering", "_open", "_secrets", "_sessions", "config", "stats", "updates")

    def __init__(self, config: UpstreamTlsConfig, secrets: SecretStore, registry: StatRegistry, cluster_prefix: str) -> None:
        self.config = config
        self.stats = registry.get(SslStats, f"{cluster_prefix}ssl.")
        self.updates = registry.get(SocketFactoryStats, f"{cluster_prefix}client_ssl_socket_factory.")
        self._named = registry, f"{cluster_prefix}ssl."
        self._secrets = secrets
        self._offering: dict[tuple[str, ...], TlsConnector] = {}
        self._sessions: dict[Key, ssl.SSLSession] = {}
        self._open: dict[Key, TlsClient] = {}
        """the newest connection to each endpoint, as long as its session was not taken"""
        self._material = CurrentMaterial(config, secrets, client_context, self._changed, rsa_usage=config.enforce_rsa_key_usage)

    def _changed(self) -> None:
        self._sessions.clear()
        self._open.clear()
        self.updates.ssl_context_update_by_sds += 1

    def offering(self, alpn: tuple[str, ...]) -> TlsConnector:
        """The same with other names in ALPN; there are as many as listeners ask for. Raises ValueError."""
        found = self._offering.get(alpn)
        if found is None:
            config = replace(self.config, common=replace(self.config.common, alpn=alpn))
            registry, prefix = self._named
            found = TlsConnector(config, self._secrets, registry, prefix.removesuffix("ssl."))
            self._offering[alpn] = found
        return found

    def connection(self, endpoint: Endpoint, factory: Callable[[], asyncio.Protocol], done: asyncio.Future[None]) -> TlsClient:
        """The protocol of a new connection; `done` is set when the handshake is, or has failed."""
        name = self.config.sni or (endpoint.hostname if self.config.auto_host_sni else "")
        material = self._material.get()
        return TlsClient(self, material, name, (endpoint.address, name), factory, done)

    def session(self, key: Key, material: Material) -> ssl.SSLSession | None:
        """One to resume; it is used once (RFC 8446, C.4). What is kept is of this material, as a change forgets all of it."""
        session = self._sessions.pop(key, None)
        if session is None and key in self._open:
            session = self._open.pop(key).take_session(material)
        return session

    def opened(self, key: Key, connection: TlsClient) -> None:
        """The endpoint has sent something, so its ticket is there too. The `ssl` module copies a session that it gives out, with
        all certificates in it: that is done when somebody can use it."""
        self._open[key] = connection

    def closed(self, key: Key, connection: TlsClient) -> None:
        """A connection is gone: the last one of its endpoint leaves its session behind."""
        if self._open.get(key) is connection:
            del self._open[key]
            if key not in self._sessions:
                session = connection.take_session(self._material.get())
                if session is not None:
                    if len(self._sessions) >= MOST_SESSIONS:
                        self._sessions.pop(next(iter(self._sessions)))
                    self._sessions[key] = session

    def close(self) -> None:
        """Withdraw the statistics."""
        registry, prefix = self._named
        for group in [one for one in registry if one.prefix.startswith(prefix)]:
            registry.remove(group)
        registry.remove(self.updates)

    def count(self, connection: ssl.SSLObject) -> None:
        """One more handshake."""
        stats = self.stats
        stats.handshake += 1
        if connection.session_reused:
            stats.session_reused += 1
        registry, prefix = self._named
        count_by_name(registry, f"{prefix}ciphers.", (connection.cipher() or ("",))[0])
        count_by_name(registry, f"{prefix}versions.", connection.version() or "")


class TlsClient(TlsTransport):
    """One connection."""

    __slots__ = ("_connector", "_done", "_factory", "_failure", "_key", "_material", "_name", "app")

    def __init__(
        self,
        connector: TlsConnector,
        material: Material,
        name: str,
        key: Key,
        factory: Callable[[], asyncio.Protocol],
        done: asyncio.Future[None],
    ) -> None:
        super().__init__()
        self._connector = connector
        self._material = material
        self._name = name
        self._key = key
        self._factory = factory
        self._done = done
        self._failure = ""
        self.app: asyncio.Protocol
        """what lies above, once `done` is"""
        self._begin(material.context, False, name or None, connector.session(key, material))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attach(transport)
        self._handshake()

    def _established(self) -> None:
        connector, connection = self._connector, self.tls_object
        connector.count(connection)
        host = self._name if connector.config.auto_san_check else ""
        try:
            self._material.check.check(connection, host)
        except PeerRefused as refused:
            self._refuse(refused.counter, str(refused))
            return
        if self._done.done():
            self.abort()  # nobody waits any more
            return
        self._flush()
        self._app = self.app = self._factory()
        self.app.connection_made(self)
        self._done.set_result(None)
        if connector.config.resumption:
            self._read = self._read_first

    def _read_first(self, size: int) -> bytes:
        self._read = self._inner.read
        self._connector.opened(self._key, self)
        piece: bytes = self._read(size)
        return piece

    def take_session(self, material: Material) -> ssl.SSLSession | None:
        """To resume; None when the endpoint gave no ticket, or when other certificates count by now."""
        session = self.tls_object.session if material is self._material else None
        return session if session is not None and session.has_ticket else None

    def _handshake_failed(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLCertVerificationError):
            self._refuse("fail_verify_error", f"certificate verify failed: {error.verify_message}")
        else:
            self._refuse("connection_error", error.reason or str(error))

    def _refuse(self, counter: str, why: str) -> None:
        stats = self._connector.stats
        setattr(stats, counter, getattr(stats, counter) + 1)
        self._failure = f"TLS_error: {why}"
        self._closing = True
        self._raw.close()

    def _lost_early(self, exc: Exception | None) -> None:
        if not self._failure:
            self._connector.stats.connection_error += 1
        if not self._done.done():
            self._done.set_exception(TlsFailed(self._failure or "TLS_error: the endpoint left during the handshake"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._read = self._inner.read
        self._connector.closed(self._key, self)
        super().connection_lost(exc)
