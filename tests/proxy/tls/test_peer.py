"""What a connection's TLS object says, and that logs find every name that they look for."""

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tls_support import build_certificate

from mesh_proxy.formatting.tls import ATTRIBUTES
from mesh_proxy.tls.certificate import Certificate
from mesh_proxy.tls.peer import TlsInfo

NAME = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, "web")])


def test_without_a_peer_certificate_the_names_are_empty() -> None:
    info = TlsInfo(version="TLSv1.3", cipher="TLS_AES_128_GCM_SHA256")
    for attribute in ATTRIBUTES.values():
        if attribute.startswith(("peer", "local", "session")):
            assert not getattr(info, attribute)
    assert not info.peer_presented
    assert info.peer_not_after is None


def test_names_of_both_sides() -> None:
    built = build_certificate(NAME, ec.generate_private_key(ec.SECP256R1()), x509.SubjectAlternativeName([x509.DNSName("web")]))
    certificate = Certificate(built.public_bytes(serialization.Encoding.DER))
    info = TlsInfo(peer=certificate, local=certificate)
    assert info.peer_dns_san == info.local_dns_san == ("web",)
    assert info.peer_subject == info.local_subject == "CN=web,C=DE"
    assert info.peer_certificate.startswith("-----BEGIN%20CERTIFICATE-----%0A")
    assert info.peer_not_after == certificate.not_after


def test_all_operators_have_their_attribute() -> None:
    missing = {name for name in ATTRIBUTES.values() if not hasattr(TlsInfo, name)}
    assert missing == {"ja3_fingerprint", "ja4_fingerprint"}  # of the ClientHello, when a listener filter takes it
