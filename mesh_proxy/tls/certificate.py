"""What an X.509 certificate says (RFC 5280), read from its DER; nothing is checked but the form.

OpenSSL checks signatures, dates and purposes during the handshake. Here is the rest: names for matchers and logs, and what the
SPIFFE standard asks of a leaf. Certificates repeat from connection to connection, so what was read of one is remembered.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from functools import lru_cache
from hashlib import sha1, sha256
from typing import Final
from urllib.parse import quote

from mesh_proxy.tls import der

REMEMBERED: Final = 256
"""certificates of which the reading is kept"""

_PEM: Final = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)-----END (?:X509 |TRUSTED )?CERTIFICATE-----"
)
_OTHER_NAME, _EMAIL, _DNS, _URI, _IP = 0xA0, 0x81, 0x82, 0x86, 0x87
"""GeneralName (RFC 5280, 4.2.1.6)"""
_KEY_USAGE: Final = "2.5.29.15"
_ALT_NAMES: Final = "2.5.29.17"
_BASIC_CONSTRAINTS: Final = "2.5.29.19"
_EXTENDED_KEY_USAGE: Final = "2.5.29.37"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
ANY_PURPOSE: Final = "2.5.29.37.0"
KEY_CERT_SIGN: Final = 5
"""bit of KeyUsage (RFC 5280, 4.2.1.3)"""
CRL_SIGN: Final = 6


class Certificate:
    """One certificate. Raises ValueError when it cannot be read."""

    __slots__ = (
        "der",
        "dns_san",
        "email_san",
        "extended_key_usage",
        "ip_san",
        "is_ca",
        "issuer",
        "key_usage",
        "not_after",
        "not_before",
        "public_key_info",
        "serial",
        "subject",
        "uri_san",
    )

    def __init__(self, data: bytes) -> None:
        self.der = data
        outer, end = der.expect(data, der.SEQUENCE)
        if end != len(data):
            raise ValueError("something follows the certificate")
        body, _ = der.expect(outer, der.SEQUENCE)
        position = 0
        tag, contents, after = der.read(body, position)
        if tag == 0xA0:  # version
            position = after
            tag, contents, after = der.read(body, position)
        if tag != der.INTEGER:
            raise ValueError("a certificate without a serial number")
        self.serial = format(int.from_bytes(contents, "big", signed=True), "x")
        """lower-case hexadecimal"""
        _, position = der.expect(body, der.SEQUENCE, after)  # signature algorithm
        issuer, position = der.expect(body, der.SEQUENCE, position)
        validity, position = der.expect(body, der.SEQUENCE, position)
        subject, start = der.expect(body, der.SEQUENCE, position)
        _, position = der.expect(body, der.SEQUENCE, start)
        self.public_key_info = body[start:position]
        """SubjectPublicKeyInfo: key and algorithm"""
        self.issuer = der.name(issuer)
        """as RFC 2253 writes it"""
        self.subject = der.name(subject)
        (first_tag, first), (last_tag, last) = der.values(validity)
        self.not_before = der.moment(first_tag, first)
        """seconds since the epoch"""
        self.not_after = der.moment(last_tag, last)
        self.uri_san: tuple[str, ...] = ()
        self.dns_san: tuple[str, ...] = ()
        self.ip_san: tuple[str, ...] = ()
        """canonical text"""
        self.email_san: tuple[str, ...] = ()
        self.is_ca = False
        """the basic constraints say cA"""
        self.key_usage: frozenset[int] | None = None
        """bits that are set; None without the extension"""
        self.extended_key_usage: frozenset[str] | None = None
        """object identifiers; None without the extension"""
        while position < len(body):
            tag, contents, position = der.read(body, position)
            if tag == 0xA3:
                self._read_extensions(contents)

    def _read_extensions(self, contents: bytes) -> None:
        seen: set[str] = set()
        inside, _ = der.expect(contents, der.SEQUENCE)
        for _, extension in der.values(inside):
            parts = der.values(extension)
            number = der.oid(parts[0][1])
            if number in seen:
                raise ValueError(f"a certificate with two extensions {number}")
            seen.add(number)
            tag, value = parts[-1]
            if tag != der.OCTET_STRING:
                raise ValueError(f"extension {number} without a value")
            if number == _ALT_NAMES:
                self._read_names(der.expect(value, der.SEQUENCE)[0])
            elif number == _BASIC_CONSTRAINTS:
                found = der.values(der.expect(value, der.SEQUENCE)[0])
                self.is_ca = bool(found) and found[0][0] == der.BOOLEAN and found[0][1] != b"\0"
            elif number == _KEY_USAGE:
                bits = der.expect(value, der.BIT_STRING)[0][1:]
                self.key_usage = frozenset(i for i in range(len(bits) * 8) if bits[i // 8] >> (7 - i % 8) & 1)
            elif number == _EXTENDED_KEY_USAGE:
                self.extended_key_usage = frozenset(
                    der.oid(purpose) for _, purpose in der.values(der.expect(value, der.SEQUENCE)[0])
                )

    def _read_names(self, contents: bytes) -> None:
        names = der.values(contents)
        for tag, value in names:
            if tag in (_URI, _DNS, _EMAIL) and (b"\0" in value or not value.isascii()):
                raise ValueError("an alternative name that is no text")
        self.uri_san = tuple(value.decode() for tag, value in names if tag == _URI)
        self.dns_san = tuple(value.decode() for tag, value in names if tag == _DNS)
        self.email_san = tuple(value.decode() for tag, value in names if tag == _EMAIL)
        self.ip_san = tuple(str(ipaddress.ip_address(value)) for tag, value in names if tag == _IP)

    @property
    def fingerprint_256(self) -> str:
        """SHA-256 of the certificate, lower-case hexadecimal."""
        return sha256(self.der).hexdigest()

    @property
    def fingerprint_1(self) -> str:
        """SHA-1 of the certificate, lower-case hexadecimal."""
        return sha1(self.der, usedforsecurity=False).hexdigest()

    @property
    def spki_pin(self) -> bytes:
        """SHA-256 of the SubjectPublicKeyInfo in base64, as pins are written (RFC 7469, 2.4)."""
        return base64.b64encode(sha256(self.public_key_info).digest())

    @property
    def pem(self) -> str:
        """As it stands in files."""
        text = base64.b64encode(self.der).decode()
        lines = (text[i : i + 64] for i in range(0, len(text), 64))
        return "\n".join(("-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""))

    @property
    def quoted_pem(self) -> str:
        """PEM with percent-encoding, as it stands in headers and logs."""
        return quote(self.pem, safe="")

    def __repr__(self) -> str:
        return f"<Certificate {self.uri_san or self.dns_san or self.subject} serial={self.serial}>"


@lru_cache(maxsize=REMEMBERED)
def read_certificate(data: bytes) -> Certificate:
    """The certificate in this DER, remembered. Raises ValueError."""
    return Certificate(data)


def certificates_in(pem: bytes) -> tuple[Certificate, ...]:
    """All certificates of a PEM file, in their order. Raises ValueError."""
    return tuple(read_certificate(base64.b64decode(b"".join(body.split()), validate=True)) for body in _PEM.findall(pem))
