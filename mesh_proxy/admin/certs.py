"""`/certs` (`envoy.admin.v3.Certificates`): the certificates that are in use, and until when."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from mesh_proxy.admin.exchange import AdminRequest, AdminResponse, to_json
from mesh_proxy.tls.certificate import Certificate, certificates_in

if TYPE_CHECKING:
    from mesh_proxy.config.model.tls import SecretConfig
    from mesh_proxy.supervisor.supervisor import Supervisor

SECONDS_PER_DAY: Final = 86_400
_KINDS: Final = (("dns_san", "dns"), ("uri_san", "uri"), ("ip_san", "ip_address"))


def certs(supervisor: Supervisor, request: AdminRequest) -> AdminResponse:
    """One entry per secret."""
    return to_json({"certificates": [_entry(secret) for secret in supervisor.secrets.all]})


def _entry(secret: SecretConfig) -> dict[str, Any]:
    paths = dict(secret.source.files) if secret.source is not None else {}
    found: dict[str, Any] = {}
    if secret.validation is not None:
        validation = secret.validation
        bundles = [validation.trusted_ca, *(bundle for _, bundle in validation.trust_domains)]
        found["ca_cert"] = [_details(one, paths.get("trusted_ca", "")) for bundle in bundles for one in certificates_in(bundle)]
    if secret.certificate is not None:
        found["cert_chain"] = [_details(one, paths.get("chain", "")) for one in certificates_in(secret.certificate.chain)]
    return found


def _details(certificate: Certificate, path: str) -> dict[str, Any]:
    names = [{key: name} for attribute, key in _KINDS for name in getattr(certificate, attribute)]
    return {
        "path": path or "<inline>",
        "serial_number": certificate.serial,
        "subject_alt_names": names,
        "days_until_expiration": str(days_left(certificate, time.time())),
        "valid_from": _moment(certificate.not_before),
        "expiration_time": _moment(certificate.not_after),
    }


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def days_left(certificate: Certificate, now: float) -> int:
    """Whole days; 0 when it has expired."""
    return max(int(certificate.not_after - now), 0) // SECONDS_PER_DAY


def first_expiry_days(secrets: Iterable[SecretConfig], now: float) -> int | None:
    """Days until the first certificate of all expires; None without certificates."""
    days = [days_left(certificate, now) for secret in secrets for pem in _pems(secret) for certificate in certificates_in(pem)]
    return min(days, default=None)


def _pems(secret: SecretConfig) -> Iterable[bytes]:
    if secret.certificate is not None:
        yield secret.certificate.chain
    if secret.validation is not None:
        yield secret.validation.trusted_ca
        yield from (bundle for _, bundle in secret.validation.trust_domains)
