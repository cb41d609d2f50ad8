"""`DownstreamTlsContext` and `UpstreamTlsContext`. What comes out was tried: OpenSSL has taken certificates, keys and ciphers."""

from __future__ import annotations

import time
from typing import Final

from mesh_proxy.config.model.tls import (
    CommonTlsConfig,
    DownstreamTlsConfig,
    TlsParametersConfig,
    UpstreamTlsConfig,
    ValidationConfig,
)
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.istio import offered
from mesh_proxy.config.translate.secrets import inline_certificate, inline_validation, sds_secret, validation_context
from mesh_proxy.tls.certificate import certificates_in
from mesh_proxy.tls.context import client_context, server_context
from mesh_proxy.tls.secrets import SecretStore
from mesh_proxy.tls.validation import PeerCheck

_CURVES: Final = {"X25519": "X25519", "P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}
"""BoringSSL's names and OpenSSL's"""


def downstream_tls(reader: Reader, context: Context) -> DownstreamTlsConfig:
    """`DownstreamTlsContext`."""
    common_reader = required(reader, "common_tls_context")
    common = _common(common_reader, context)
    if not common.certificates:
        raise common_reader.error("a listener needs a certificate")
    for name in ("session_ticket_keys", "session_ticket_keys_sds_secret_config"):
        if reader.has(name):
            raise reader.error("keys of session tickets cannot be given", name)
    if reader.enum("ocsp_staple_policy") == "MUST_STAPLE":
        raise reader.error("OCSP stapling is not supported", "ocsp_staple_policy")
    config = DownstreamTlsConfig(
        common=common,
        require_client_certificate=reader.flag("require_client_certificate"),
        require_sni=reader.flag("require_sni"),
        tickets=not reader.flag("disable_stateless_session_resumption"),
    )
    _try(common_reader, context, common, config)
    return config


def upstream_tls(reader: Reader, context: Context) -> UpstreamTlsConfig:
    """`UpstreamTlsContext`."""
    common_reader = required(reader, "common_tls_context")
    common = _common(common_reader, context)
    if len(common.certificates) > 1:
        raise common_reader.error("only one certificate can be shown to an endpoint", "tls_certificates")
    if reader.flag("allow_renegotiation"):
        raise reader.error("renegotiation is not supported", "allow_renegotiation")
    sni = reader.text("sni")
    if sni.startswith(".") or len(sni) > 255:
        raise reader.error("is no host name", "sni")
    config = UpstreamTlsConfig(
        common=common,
        sni=sni,
        auto_host_sni=reader.flag("auto_host_sni"),
        auto_san_check=reader.flag("auto_sni_san_validation"),
        enforce_rsa_key_usage=reader.flag("enforce_rsa_key_usage", True),
        resumption=reader.number("max_session_keys", 1) > 0,
    )
    _try(common_reader, context, common, config)
    if SecretStore(context.secrets.values()).validation(common).is_empty:
        context.problems.warn(common_reader.path, "without validation_context any endpoint is believed")
    return config


def _common(reader: Reader, context: Context) -> CommonTlsConfig:
    parameters = reader.sub("tls_params")
    certificates = [inline_certificate(entry, context) for entry in reader.subs("tls_certificates")]
    certificates += [sds_secret(entry, context, "certificate") for entry in reader.subs("tls_certificate_sds_secret_configs")]
    validation, secret = _validation(reader, context)
    return CommonTlsConfig(
        parameters=_parameters(parameters) if parameters is not None else TlsParametersConfig(),
        alpn=offered(reader, "alpn_protocols"),
        certificates=tuple(certificates),
        validation=validation,
        validation_secret=secret,
    )


def _validation(reader: Reader, context: Context) -> tuple[ValidationConfig, str]:
    kind = reader.oneof("validation_context_type")
    if not kind:
        return ValidationConfig(), ""
    inner = required(reader, kind)
    if kind == "validation_context":
        return inline_validation(inner, context)
    if kind == "validation_context_sds_secret_config":
        return ValidationConfig(), sds_secret(inner, context, "validation")
    if kind == "combined_validation_context":
        secret = sds_secret(required(inner, "validation_context_sds_secret_config"), context, "validation")
        return validation_context(required(inner, "default_validation_context")), secret
    raise reader.error("certificate providers are not supported", kind)


def _parameters(reader: Reader) -> TlsParametersConfig:
    lowest, highest = reader.enum("tls_minimum_protocol_version"), reader.enum("tls_maximum_protocol_version")
    for name, value in (("tls_minimum_protocol_version", lowest), ("tls_maximum_protocol_version", highest)):
        if value in ("TLSv1_0", "TLSv1_1"):
            raise reader.error("TLS below 1.2 is not supported", name)
    minimum = "TLSv1_2" if lowest == "TLS_AUTO" else lowest
    maximum = "TLSv1_3" if highest == "TLS_AUTO" else highest
    if minimum > maximum:
        raise reader.error("is lower than tls_minimum_protocol_version", "tls_maximum_protocol_version")
    for name in ("signature_algorithms", "compliance_policies"):
        if getattr(reader.message, name):
            raise reader.error("is not supported", name)
    curves = reader.strings("ecdh_curves")
    if len(curves) > 1 or any(curve not in _CURVES for curve in curves):
        raise reader.error(f"must be one of {', '.join(_CURVES)}", "ecdh_curves")
    return TlsParametersConfig(
        minimum=minimum,
        maximum=maximum,
        ciphers=tuple(name for entry in reader.strings("cipher_suites") for name in _suites(entry)),
        curve=_CURVES[curves[0]] if curves else "",
    )


def _suites(entry: str) -> list[str]:
    """BoringSSL's groups of equal preference, `[A|B]`, in their order."""
    return [name for part in entry.split(":") for name in part.strip("[]").split("|")]


def _try(reader: Reader, context: Context, common: CommonTlsConfig, config: DownstreamTlsConfig | UpstreamTlsConfig) -> None:
    store = SecretStore(context.secrets.values())
    certificates, validation = store.certificates(common), store.validation(common)
    if validation.subject_alt_names and not validation.has_anchor:
        raise reader.error(
            "names of a certificate that nobody vouches for prove nothing: match_subject_alt_names need trusted_ca"
        )
    kinds: set[bytes] = set()
    try:
        for certificate in certificates:
            chain = certificates_in(certificate.chain)
            if not chain:
                raise ValueError("the certificate chain holds no certificate in PEM")
            kind = chain[0].public_key_info[4:17]  # the algorithm, by which OpenSSL tells them apart
            if kind in kinds:
                raise ValueError("two certificates with keys of one kind")
            kinds.add(kind)
            if chain[0].not_after < time.time():
                context.problems.warn(reader.path, f"the certificate {chain[0].subject or chain[0].serial} has expired")
        if isinstance(config, DownstreamTlsConfig):
            server_context(config, certificates, validation)
        else:
            client_context(config, certificates, validation)
        PeerCheck(validation)
    except ValueError as error:
        raise reader.error(str(error)) from None
