"""Secrets: certificates with their keys, and what is asked of a peer's certificate; inline, in files, or from a file by SDS.

They are collected in the context by a name that is unique in the process. What stands inline has one made of what it holds, so
that another certificate is another configuration; what is watched has one made of where it comes from.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from mesh_proxy.config import extensions
from mesh_proxy.config.dump import dump
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.files import read_message
from mesh_proxy.config.model.tls import (
    CertificateConfig,
    SanMatcherConfig,
    SanType,
    SecretConfig,
    SecretSourceConfig,
    ValidationConfig,
)
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import data_source, required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import string_matcher
from mesh_proxy.tls.certificate import certificates_in

_SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
_SPIFFE: Final = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
_HASH: Final = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){31}")
_SAN_TYPES: Final = {"EMAIL": SanType.EMAIL, "DNS": SanType.DNS, "URI": SanType.URI, "IP_ADDRESS": SanType.IP_ADDRESS}


class _Files:
    """Which fields came from files, and where changes are looked for."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []
        self.directories: list[str] = []

    def read(self, reader: Reader, name: str, field: str) -> bytes:
        """A DataSource; b"" when it is not set."""
        inner = reader.sub(name)
        if inner is None:
            return b""
        source = data_source(inner)
        if source.filename:
            self.files.append((field, source.filename))
        return source.data

    def watch(self, reader: Reader) -> None:
        """`watched_directory`."""
        inner = reader.sub("watched_directory")
        if inner is not None:
            self.directories.append(inner.text("path"))

    def source(self) -> SecretSourceConfig | None:
        """None when nothing is watched."""
        if not self.files or not self.directories:
            return None
        return SecretSourceConfig(files=tuple(self.files), directories=tuple(self.directories))

    def of_sds(self, path: str, directory: str) -> SecretSourceConfig:
        """Files that a secret of SDS names are watched even without `watched_directory`."""
        parents = () if self.directories else tuple(sorted({str(Path(name).parent) for _, name in self.files}))
        directories = dict.fromkeys((directory or str(Path(path).parent), *self.directories, *parents))
        return SecretSourceConfig(sds_path=path, files=tuple(self.files), directories=tuple(directories))


def _certificate(reader: Reader, files: _Files) -> CertificateConfig:
    if reader.has("private_key_provider"):
        raise reader.error("keys that stay with a provider are not supported", "private_key_provider")
    if not reader.has("certificate_chain") or not reader.has("private_key"):
        raise reader.error("needs certificate_chain and private_key")
    files.watch(reader)
    return CertificateConfig(
        chain=files.read(reader, "certificate_chain", "chain"),
        key=files.read(reader, "private_key", "key"),
        password=files.read(reader, "password", "password"),
    )


def inline_certificate(reader: Reader, context: Context) -> str:
    """`TlsCertificate` in a transport socket; the name of the secret that it becomes."""
    files = _Files()
    certificate = _certificate(reader, files)
    source = files.source()
    if source is not None and len(source.files) >= 2:
        name = "file/" + "~".join(path for _, path in source.files)
    else:
        source = None
        name = f"inline/{sha256(certificate.chain + certificate.key).hexdigest()[:32]}"
    context.secrets[name] = SecretConfig(name=name, certificate=certificate, source=source)
    return name


def inline_validation(reader: Reader, context: Context) -> tuple[ValidationConfig, str]:
    """`CertificateValidationContext` in a transport socket: itself, or the name of the secret that it becomes."""
    files = _Files()
    validation = _validation(reader, files)
    source = files.source()
    if source is None:
        return validation, ""
    name = f"file/{reader.path}/" + "~".join(path for _, path in source.files)
    context.secrets[name] = SecretConfig(name=name, validation=validation, source=source)
    return ValidationConfig(), name


def validation_context(reader: Reader) -> ValidationConfig:
    """`CertificateValidationContext` without watched files."""
    return _validation(reader, _Files())


def _validation(reader: Reader, files: _Files) -> ValidationConfig:
    if reader.enum("trust_chain_verification") != "VERIFY_TRUST_CHAIN":
        raise reader.error("peers that nobody vouches for are not accepted", "trust_chain_verification")
    files.watch(reader)
    names = list(reader.each("match_typed_subject_alt_names", _typed_name))
    for matcher in reader.each("match_subject_alt_names", string_matcher):
        names += [SanMatcherConfig(kind=kind, matcher=matcher) for kind in SanType]
    domains = _trust_domains(reader)
    return ValidationConfig(
        trusted_ca=_pem(files.read(reader, "trusted_ca", "trusted_ca"), reader, "trusted_ca"),
        trust_domains=domains,
        crl=files.read(reader, "crl", "crl"),
        only_leaf_crl=reader.flag("only_verify_leaf_cert_crl"),
        subject_alt_names=tuple(names),
        spki_pins=_pins(reader),
        hashes=_hashes(reader),
        allow_expired=reader.flag("allow_expired_certificate"),
        max_depth=reader.optional_number("max_verify_depth"),
    )


def _typed_name(reader: Reader) -> SanMatcherConfig:
    kind = reader.enum("san_type")
    if kind not in _SAN_TYPES:
        raise reader.error(f"{kind} is not supported", "san_type")
    return SanMatcherConfig(kind=_SAN_TYPES[kind], matcher=string_matcher(required(reader, "matcher")))


