"""Certificates for tests, made here and now."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import plane_support
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from plane_support import Serve

from mesh_proxy.config.model import AddressConfig
from mesh_proxy.tls.authority import Pair


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


def inline(pem: bytes) -> str:
    """A DataSource."""
    return json.dumps({"inline_string": pem.decode()})


def certificate(pair: Pair) -> str:
    """A TlsCertificate."""
    return f"{{certificate_chain: {inline(pair.chain)}, private_key: {inline(pair.key)}}}"


def downstream(common: str, *more: str) -> str:
    """A filter chain's transport socket; `common` is the inside of its CommonTlsContext, `more` fields beside that."""
    return _socket("DownstreamTlsContext", common, more)


def upstream(common: str, *more: str) -> str:
    """A cluster's."""
    return _socket("UpstreamTlsContext", common, more)


def _socket(kind: str, common: str, more: tuple[str, ...]) -> str:
    fields = ", ".join((f"common_tls_context: {{{common}}}", *more))
    url = f"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}"
    return f'{{name: envoy.transport_sockets.tls, typed_config: {{"@type": {url}, {fields}}}}}'


def client(*bundles: bytes, pair: Pair | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """A caller that trusts these and shows that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for bundle in bundles:
        context.load_verify_locations(cadata=bundle.decode())
    if not bundles:
        context.verify_mode = ssl.CERT_NONE
    return _finish(context, pair, alpn)


def server(pair: Pair, *bundles: bytes, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """An endpoint that shows this, and demands a certificate when there are bundles."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for bundle in bundles:
        context.load_verify_locations(cadata=bundle.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return _finish(context, pair, alpn)


def _finish(context: ssl.SSLContext, pair: Pair | None, alpn: tuple[str, ...]) -> ssl.SSLContext:
    if pair is not None:
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(pair.chain)
            key.write_bytes(pair.key)
            context.load_cert_chain(chain, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@asynccontextmanager
async def endpoint(serve: Serve, context: ssl.SSLContext | None) -> AsyncIterator[AddressConfig]:
    """An endpoint over TLS that does as it is told, whatever becomes of its callers."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async with plane_support.upstream(run, context) as address:
        yield address
