"""A throw-away mesh authority: a root, perhaps an intermediate, and workload certificates as SPIFFE has them.

For demos and tests (`mesh-proxy certs`). Nothing on the data path imports this, nor `cryptography`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CLOCK_SKEW: Final = datetime.timedelta(minutes=5)
"""certificates are valid from a little before now, for clocks that are slow"""
BOTH_SIDES: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in PEM."""

    chain: bytes
    """leaf first, then intermediates"""
    key: bytes


def new_key(kind: str = "ec") -> Key:
    """`ec` (P-256) or `rsa` (2048 bits)."""
    return rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key, password: bytes = b"") -> bytes:
    """PKCS #8."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


class Authority:
    """One that issues."""

    def __init__(self, trust_domain: str, *, name: str = "", parent: Authority | None = None, days: float = 365) -> None:
        self.trust_domain = trust_domain
        self.parent = parent
        self._key = new_key()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
                x509.NameAttribute(NameOID.COMMON_NAME, name or f"{trust_domain} {'intermediate' if parent else 'root'}"),
            ]
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        issuer, key = (subject, self._key) if parent is None else (parent.certificate.subject, parent._key)
        self.certificate: x509.Certificate = self._sign(
            _builder(subject, issuer, self._key, -CLOCK_SKEW, datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectAlternativeName([_uri(f"spiffe://{trust_domain}")]), critical=False),
            key if parent is not None else self._key,
        )

    @staticmethod
    def _sign(builder: x509.CertificateBuilder, key: Key) -> x509.Certificate:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        return builder.add_extension(authority, critical=False).sign(key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        """The authority's certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def bundle(self) -> bytes:
        """The root that peers trust."""
        return self.pem if self.parent is None else self.parent.bundle

    def workload(self, path: str, **options: object) -> Pair:
        """A workload's: `spiffe://<trust domain>/<path>`."""
        return self.issue(uris=(f"spiffe://{self.trust_domain}/{path}",), **options)  # type: ignore[arg-type]

    def issue(
        self,
        *,
        uris: Iterable[str] = (),
        dns: Iterable[str] = (),
        ips: Iterable[str] = (),
        subject: str = "",
        ca: bool = False,
        key_usage: x509.KeyUsage | None = None,
        purposes: Iterable[ObjectIdentifier] | None = BOTH_SIDES,
        valid_from: datetime.timedelta = -CLOCK_SKEW,
        valid_for: datetime.timedelta = datetime.timedelta(hours=24),
        key: Key | None = None,
        crl_url: str = "",
    ) -> Pair:
        """Any certificate; what is not a workload's is for tests. Times are relative to now. `crl_url` is where its authority's
        revocation list is to be had (RFC 5280, 4.2.1.13)."""
        key = key or new_key()
        names: list[x509.GeneralName] = [_uri(uri) for uri in uris]
        names += [x509.DNSName(name) for name in dns]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else []
        usage = key_usage or x509.KeyUsage(True, False, True, False, False, ca, ca, False, False)
        builder = (
            _builder(x509.Name(attributes), self.certificate.subject, key, valid_from, valid_for)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )
        if purposes is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not attributes)
        if crl_url:
            point = x509.DistributionPoint(full_name=[_uri(crl_url)], relative_name=None, reasons=None, crl_issuer=None)
            builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
        certificate = self._sign(builder, self._key)
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        return Pair(chain + (self.pem if self.parent is not None else b""), key_pem(key))

    def revocation_list(self, *revoked: Pair, days: float = 1, der: bool = False) -> bytes:
        """A CRL that names these: in PEM, as proxies are configured with it, or in DER, as a distribution point must give it."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CLOCK_SKEW)
            .next_update(now + datetime.timedelta(days=days))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for pair in revoked:
            serial = x509.load_pem_x509_certificate(pair.chain).serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - CLOCK_SKEW).build()
            )
        encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
        return builder.sign(self._key, hashes.SHA256()).public_bytes(encoding)


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, valid_from: datetime.timedelta, valid_for: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid_from)
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