def _pem(data: bytes, reader: Reader, field: str) -> bytes:
    if data:
        try:
            found = certificates_in(data)
        except ValueError as error:
            raise reader.error(f"holds a damaged certificate: {error}", field) from None
        if not found:
            raise reader.error("holds no certificate in PEM", field)
    elif reader.has(field):
        raise reader.error("is empty", field)
    return data


def _pins(reader: Reader) -> tuple[str, ...]:
    pins = reader.strings("verify_certificate_spki")
    for i, pin in enumerate(pins):
        try:
            valid = len(base64.b64decode(pin, validate=True)) == 32
        except binascii.Error:
            valid = False
        if not valid:
            raise reader.error("must be the base64 of a SHA-256", f"verify_certificate_spki[{i}]")
    return pins


def _hashes(reader: Reader) -> tuple[str, ...]:
    hashes = reader.strings("verify_certificate_hash")
    for i, value in enumerate(hashes):
        if not _HASH.fullmatch(value):
            raise reader.error("must be a SHA-256 in hexadecimal", f"verify_certificate_hash[{i}]")
    return tuple(value.replace(":", "").lower() for value in hashes)


def _trust_domains(reader: Reader) -> tuple[tuple[str, bytes], ...]:
    custom = reader.sub("custom_validator_config")
    if custom is None:
        return ()
    custom.text("name")
    extension = custom.extension()
    if extension is None or extension.type != _SPIFFE:
        if extension is None:
            raise custom.error("needs typed_config")
        raise extension.unsupported("certificate validator")
    found: dict[str, bytes] = {}
    for domain in extension.reader.subs("trust_domains"):
        name = domain.text("name")
        if name in found:
            raise domain.error(f"another trust domain is named {name!r} too", "name")
        found[name] = _pem(data_source(required(domain, "trust_bundle")).data, domain, "trust_bundle")
    if not found:
        raise extension.reader.error("needs trust_domains")
    return tuple(found.items())


# -- secrets that are named


def sds_secret(reader: Reader, context: Context, kind: str) -> str:
    """`SdsSecretConfig`: the name of the secret in the process. `kind` is `certificate` or `validation`."""
    label = reader.text("name")
    source = reader.sub("sds_config")
    if source is None:
        secret = _static(reader, context, label)
    else:
        path, directory = _path_of(source)
        name = f"sds/{path}#{label}"
        secret = context.secrets.get(name) or read_sds_file(path, directory, label, context)
    if getattr(secret, kind) is None:
        raise reader.error(f"the secret {label!r} is no {'certificate' if kind == 'certificate' else 'validation context'}")
    context.secrets[secret.name] = secret
    return secret.name


def _static(reader: Reader, context: Context, label: str) -> SecretConfig:
    name = f"static/{label}"
    secret = context.secrets.get(name)
    if secret is not None:
        return secret
    message = context.static_secrets.get(label)
    if message is None:
        raise reader.error(f"there is no secret {label!r} in static_resources.secrets", "name")
    files = _Files()
    return replace(_secret(message, files), name=name, source=files.source())


def _path_of(source: Reader) -> tuple[str, str]:
    source.seconds("initial_fetch_timeout")  # the file is there, or it is not
    if source.enum("resource_api_version") == "V2":
        raise source.error("V2 is not supported", "resource_api_version")
    kind = source.oneof("config_source_specifier")
    if kind == "path":
        return source.text("path"), ""
    if kind == "path_config_source":
        inner = required(source, kind)
        watched = inner.sub("watched_directory")
        return inner.text("path"), watched.text("path") if watched is not None else ""
    raise source.error("only files are supported", kind)


def _secret(reader: Reader, files: _Files) -> SecretConfig:
    label = reader.text("name")
    kind = reader.oneof("type")
    makers: dict[str, Callable[[Reader], dict[str, Any]]] = {
        "tls_certificate": lambda inner: {"certificate": _certificate(inner, files)},
        "validation_context": lambda inner: {"validation": _validation(inner, files)},
    }
    if kind not in makers:
        raise reader.error("this kind of secret is not supported", kind)
    return SecretConfig(name="", label=label, **makers[kind](required(reader, kind)))


def read_sds_file(path: str, directory: str, label: str, context: Context | None = None) -> SecretConfig:
    """The secret of that name in a DiscoveryResponse. Raises ConfigError."""
    response = discovery_pb2.DiscoveryResponse()
    problems = Problems()
    try:
        read_message(path, response, problems)
        problems.check()
    except ConfigError as error:
        located = [(where if where.startswith(path) else f"{path} {where}".strip(), why) for where, why in error.problems]
        raise ConfigError.of(located) from None
    for i, packed in enumerate(response.resources):
        where = f"{path} resources[{i}]"
        if extensions.type_name(packed.type_url) != _SECRET:
            raise ConfigError(where, f"must be a {_SECRET}")
        message = secret_pb2.Secret()
        message.MergeFromString(packed.value)
        if message.name != label:
            continue
        files, problems = _Files(), Problems()
        reader = Reader(message, where, problems)
        secret = replace(_secret(reader, files), name=f"sds/{path}#{label}", source=files.of_sds(path, directory))
        reader.finish()
        problems.check()
        if context is not None:
            context.discovered.append(dump(message, label, version=response.version_info))
        return secret
    raise ConfigError(path, f"holds no secret {label!r}")
