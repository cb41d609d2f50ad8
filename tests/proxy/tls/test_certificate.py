"""Reading certificates: as `cryptography` reads them, and nothing but certificates."""

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tls_support import build_certificate

from mesh_proxy.tls.certificate import CLIENT_AUTH, SERVER_AUTH, Certificate, certificates_in

DER = serialization.Encoding.DER
SPKI = serialization.PublicFormat.SubjectPublicKeyInfo


NAMES = [
    x509.Name([]),
    x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, "web")]),
    x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, 'a,b+c"d\\e<f>g;h'), x509.NameAttribute(NameOID.ORGANIZATION_NAME, " x ")]
    ),
    x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shöp"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "#1"),
            x509.NameAttribute(NameOID.EMAIL_ADDRESS, "me@example.org"),
            x509.NameAttribute(NameOID.DOMAIN_COMPONENT, "example"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Hessen"),
        ]
    ),
    x509.Name(
        [x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")])]
    ),
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("year", [2030, 2070])
def test_as_cryptography_reads_it(name: x509.Name, year: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://mesh.local/ns/shop/sa/web"),
            x509.UniformResourceIdentifier("urn:other"),
            x509.DNSName("web.shop"),
            x509.DNSName("*.shop"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
            x509.RFC822Name("me@example.org"),
        ]
    )
    built = build_certificate(
        name,
        key,
        names,
        x509.BasicConstraints(ca=False, path_length=None),
        x509.KeyUsage(True, False, True, False, False, False, False, False, False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
        year=year,
    )
    read = Certificate(built.public_bytes(DER))
    assert read.subject == name.rfc4514_string({NameOID.EMAIL_ADDRESS: "emailAddress"})
    assert read.issuer == "CN=mesh"
    assert read.serial == format(built.serial_number, "x")
    assert read.uri_san == ("spiffe://mesh.local/ns/shop/sa/web", "urn:other")
    assert read.dns_san == ("web.shop", "*.shop")
    assert read.ip_san == ("10.0.0.1", "::1")
    assert read.email_san == ("me@example.org",)
    assert read.not_before == built.not_valid_before_utc.timestamp()
    assert read.not_after == built.not_valid_after_utc.timestamp()
    assert read.fingerprint_256 == built.fingerprint(hashes.SHA256()).hex()
    assert read.fingerprint_1 == built.fingerprint(hashes.SHA1()).hex()
    assert read.public_key_info == key.public_key().public_bytes(DER, SPKI)
    assert (read.is_ca, read.key_usage, read.extended_key_usage) == (False, {0, 2}, {SERVER_AUTH, CLIENT_AUTH})
    assert read.pem.encode() == built.public_bytes(serialization.Encoding.PEM)
    assert certificates_in(b"noise\n" + read.pem.encode() * 2 + b"more") == (
        certificates_in(read.pem.encode())[0],
        certificates_in(read.pem.encode())[0],
    )


def test_an_authority() -> None:
    key = rsa.generate_private_key(65537, 2048)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    read = Certificate(build_certificate(NAMES[1], key, x509.BasicConstraints(ca=True, path_length=0), usage).public_bytes(DER))
    assert read.is_ca
    assert read.key_usage == {5, 6}
    assert read.extended_key_usage is None
    assert read.uri_san == ()


def test_damage_is_an_error_or_another_certificate() -> None:
    """Every byte in turn is changed, and every length is cut: nothing but ValueError comes out."""
    built = build_certificate(
        NAMES[1], ec.generate_private_key(ec.SECP256R1()), x509.SubjectAlternativeName([x509.DNSName("web")])
    )
    data = built.public_bytes(DER)
    for cut in range(len(data)):
        with pytest.raises(ValueError, match=r".+"):
            Certificate(data[:cut])
    for place in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= change
            try:
                Certificate(bytes(damaged))
            except ValueError:
                pass
    with pytest.raises(ValueError, match="follows"):
        Certificate(data + b"\0")


def test_a_name_with_a_null_byte_is_refused() -> None:
    built = build_certificate(
        NAMES[1], ec.generate_private_key(ec.SECP256R1()), x509.SubjectAlternativeName([x509.DNSName("good.example.evil")])
    )
    data = built.public_bytes(DER).replace(b"good.example.evil", b"good.example\0evil")
    with pytest.raises(ValueError, match="no text"):
        Certificate(data)
