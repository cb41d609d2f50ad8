"""Operators that print facts about the downstream TLS connection and the peer's certificate.

The facts are attributes of `ConnectionInfo.tls`. On plain text, and where an attribute is absent or empty, there is nothing to
print. Values are str or bytes, or a sequence of them, which is joined by commas; times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mesh_proxy.formatting.operator import EACH, SAME, Operator, Syntax, Text, register, register_text, string_operator
from mesh_proxy.formatting.timing import certificate_time
from mesh_proxy.stream.info import StreamInfo

ATTRIBUTES: Final = {
    "DOWNSTREAM_TLS_VERSION": "version",
    "DOWNSTREAM_TLS_CIPHER": "cipher",
    "DOWNSTREAM_TLS_SESSION_ID": "session_id",
    "DOWNSTREAM_PEER_SUBJECT": "peer_subject",
    "DOWNSTREAM_PEER_ISSUER": "peer_issuer",
    "DOWNSTREAM_PEER_SERIAL": "peer_serial",
    "DOWNSTREAM_PEER_FINGERPRINT_256": "peer_fingerprint_256",
    "DOWNSTREAM_PEER_FINGERPRINT_1": "peer_fingerprint_1",
    "DOWNSTREAM_PEER_URI_SAN": "peer_uri_san",
    "DOWNSTREAM_PEER_DNS_SAN": "peer_dns_san",
    "DOWNSTREAM_PEER_IP_SAN": "peer_ip_san",
    "DOWNSTREAM_PEER_EMAIL_SAN": "peer_email_san",
    "DOWNSTREAM_PEER_CERT": "peer_certificate",
    "DOWNSTREAM_LOCAL_SUBJECT": "local_subject",
    "DOWNSTREAM_LOCAL_URI_SAN": "local_uri_san",
    "DOWNSTREAM_LOCAL_DNS_SAN": "local_dns_san",
    "DOWNSTREAM_LOCAL_IP_SAN": "local_ip_san",
    "DOWNSTREAM_LOCAL_EMAIL_SAN": "local_email_san",
    "TLS_JA3_FINGERPRINT": "ja3_fingerprint",
    "TLS_JA4_FINGERPRINT": "ja4_fingerprint",
}
"""operator -> attribute; `peer_certificate` is PEM with percent-encoding, fingerprints and serials are lower-case hex"""


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return b",".join(_as_bytes(part) for part in value)


def _attribute(name: str) -> Text:
    def text(info: StreamInfo) -> bytes | None:
        value = getattr(info.connection.tls, name, None)
        return _as_bytes(value) or None if value is not None else None

    return text


for _operator, _name in ATTRIBUTES.items():
    # Requests have a plan in common only where the certificates of both ends are the same.
    register_text(_operator, _attribute(_name), SAME if _name.startswith(("peer_", "local_")) else EACH)


def _register_time(operator: str, name: str) -> None:
    def moment(info: StreamInfo) -> float | None:
        value: float | None = getattr(info.connection.tls, name, None)
        return value

    def factory(parameter: str, length: int | None) -> Operator:
        return string_operator(certificate_time(parameter, moment), None, SAME)

    make: Callable[[str, int | None], Operator] = factory
    register(operator, make, Syntax.PARAMETER_OPTIONAL)


_register_time("DOWNSTREAM_PEER_CERT_V_START", "peer_not_before")
_register_time("DOWNSTREAM_PEER_CERT_V_END", "peer_not_after")
