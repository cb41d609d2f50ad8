"""OpenSSL contexts from configuration: versions, ciphers, certificates, trust anchors.

A context is never changed once it serves: a rotation makes a new one, and connections of the old one live on with it. Private
keys reach OpenSSL through a file in memory that has no name, as the `ssl` module takes keys from files only; what it says about
a key that does not fit names neither the key nor its text.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mesh_proxy.tls.tickets import TicketContext

if TYPE_CHECKING:
    from mesh_proxy.config.model.tls import (
        CertificateConfig,
        CommonTlsConfig,
        DownstreamTlsConfig,
        TlsParametersConfig,
        UpstreamTlsConfig,
        ValidationConfig,
    )

DEFAULT_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)
"""For TLS 1.2, as in Envoy: forward secrecy and authenticated encryption only. Those of TLS 1.3 are OpenSSL's three."""
NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (openssl/x509_vfy.h)"""
_VERSIONS: Final = {"TLSv1_2": ssl.TLSVersion.TLSv1_2, "TLSv1_3": ssl.TLSVersion.TLSv1_3}


def server_context(
    config: DownstreamTlsConfig, certificates: tuple[CertificateConfig, ...], validation: ValidationConfig
) -> TicketContext:
    """For connections that we accept. Raises ValueError."""
    context = TicketContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context, config.common, certificates, validation)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE | ssl.OP_SINGLE_DH_USE
    if not config.tickets or len(validation.trust_domains) > 1:
        # A resumed session has no chain any more, by which its trust domain could be told.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    else:
        context.num_tickets = 1  # at most: each costs a copy of the session with the peer's certificate
        context.gives_tickets = True
    if validation.has_anchor:
        context.verify_mode = ssl.CERT_REQUIRED if config.require_client_certificate else ssl.CERT_OPTIONAL
    elif config.require_client_certificate or not validation.is_empty:
        raise ValueError("a client certificate cannot be demanded without a trusted_ca to check it against")
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


def client_context(
    config: UpstreamTlsConfig, certificates: tuple[CertificateConfig, ...], validation: ValidationConfig
) -> ssl.SSLContext:
    """For connections that we make. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # names are matched by the configured matchers (`mesh_proxy.tls.validation`)
    _common(context, config.common, certificates, validation)
    context.verify_mode = ssl.CERT_REQUIRED if validation.has_anchor else ssl.CERT_NONE
    return context


def _common(
    context: ssl.SSLContext, config: CommonTlsConfig, certificates: tuple[CertificateConfig, ...], validation: ValidationConfig
) -> None:
    _parameters(context, config.parameters)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if config.alpn:
        context.set_alpn_protocols(list(config.alpn))
    for certificate in certificates:
        load_pair(context, certificate)
    load_trust(context, validation)


def _parameters(context: ssl.SSLContext, parameters: TlsParametersConfig) -> None:
    context.minimum_version = _VERSIONS[parameters.minimum]
    context.maximum_version = _VERSIONS[parameters.maximum]
    names = parameters.ciphers or DEFAULT_CIPHERS
    for name in names:
        try:
            context.set_ciphers(name)  # in a list it would be left out in silence
        except ssl.SSLError:
            raise ValueError(f"unknown cipher suite {name}") from None
    context.set_ciphers(":".join(names))
    if parameters.curve:
        try:
            context.set_ecdh_curve(parameters.curve)
        except (ssl.SSLError, ValueError):
            raise ValueError(f"unknown curve {parameters.curve}") from None


def load_pair(context: ssl.SSLContext, certificate: CertificateConfig) -> None:
    """Give a context a certificate and its key. Raises ValueError."""
    with _unnamed_file(certificate.chain) as chain, _unnamed_file(certificate.key) as key:
        try:
            context.load_cert_chain(chain, key, certificate.password or _no_password)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise ValueError("certificate and private key do not belong together") from None
            raise ValueError(f"certificate or private key cannot be used ({error.reason or 'no PEM'})") from None
        except OSError:
            raise ValueError("certificate or private key cannot be used") from None


def _no_password() -> bytes:
    raise ValueError("the private key is encrypted and there is no password")


@contextmanager
def _unnamed_file(data: bytes) -> Iterator[str]:
    """A path under which OpenSSL can read these bytes, as long as the context lasts."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def load_trust(context: ssl.SSLContext, validation: ValidationConfig) -> None:
    """Give a context its trust anchors and revocation lists. Raises ValueError."""
    bundles = [validation.trusted_ca] if validation.trusted_ca else []
    bundles += [bundle for _, bundle in validation.trust_domains]
    for bundle in bundles:
        try:
            context.load_verify_locations(cadata=bundle.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            raise ValueError("the trust bundle holds no certificate in PEM, or a damaged one") from None
    if not bundles:
        return
    flags = int(context.verify_flags) | ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate authority may be the anchor, as in Envoy
    if validation.crl:
        with _unnamed_file(validation.crl) as path:
            try:
                context.load_verify_locations(cafile=path)
            except (ssl.SSLError, OSError):
                raise ValueError("the revocation list is not in PEM, or damaged") from None
        flags |= ssl.VERIFY_CRL_CHECK_LEAF if validation.only_leaf_crl else ssl.VERIFY_CRL_CHECK_CHAIN
    if validation.allow_expired:
        flags |= NO_CHECK_TIME
    context.verify_flags = ssl.VerifyFlags(flags)
