"""The part of `/config_dump` that shows secrets: certificates and bundles, never keys; and what was refused (`error_state`)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.admin.dynamic_dump import timestamp

if TYPE_CHECKING:
    from mesh_proxy.config.model.tls import SecretConfig
    from mesh_proxy.supervisor.supervisor import Supervisor

_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_REDACTED: Final = base64.b64encode(b"[redacted]").decode()


def secrets_lists(supervisor: Supervisor, named: Callable[[str], bool]) -> dict[str, Any]:
    """The fields of `SecretsConfigDump`: secrets that have a name, and those in files whose last version was refused."""
    found: dict[str, list[dict[str, Any]]] = {}
    refused = supervisor.secrets.refused
    for secret in sorted(supervisor.secrets.all, key=lambda one: one.label or one.name):
        fault = refused.get(secret.name)
        name = secret.label or secret.name
        if not (secret.label or fault) or not named(name):
            continue
        one = {"name": name, "last_updated": timestamp(supervisor.secrets.times.get(secret.name, supervisor.started_at))}
        entry: dict[str, Any] = one | {"secret": _shown(secret, name)}
        if fault is not None:
            entry["error_state"] = {"last_update_attempt": timestamp(fault[0]), "details": fault[1]}
        found.setdefault("static_secrets" if secret.source is None else "dynamic_active_secrets", []).append(entry)
    return dict(found)


def _shown(secret: SecretConfig, name: str) -> dict[str, Any]:
    """Envoy's `Secret`, as far as it is no secret."""
    found: dict[str, Any] = {"@type": _TYPE, "name": name}
    if secret.certificate is not None:
        found["tls_certificate"] = {
            "certificate_chain": {"inline_bytes": base64.b64encode(secret.certificate.chain).decode()},
            "private_key": {"inline_bytes": _REDACTED},
        }
    if secret.validation is not None:
        bundle = secret.validation.trusted_ca
        found["validation_context"] = {"trusted_ca": {"inline_bytes": base64.b64encode(bundle).decode()}} if bundle else {}
    return found
