"""Who may not call the services, and what he gets: another identity, no identity, plain text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh_proxy.demo.bootstrap import Ports
from mesh_proxy.demo.dubbo_traffic import send_calls
from mesh_proxy.demo.grpc_traffic import send_grpc
from mesh_proxy.demo.identities import GUEST, WEB, Door, identity, tls_context
from mesh_proxy.demo.processes import fetch, numbers
from mesh_proxy.demo.scenario import GUEST_DUBBO, GUEST_GRPC, GUEST_HTTP, Result
from mesh_proxy.demo.traffic import send

ATTEMPTS: Final = 20
"""of each kind"""
TIMEOUT_S: Final = 20.0
_REQUEST: Final = b"GET /cart HTTP/1.1\r\nhost: shop.demo\r\n\r\n"


@dataclass(slots=True, kw_only=True)
class Denials:
    """What they met, and what the services' sidecar counted until then."""

    results: Mapping[str, Result]
    """of the workload that may not call, by rule name"""
    let_in: tuple[str, ...]
    """who got an answer although he showed no certificate"""
    allowed: int
    """requests and calls, by the sidecar's rules"""
    denied: int
    handshakes: int
    """TLS connections that the sidecar took in"""
    without_certificate: int
    """those of them whose peer is nobody"""

    def problems(self, passed: int) -> list[str]:
        """Why this is not what mutual TLS and the rules promise; `passed` requests and calls of `web` had to come through."""
        found = [f"{who} got an answer from the services' sidecar" for who in self.let_in]
        for result in self.results.values():
            found += result.problems()
        sent = sum(result.sent for result in self.results.values())
        if self.denied != sent:
            found.append(f"the services' sidecar denied {self.denied}, {sent} had to be")
        if self.allowed != passed:
            found.append(f"the services' sidecar allowed {self.allowed}, {passed} had to be")
        if self.without_certificate or not self.handshakes:
            found.append(f"{self.without_certificate} of {self.handshakes} TLS connections without a certificate")
        return found

    def text(self) -> str:
        """For a terminal."""
        sent = sum(result.sent for result in self.results.values())
        lines = [
            f"Between the sidecars: {self.allowed} requests and calls, all over mutual TLS and all by {identity(WEB)}.",
            f"Denied to {identity(GUEST)}: {self.denied} of {sent}.",
        ]
        if not self.let_in:
            lines[-1] += " In plain text or without a certificate nobody got an answer."
        return "\n".join(lines)


async def try_denials(ports: Ports, certs: Path, connections: int) -> Denials:
    """Call the services' sidecar from outside: as a guest, without a certificate, in plain text."""
    guest = tls_context(certs, GUEST)
    results: dict[str, Result] = {}
    results |= await send([GUEST_HTTP] * ATTEMPTS, Door(ports.shop, guest, "shop-v1"), connections, known=[GUEST_HTTP])
    results |= await send_calls([GUEST_DUBBO] * ATTEMPTS, Door(ports.shop, guest, "dubbo-v1"), connections, [GUEST_DUBBO])
    results |= await send_grpc([GUEST_GRPC] * ATTEMPTS, Door(ports.shop, guest, "grpc-v1"), connections, [GUEST_GRPC])
    doors = {
        "a caller in plain text": Door(ports.shop),
        "a caller without a certificate": Door(ports.shop, tls_context(certs), "shop-v1"),
    }
    let_in = tuple([who for who, door in doors.items() if await answers(door)])
    stats = numbers(await asyncio.to_thread(fetch, ports.shop_admin, "/stats"))
    listener = f"listener.127.0.0.1_{ports.shop}.ssl"
    return Denials(
        results=results,
        let_in=let_in,
        allowed=_sum(stats, ".rbac.allowed"),
        denied=_sum(stats, ".rbac.denied"),
        handshakes=stats.get(f"{listener}.handshake", 0),
        without_certificate=stats.get(f"{listener}.no_certificate", 0),
    )


async def answers(door: Door) -> bool:
    """Whether a request gets as much as a byte. No connection, or one that ends, is none."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await door.open()
            try:
                writer.write(_REQUEST)
                return bool(await reader.read(1))
            finally:
                writer.close()
    except (OSError, EOFError):
        return False


def _sum(stats: Mapping[str, int], end: str) -> int:
    return sum(value for name, value in stats.items() if name.endswith(end))
