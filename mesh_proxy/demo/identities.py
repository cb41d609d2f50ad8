"""Who is who in the demo: certificates, made as `mesh-proxy certs` makes them, and TLS for callers without a sidecar."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mesh_proxy.tls.command import make

TRUST_DOMAIN: Final = "demo.mesh"
WEB: Final = "web"
"""the caller, who may call"""
SHOP: Final = "shop"
"""the services"""
GUEST: Final = "guest"
"""a workload of the mesh that may not call"""
COMMAND: Final = f"mesh-proxy certs {WEB} {SHOP} {GUEST} --trust-domain {TRUST_DOMAIN}"
"""what makes these certificates, for a person"""
DAYS: Final = 1.0


def identity(workload: str) -> str:
    """SPIFFE id."""
    return f"spiffe://{TRUST_DOMAIN}/{workload}"


def make_certificates(folder: Path) -> None:
    """root.pem, and NAME.pem and NAME.key for each."""
    make(folder, TRUST_DOMAIN, {name: name for name in (WEB, SHOP, GUEST)}, days=DAYS)


@dataclass(frozen=True, slots=True)
class Door:
    """Where a caller connects, and how it shows itself there."""

    port: int
    """of loopback"""
    context: ssl.SSLContext | None = None
    """None: plain text"""
    server_name: str = ""

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection. Raises OSError; also ssl.SSLError, which is one."""
        options: dict[str, Any] = {}
        if self.context is not None:
            options = {"ssl": self.context, "server_hostname": self.server_name}
        return await asyncio.open_connection("127.0.0.1", self.port, **options)


def tls_context(folder: Path, workload: str = "") -> ssl.SSLContext:
    """Of a caller that trusts the authority and shows the certificate of this workload, or none."""
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    context.check_hostname = False  # names here are SPIFFE ids
    if workload:
        context.load_cert_chain(folder / f"{workload}.pem", folder / f"{workload}.key")
    return context
