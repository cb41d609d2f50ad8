"""What OpenSSL does not ask of a peer's certificate: names, pins, the SPIFFE standard.

It runs once the handshake is done and before a byte of the connection is passed on: whoever fails has no connection. A resumed
session is asked the same again, as its certificate came with it.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from typing import Final

from mesh_proxy.config.model.common import StringMatchKind
from mesh_proxy.config.model.tls import SanMatcherConfig, SanType, ValidationConfig
from mesh_proxy.routing.matchers import compile_string_matcher
from mesh_proxy.tls.certificate import (
    CLIENT_AUTH,
    CRL_SIGN,
    KEY_CERT_SIGN,
    SERVER_AUTH,
    Certificate,
    certificates_in,
    read_certificate,
)
from mesh_proxy.tls.chains import verified_chain

SPIFFE_ID: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
"""SPIFFE-ID, 2: no port, user, query or fragment; a leaf has a path"""
LONGEST_SPIFFE_ID: Final = 2048
DIGITAL_SIGNATURE: Final = 0
"""bit of KeyUsage (RFC 5280, 4.2.1.3)"""
RSA: Final = bytes.fromhex("06092a864886f70d010101")
"""rsaEncryption as DER"""


class PeerRefused(Exception):
    """The peer is not who it must be."""

    def __init__(self, counter: str, why: str) -> None:
        super().__init__(why)
        self.counter = counter
        """which statistic it is: `fail_verify_san`, `fail_verify_cert_hash`, `fail_verify_error`"""


def trust_domain(uri: str) -> str:
    """The trust domain of a SPIFFE id. Raises ValueError when it is none, or one without a path."""
    match = SPIFFE_ID.fullmatch(uri) if len(uri) <= LONGEST_SPIFFE_ID else None
    if match is None or not {".", ".."}.isdisjoint(match[2].split("/")):
        raise ValueError(f"{uri!r} is not the SPIFFE id of a workload")
    return match[1]


class PeerCheck:
    """One validation context, compiled. Raises ValueError for bundles that cannot be read."""

    __slots__ = ("_anchors", "_config", "_names", "_pinned", "_rsa_usage")

    def __init__(self, config: ValidationConfig, *, rsa_key_usage: bool = False) -> None:
        self._config = config
        self._names = tuple(_compile(name) for name in config.subject_alt_names)
        self._anchors = {name: {one.der for one in certificates_in(bundle)} for name, bundle in config.trust_domains}
        self._pinned = bool(config.spki_pins or config.hashes)
        self._rsa_usage = rsa_key_usage

    def check(self, connection: ssl.SSLObject, host: str = "") -> Certificate | None:
        """The certificate that the peer showed, None without one. Raises PeerRefused. `host`: a name that it must have."""
        data = connection.getpeercert(True)
        config = self._config
        if data is None:
            if self._pinned and not config.has_anchor:
                raise PeerRefused("fail_verify_no_cert", "the peer showed no certificate")
            return None
        try:
            certificate = read_certificate(data)
        except ValueError as error:
            raise PeerRefused("fail_verify_error", f"the certificate cannot be read: {error}") from None
        if config.is_empty:
            return certificate
        if not config.allow_expired and not certificate.not_before <= time.time() <= certificate.not_after:
            raise PeerRefused("fail_verify_error", "the certificate is not valid at this time")
        # Asked for only where it counts: it costs as much as the rest of this together.
        chain = verified_chain(connection) if config.max_depth is not None or len(self._anchors) > 1 else ()
        if config.max_depth is not None and len(chain) - 2 > config.max_depth:
            raise PeerRefused("fail_verify_error", "the certificate's chain is too long")
        if self._rsa_usage:
            _check_rsa_usage(certificate)
        if self._anchors:
            self._check_spiffe(certificate, chain)
        if (self._names or host) and not self._has_name(certificate, host):
            raise PeerRefused("fail_verify_san", "no alternative name of the certificate matches")
        if self._pinned:
            pin = certificate.spki_pin.decode()
            if pin not in config.spki_pins and certificate.fingerprint_256 not in config.hashes:
                raise PeerRefused("fail_verify_cert_hash", "the certificate is not pinned")
        return certificate

    def _has_name(self, certificate: Certificate, host: str) -> bool:
        if host and not any(dns_matches(host, name) for name in certificate.dns_san) and host not in certificate.ip_san:
            return False
        return not self._names or any(matches(certificate) for matches in self._names)

    def _check_spiffe(self, leaf: Certificate, chain: tuple[bytes, ...]) -> None:
        """X509-SVID, 5.2."""

        def refuse(why: str) -> PeerRefused:
            return PeerRefused("fail_verify_error", f"SPIFFE: {why}")

        if len(leaf.uri_san) != 1:
            raise refuse(f"{len(leaf.uri_san)} URI names instead of one")
        try:
            domain = trust_domain(leaf.uri_san[0])
        except ValueError as error:
            raise refuse(str(error)) from None
        if leaf.is_ca:
            raise refuse("the certificate is an authority's")
        usage = leaf.key_usage or frozenset()
        if KEY_CERT_SIGN in usage or CRL_SIGN in usage:
            raise refuse("the key may sign certificates or revocation lists")
        purposes = leaf.extended_key_usage
        if purposes is not None and not {CLIENT_AUTH, SERVER_AUTH} <= purposes:
            raise refuse("the extended key usage is not for both sides of a connection")
        anchors = self._anchors.get(domain)
        if anchors is None:
            raise refuse(f"there is no bundle for the trust domain {domain}")
        if len(self._anchors) > 1 and (not chain or chain[-1] not in anchors):
            raise refuse(f"the bundle of {domain} does not vouch for it")


def _check_rsa_usage(certificate: Certificate) -> None:
    usage = certificate.key_usage
    if usage is not None and DIGITAL_SIGNATURE not in usage and RSA in certificate.public_key_info:
        raise PeerRefused("fail_verify_error", "the key is not for signatures")


def dns_matches(host: str, pattern: str) -> bool:
    """Whether a DNS name of a certificate covers a host: the same without regard to case, or a wildcard for its first label."""
    host, pattern = host.lower(), pattern.lower()
    if pattern.startswith("*."):
        first, dot, rest = host.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return host == pattern


def _compile(config: SanMatcherConfig) -> Callable[[Certificate], bool]:
    matcher = config.matcher
    if config.kind is SanType.DNS and matcher.kind is StringMatchKind.EXACT:
        return lambda certificate: any(dns_matches(matcher.value, name) for name in certificate.dns_san)
    matches = compile_string_matcher(matcher)
    of: dict[SanType, Callable[[Certificate], tuple[str, ...]]] = {
        SanType.DNS: lambda certificate: certificate.dns_san,
        SanType.URI: lambda certificate: certificate.uri_san,
        SanType.IP_ADDRESS: lambda certificate: certificate.ip_san,
        SanType.EMAIL: lambda certificate: certificate.email_san,
    }
    names = of[config.kind]
    return lambda certificate: any(matches(name.encode()) for name in names(certificate))
