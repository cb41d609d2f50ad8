"""Transport sockets (`envoy.extensions.transport_sockets.tls.v3`).

What is secret, or changes while the proxy runs, is kept apart from the listeners and clusters that use it: those hold the names
of secrets only, so that a rotation changes no listener, and a private key stands nowhere but in its `SecretConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mesh_proxy.config.model.common import StringMatcherConfig


class SanType(Enum):
    """`SubjectAltNameMatcher.SanType`."""

    EMAIL = "email"
    DNS = "dns"
    URI = "uri"
    IP_ADDRESS = "ip"


@dataclass(frozen=True, slots=True, kw_only=True)
class SanMatcherConfig:
    """One `SubjectAltNameMatcher`."""

    kind: SanType
    matcher: StringMatcherConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateConfig:
    """`TlsCertificate`: a certificate with what leads to its authority, and its private key."""

    chain: bytes
    """PEM, the leaf first"""
    key: bytes = field(repr=False)
    """PEM"""
    password: bytes = field(default=b"", repr=False)
    """of the key; empty when it has none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationConfig:
    """`CertificateValidationContext`: what the peer's certificate must be."""

    trusted_ca: bytes = b""
    """PEM; empty: no chain is demanded"""
    trust_domains: tuple[tuple[str, bytes], ...] = ()
    """SPIFFE: name of a trust domain and its bundle (PEM); the standard's rules apply"""
    crl: bytes = b""
    """PEM"""
    only_leaf_crl: bool = False
    """revocation is looked up for the leaf only, not for the whole chain"""
    subject_alt_names: tuple[SanMatcherConfig, ...] = ()
    """one of them must match; empty: any name will do"""
    spki_pins: tuple[str, ...] = ()
    """base64 of the SHA-256 of the public key"""
    hashes: tuple[str, ...] = ()
    """SHA-256 of the certificate, lower-case hexadecimal"""
    allow_expired: bool = False
    max_depth: int | None = None
    """longest chain: intermediate authorities between leaf and anchor; None = OpenSSL's limit"""

    @property
    def has_anchor(self) -> bool:
        """Certificates are checked against an authority."""
        return bool(self.trusted_ca or self.trust_domains)

    @property
    def is_empty(self) -> bool:
        """Nothing is asked of a peer."""
        return not (self.has_anchor or self.spki_pins or self.hashes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretSourceConfig:
    """The files that a secret comes from, for who watches them."""

    sds_path: str = ""
    """a file with a `Secret` or a DiscoveryResponse of them (`path_config_source`); empty: the files below are all"""
    files: tuple[tuple[str, str], ...] = ()
    """(field of CertificateConfig or ValidationConfig, path)"""
    directories: tuple[str, ...] = ()
    """where a change is looked for"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretConfig:
    """`Secret`: one of the two kinds."""

    name: str
    """unique in the process; secrets that stand inline in a resource get one from what they hold"""
    label: str = ""
    """the name that people know it by; empty: inline"""
    certificate: CertificateConfig | None = None
    validation: ValidationConfig | None = None
    source: SecretSourceConfig | None = None
    """None: it does not change"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsParametersConfig:
    """`TlsParameters`."""

    minimum: str = "TLSv1_2"
    """`TLSv1_2` or `TLSv1_3`"""
    maximum: str = "TLSv1_3"
    ciphers: tuple[str, ...] = ()
    """OpenSSL's names, for TLS 1.2; empty: the default list"""
    curve: str = ""
    """OpenSSL's name; empty: its own choice"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonTlsConfig:
    """`CommonTlsContext`."""

    parameters: TlsParametersConfig = TlsParametersConfig()
    alpn: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    """names of secrets"""
    validation: ValidationConfig = ValidationConfig()
    """what does not come from a secret"""
    validation_secret: str = ""
    """merged over `validation`, as `combined_validation_context` says; empty: none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamTlsConfig:
    """`DownstreamTlsContext`."""

    common: CommonTlsConfig
    require_client_certificate: bool = False
    require_sni: bool = False
    tickets: bool = True
    """sessions may be resumed by tickets"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTlsConfig:
    """`UpstreamTlsContext`."""

    common: CommonTlsConfig
    sni: str = ""
    auto_host_sni: bool = False
    """without `sni`, the endpoint's host name is used"""
    auto_san_check: bool = False
    """`auto_sni_san_validation`: the certificate must name what was sent as SNI"""
    enforce_rsa_key_usage: bool = False
    resumption: bool = True
    """`max_session_keys` is not 0"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportMatchConfig:
    """One of a cluster's `transport_socket_matches`."""

    name: str
    match: tuple[tuple[str, object], ...]
    """what `envoy.transport_socket_match` of the endpoint's metadata must say; empty: anything"""
    socket: UpstreamTlsConfig | None
    """None = plain text"""
