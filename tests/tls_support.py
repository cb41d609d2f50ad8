"""Certificates for tests, made here and now."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID


def build_certificate(subject: x509.Name, key: Any, *extensions: x509.ExtensionType, year: int = 2030) -> x509.Certificate:
    """A certificate with this subject and these extensions, issued by `CN=mesh` with the same key."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 2, 29, 1, 2, 3, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(year, 12, 31, 23, 59, 59, tzinfo=datetime.UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())
