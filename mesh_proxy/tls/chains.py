"""The certificate chains of a connection as DER, which the `ssl` module tells since Python 3.13 only."""

from __future__ import annotations

import ssl
from typing import Any


def verified_chain(connection: ssl.SSLObject) -> tuple[bytes, ...]:
    """The certificates from leaf to anchor as OpenSSL verified them; empty for a resumed session."""
    return _chain(connection, "get_verified_chain")


def shown_chain(connection: ssl.SSLObject) -> tuple[bytes, ...]:
    """What the peer sent, its own first; empty for a resumed session."""
    return _chain(connection, "get_unverified_chain")


def _chain(connection: ssl.SSLObject, name: str) -> tuple[bytes, ...]:
    public: Any = getattr(connection, name, None)
    if public is not None:
        return tuple(public() or ())
    inner: Any = connection._sslobj  # type: ignore[attr-defined]
    return tuple(ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in getattr(inner, name)() or ())
