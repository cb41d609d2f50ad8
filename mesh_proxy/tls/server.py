"""TLS with the callers of a listener (`DownstreamTlsContext`)."""

from __future__ import annotations

import asyncio
import logging
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.config.model.tls import CertificateConfig, DownstreamTlsConfig, ValidationConfig
from mesh_proxy.tls.context import server_context
from mesh_proxy.tls.peer import TlsInfo
from mesh_proxy.tls.secrets import CurrentMaterial
from mesh_proxy.tls.stats import SocketFactoryStats, SslStats, count_by_name
from mesh_proxy.tls.transport import TlsTransport
from mesh_proxy.tls.validation import PeerRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from mesh_proxy.context import WorkerContext
    from mesh_proxy.deadlines import DeadlineQueue
    from mesh_proxy.listener.connection import ConnectionOwner
    from mesh_proxy.listener.listener import Listener
    from mesh_proxy.listener.mover import Mover
    from mesh_proxy.stream.info import ConnectionInfo

_log = logging.getLogger("tls")

HANDSHAKE_TIMEOUT_S: Final = 15.0
"""Without transport_socket_connect_timeout. Envoy waits for ever, which lets a caller hold descriptors for nothing."""
NO_CERTIFICATE: Final = "PEER_DID_NOT_RETURN_A_CERTIFICATE"


class TlsAcceptor:
    """The TLS of one filter chain. Raises ValueError for certificates that cannot be used."""

    __slots__ = ("_factory", "_material", "_named", "config", "queue", "stats", "updates")

    def __init__(
        self,
        config: DownstreamTlsConfig,
        context: WorkerContext,
        factory: Callable[[ConnectionInfo, Listener], asyncio.Protocol],
        listener_prefix: str,
        timeout_s: float | None,
    ) -> None:
        self.config = config
        self._factory = factory
        registry = context.registry
        self.stats = registry.get(SslStats, f"{listener_prefix}ssl.")
        self.updates = registry.get(SocketFactoryStats, f"{listener_prefix}server_ssl_socket_factory.")
        self._named = registry, f"{listener_prefix}ssl."
        self._material = CurrentMaterial(config, context.tls_secrets, self._make, self._changed)
        self.queue: DeadlineQueue = context.deadlines.queue("tls handshake", timeout_s or HANDSHAKE_TIMEOUT_S)

    def _make(
        self, config: DownstreamTlsConfig, certificates: tuple[CertificateConfig, ...], validation: ValidationConfig
    ) -> ssl.SSLContext:
        context = server_context(config, certificates, validation)
        context.sni_callback = self._on_server_name
        return context

    def _changed(self) -> None:
        self.updates.ssl_context_update_by_sds += 1

    def _on_server_name(self, connection: Any, name: str | None, context: ssl.SSLContext) -> int | None:
        if name is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if self.config.require_sni else None
        connection.mesh_server_name = name
        return None

    def make(self, info: ConnectionInfo, listener: Listener) -> asyncio.Protocol:
        """A connection that begins with a handshake."""
        return TlsServer(self, info, listener)

    def material(self) -> Any:
        """What counts now."""
        return self._material.get()

    def application(self, info: ConnectionInfo, listener: Listener) -> asyncio.Protocol:
        """What lies above."""
        return self._factory(info, listener)

    def count(self, resumed: bool, cipher: str, version: str) -> None:
        """One more handshake."""
        stats = self.stats
        stats.handshake += 1
        if resumed:
            stats.session_reused += 1
        registry, prefix = self._named
        count_by_name(registry, f"{prefix}ciphers.", cipher)
        count_by_name(registry, f"{prefix}versions.", version)


class TlsServer(TlsTransport):
    """One connection."""

    __slots__ = ("_acceptor", "_listener", "_material", "connection_info", "owner")

    def __init__(self, acceptor: TlsAcceptor, info: ConnectionInfo, listener: Listener) -> None:
        super().__init__()
        self._acceptor = acceptor
        self._listener = listener
        self.owner: ConnectionOwner = listener
        self.connection_info = info
        self._material = acceptor.material()
        context = self._material.context
        context.before_handshake()
        self._begin(context, True, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._attach(transport)
        self._acceptor.queue.add(self, monotonic())
        self.owner.connection_opened(self)

    def _established(self) -> None:
        acceptor, connection, info = self._acceptor, self.tls_object, self.connection_info
        acceptor.queue.discard(self)
        version = connection.version() or ""
        cipher = (connection.cipher() or ("",))[0]
        resumed = bool(connection.session_reused)
        acceptor.count(resumed, cipher, version)
        self._material.context.after_handshake(resumed)
        try:
            peer = self._material.check.check(connection)
        except PeerRefused as refused:
            self._refuse(refused.counter, str(refused))
            return
        if peer is None:
            acceptor.stats.no_certificate += 1
        self._flush()
        alpn = connection.selected_alpn_protocol() or ""
        name = getattr(connection, "mesh_server_name", "")
        info.tls = TlsInfo(
            version=version,
            cipher=cipher,
            alpn=alpn,
            server_name=name,
            peer=peer,
            local=self._material.local,
            peer_validated=peer is not None,
            resumed=resumed,
            connection=connection,
        )
        if name and not info.requested_server_name:
            info.requested_server_name = name.encode()
        if alpn:
            info.application_protocols = (alpn,)
        self._app = app = acceptor.application(info, self._listener)
        self._listener.inspected(self)
        app.connection_made(self)

    def _handshake_failed(self, error: ssl.SSLError) -> None:
        if isinstance(error, ssl.SSLCertVerificationError):
            self._refuse("fail_verify_error", error.verify_message)
        elif error.reason == NO_CERTIFICATE:
            self._refuse("fail_verify_no_cert", "the caller showed no certificate")
        else:
            self._refuse("connection_error", error.reason or str(error))

    def _refuse(self, counter: str, why: str) -> None:
        acceptor, info = self._acceptor, self.connection_info
        setattr(acceptor.stats, counter, getattr(acceptor.stats, counter) + 1)
        info.transport_failure = f"TLS_error: {why}"
        _log.debug("listener %s, %s: %s", self.owner.name, info.remote_address.decode(), why)
        self._closing = True
        self._raw.close()

    def _lost_early(self, exc: Exception | None) -> None:
        self._acceptor.queue.discard(self)
        if not self.connection_info.transport_failure:
            self._acceptor.stats.connection_error += 1
            self.connection_info.transport_failure = "TLS_error: the caller left during the handshake"
        self.owner.connection_closed(self)

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        """The handshake takes too long."""
        self._listener.stats.downstream_cx_transport_socket_connect_timeout += 1
        self.connection_info.transport_failure = "TLS_error: the handshake took too long"
        self.abort()

    # -- as any connection of a listener, until the handshake is done

    def close_when_idle(self) -> None:
        """Nothing was asked yet, but the caller may be about to: the handshake goes on, and what lies above is told."""

    def move(self, mover: Mover) -> None:
        """A TLS session lives in this process only."""
