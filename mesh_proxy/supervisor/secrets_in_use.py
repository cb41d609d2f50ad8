"""The certificates, keys and trust bundles that the workers use, and the files that they come from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mesh_proxy.tls.secrets import inline_bundles, secrets_of

if TYPE_CHECKING:
    from mesh_proxy.config.model import ListenerConfig
    from mesh_proxy.config.model.tls import SecretConfig
    from mesh_proxy.config.model.twin import AnyClusterConfig
    from mesh_proxy.supervisor.supervisor import Supervisor
    from mesh_proxy.tls.rotation import SecretRotation


class SecretsInUse:
    """One per supervisor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, supervisor: Supervisor) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._rotation: SecretRotation | None = None
        """None while no secret comes from a file"""

    @property
    def all(self) -> tuple[SecretConfig, ...]:
        """The certificates, keys and trust bundles in use, each once."""
        snapshot = self._supervisor.snapshot
        if snapshot is None:
            return ()
        resources: list[ListenerConfig | AnyClusterConfig] = [*snapshot.listeners, *snapshot.clusters]
        found = {secret.name: secret for secret in (*secrets_of(resources), *inline_bundles(resources))}
        return tuple((found | {secret.name: secret for secret in snapshot.rotated_secrets}).values())

    @property
    def refused(self) -> dict[str, tuple[float, str]]:
        """Secrets whose last version was refused: name → seconds since 1970, why."""
        return self._rotation.refused if self._rotation is not None else {}

    @property
    def times(self) -> dict[str, float]:
        """When secrets got their newest version, in seconds since 1970; those that never changed are not there."""
        return self._rotation.updated if self._rotation is not None else {}

    def watch(self) -> None:
        """Follow the files of the secrets that are in use."""
        secrets = self.all
        if self._rotation is None and any(secret.source is not None for secret in secrets):
            from mesh_proxy.tls.rotation import SecretRotation  # only where something is watched: it brings ctypes and ssl

            supervisor = self._supervisor
            self._rotation = SecretRotation(
                self._loop, supervisor.notifier, supervisor.configuration.rotate, supervisor.stats.extra.append
            )
        if self._rotation is not None:
            self._rotation.watch(secrets)

    def close(self) -> None:
        """Follow nothing any more."""
        if self._rotation is not None:
            self._rotation.close()
