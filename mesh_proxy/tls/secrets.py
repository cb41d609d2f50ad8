"""The secrets that a worker has now, and contexts made of them that are made anew when one of them changes."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from mesh_proxy.config.model import ClusterConfig
from mesh_proxy.config.model.tls import CertificateConfig, DownstreamTlsConfig, SecretConfig, UpstreamTlsConfig, ValidationConfig
from mesh_proxy.config.model.twin import AnyClusterConfig, ClusterTwin
from mesh_proxy.tls.certificate import Certificate, certificates_in
from mesh_proxy.tls.validation import PeerCheck

if TYPE_CHECKING:
    from mesh_proxy.config.model import ListenerConfig
    from mesh_proxy.config.model.tls import CommonTlsConfig

_log = logging.getLogger("tls")

C = TypeVar("C", DownstreamTlsConfig, UpstreamTlsConfig)
Make = Callable[[C, tuple[CertificateConfig, ...], ValidationConfig], ssl.SSLContext]


def secrets_of(resources: Iterable[ListenerConfig | AnyClusterConfig]) -> Iterator[SecretConfig]:
    """Those that listeners and clusters bring along."""
    for resource in resources:
        yield from resource.tls_secrets


def inline_bundles(resources: Iterable[ListenerConfig | AnyClusterConfig]) -> Iterator[SecretConfig]:
    """What stands in transport sockets themselves, as if it were secrets: for people."""
    for resource in resources:
        for place, common in enumerate(_sockets(resource)):
            if common.validation.has_anchor:
                yield SecretConfig(name=f"{resource.name}/{place}", validation=common.validation)


def _sockets(resource: ListenerConfig | AnyClusterConfig) -> Iterator[CommonTlsConfig]:
    if isinstance(resource, ClusterTwin):
        return
    sockets: list[DownstreamTlsConfig | UpstreamTlsConfig | None]
    if isinstance(resource, ClusterConfig):
        sockets = [resource.transport_socket, *(match.socket for match in resource.transport_matches)]
    else:
        chains = (*resource.filter_chains, resource.default_filter_chain)
        sockets = [chain.transport_socket for chain in chains if chain is not None]
    yield from (socket.common for socket in sockets if socket is not None)


class SecretStore:
    """Secrets by name."""

    __slots__ = ("_secrets", "generation")

    def __init__(self, secrets: Iterable[SecretConfig] = ()) -> None:
        self._secrets: Mapping[str, SecretConfig] = {secret.name: secret for secret in secrets}
        self.generation = 0
        """grows when a secret changes"""

    def replace(self, secrets: Iterable[SecretConfig]) -> None:
        """Have exactly these."""
        fresh = {secret.name: secret for secret in secrets}
        if fresh != self._secrets:
            self._secrets = fresh
            self.generation += 1

    def certificates(self, config: CommonTlsConfig) -> tuple[CertificateConfig, ...]:
        """Those of a transport socket. Raises ValueError when one is missing."""
        found: list[CertificateConfig] = []
        for name in config.certificates:
            secret = self._secrets.get(name)
            if secret is None or secret.certificate is None:
                raise ValueError(f"there is no certificate {name!r}")
            found.append(secret.certificate)
        return tuple(found)

    def validation(self, config: CommonTlsConfig) -> ValidationConfig:
        """What a transport socket asks of peers. Raises ValueError when a secret is missing."""
        if not config.validation_secret:
            return config.validation
        secret = self._secrets.get(config.validation_secret)
        if secret is None or secret.validation is None:
            raise ValueError(f"there is no validation context {config.validation_secret!r}")
        return merged(config.validation, secret.validation)


def merged(base: ValidationConfig, over: ValidationConfig) -> ValidationConfig:
    """As protobufs merge: single values are replaced where they are set, lists are joined."""
    return replace(
        base,
        trusted_ca=over.trusted_ca or base.trusted_ca,
        trust_domains=over.trust_domains or base.trust_domains,
        crl=over.crl or base.crl,
        only_leaf_crl=over.only_leaf_crl or base.only_leaf_crl,
        subject_alt_names=base.subject_alt_names + over.subject_alt_names,
        spki_pins=base.spki_pins + over.spki_pins,
        hashes=base.hashes + over.hashes,
        allow_expired=over.allow_expired or base.allow_expired,
        max_depth=base.max_depth if over.max_depth is None else over.max_depth,
    )


class Material:
    """A context with what belongs to it."""

    __slots__ = ("check", "context", "local", "sources")

    def __init__(
        self, context: ssl.SSLContext, check: PeerCheck, local: Certificate | None, sources: tuple[object, ...] = ()
    ) -> None:
        self.context = context
        self.check = check
        self.local = local
        """our own certificate, for logs"""
        self.sources = sources
        """what it was made of"""


class CurrentMaterial(Generic[C]):
    """What new handshakes use. Raises ValueError when it cannot be made for the first time; later the old one is kept."""

    __slots__ = ("_config", "_generation", "_make", "_material", "_on_change", "_rsa_usage", "_store")

    def __init__(
        self, config: C, store: SecretStore, make: Make[C], on_change: Callable[[], None], *, rsa_usage: bool = False
    ) -> None:
        self._config: C = config
        self._store = store
        self._make: Make[C] = make
        self._on_change = on_change
        self._rsa_usage = rsa_usage
        self._generation = store.generation
        self._material = self._build()

    def _build(self) -> Material:
        certificates = self._store.certificates(self._config.common)
        validation = self._store.validation(self._config.common)
        context = self._make(self._config, certificates, validation)
        local = certificates_in(certificates[0].chain)[0] if certificates else None
        return Material(context, PeerCheck(validation, rsa_key_usage=self._rsa_usage), local, (certificates, validation))

    def get(self) -> Material:
        """Look whether a secret changed, and give what counts now."""
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            try:
                sources = (self._store.certificates(self._config.common), self._store.validation(self._config.common))
                if sources != self._material.sources:
                    self._material = self._build()
                    self._on_change()
            except (ValueError, IndexError) as error:
                _log.error("a secret cannot be used, the one before it stays: %s", error)
        return self._material
