"""The hop of the demo between its sidecars: what is on the wire, who comes through, who does not."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mesh_proxy.demo.bootstrap import Ports, bootstrap_yaml
from mesh_proxy.demo.denials import ATTEMPTS, Denials, answers, try_denials
from mesh_proxy.demo.dubbo_traffic import send_calls
from mesh_proxy.demo.grpc_traffic import send_grpc
from mesh_proxy.demo.identities import WEB, Door, make_certificates, tls_context
from mesh_proxy.demo.processes import AddressTaken, Processes, free_port
from mesh_proxy.demo.scenario import DUBBO_RULES, GRPC_RULES, GUEST_HTTP, SIDECAR, Result, Rule
from mesh_proxy.demo.shop_bootstrap import shop_bootstrap_yaml
from mesh_proxy.demo.traffic import send

TO_V1 = Rule("weights", "/cart", {"v1": 1.0}, 100, headers=(("x-secret", "not-for-the-wire"),))
HIDDEN = (b"/cart", b"demo.Shop", b"not-for-the-wire", b"answered by", b"shop.demo")
"""what stands in requests, calls and answers"""


class Tap:
    """Passes connections on to a port, and keeps what went over them."""

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[bytearray] = []
        """one for each connection and direction"""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            writer.close()
            return
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        writer.close()
        far_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept = bytearray()
        self.seen.append(kept)
        while data := await reader.read(65536):
            kept += data
            writer.write(data)
            await writer.drain()
        writer.close()


def records(data: bytes) -> Counter[int]:
    """The TLS records that these bytes are (RFC 8446, 5.1), by type; the last may be cut off."""
    found: Counter[int] = Counter()
    while len(data) >= 5:
        assert data[0] in (20, 21, 22, 23), data[:16]
        assert data[1:3] in (b"\x03\x01", b"\x03\x03"), data[:16]
        found[data[0]] += 1
        data = data[5 + int.from_bytes(data[3:5], "big") :]
    return found


async def started(processes: Processes, folder: Path, services: Ports, tap: Tap, tapped: int) -> Ports:
    """Both sidecars; that of the caller takes the tap for that of the services. Raises AddressTaken."""
    listen, admin, dubbo, shop, shop_admin = (free_port() for _ in range(5))
    ports = replace(services, listen=listen, admin=admin, dubbo=dubbo, shop=shop, shop_admin=shop_admin)
    tap.port = shop
    files = folder / "web.yaml", folder / "shop.yaml"
    files[0].write_text(bootstrap_yaml(replace(ports, shop=tapped), certs=f"{folder}/certs", access_log=f"{folder}/log"))
    files[1].write_text(shop_bootstrap_yaml(ports, certs=f"{folder}/certs"))
    found = await asyncio.gather(
        processes.sidecar(files[0], admin, 1, "web"),
        processes.sidecar(files[1], shop_admin, 1, "shop"),
        return_exceptions=True,
    )
    for error in found:
        if isinstance(error, BaseException):
            await processes.stop("web")
            await processes.stop("shop")
            raise error
    return ports


@pytest.mark.slow
def test_the_wire_and_the_denials(tmp_path: Path) -> None:
    """Both sidecars as processes; between them somebody who listens."""

    async def test() -> None:
        certs = tmp_path / "certs"
        make_certificates(certs)
        async with Processes(tmp_path) as processes:
            v1, dubbo, grpc = await asyncio.gather(
                processes.service("v1"), processes.provider("v1"), processes.grpc_service("v1")
            )
            services = Ports(v1=v1, v2=v1, flaky=v1, dubbo_v1=dubbo, dubbo_v2=dubbo, grpc_v1=grpc, grpc_v2=grpc)
            tap = Tap()
            server = await asyncio.start_server(tap.take, "127.0.0.1", 0)
            tapped = server.sockets[0].getsockname()[1]
            for attempt in range(3):
                try:
                    ports = await started(processes, tmp_path, services, tap, tapped)
                    break
                except AddressTaken:
                    assert attempt < 2
            sidecar = Door(ports.listen)
            results = await send([TO_V1] * 50, sidecar, 2, known=[TO_V1])
            results |= await send_calls([DUBBO_RULES[1]] * 50, Door(ports.dubbo), 2)
            results |= await send_grpc([GRPC_RULES[1]] * 50, sidecar, 2)
            assert {name: result.answered for name, result in results.items() if result.sent} == {
                TO_V1.name: Counter(v1=50),
                DUBBO_RULES[1].name: Counter(v1=50),
                GRPC_RULES[1].name: Counter(v1=50),
            }
            denials = await try_denials(ports, certs, 2)
            assert denials.problems(150) == []
            assert {name: dict(result.answered) for name, result in denials.results.items()} == {
                "guest: HTTP 403": {SIDECAR: ATTEMPTS},
                "guest: Dubbo error": {SIDECAR: ATTEMPTS},
                "guest: PERMISSION_DENIED": {SIDECAR: ATTEMPTS},
            }
            # A control: by the same door and with the right certificate one does come in.
            assert await answers(Door(ports.shop, tls_context(certs, WEB), "shop-v1"))
            server.close()
        assert len(tap.seen) >= 6  # HTTP/1, Dubbo, gRPC; both directions
        for data in map(bytes, tap.seen):
            if data:
                assert records(data)
            for text in HIDDEN:
                assert text not in data
        # Of the callers, each has sent more than its handshake.
        assert sum(records(bytes(data))[23] for data in tap.seen) > 150

    asyncio.run(asyncio.wait_for(test(), 150))


def denials(**changes: int) -> Denials:
    results = {GUEST_HTTP.name: Result(GUEST_HTTP, sent=20, answered=Counter({SIDECAR: 20}))}
    figures = {"allowed": 100, "denied": 20, "handshakes": 9, "without_certificate": 0} | changes
    return Denials(results=results, let_in=(), **figures)


def test_what_is_wrong_is_said() -> None:
    assert denials().problems(100) == []
    assert denials(denied=19).problems(100) == ["the services' sidecar denied 19, 20 had to be"]
    assert denials().problems(101) == ["the services' sidecar allowed 100, 101 had to be"]
    assert denials(without_certificate=1).problems(100) == ["1 of 9 TLS connections without a certificate"]
    assert denials(handshakes=0).problems(100) == ["0 of 0 TLS connections without a certificate"]
    wrong = denials()
    wrong.let_in = ("a caller in plain text",)
    wrong.results[GUEST_HTTP.name].failures["status 200 instead of 403"] = 1
    assert wrong.problems(100) == [
        "a caller in plain text got an answer from the services' sidecar",
        "guest: HTTP 403: status 200 instead of 403 (1 of 20)",
    ]


def test_what_is_said() -> None:
    assert denials().text() == (
        "Between the sidecars: 100 requests and calls, all over mutual TLS and all by spiffe://demo.mesh/web.\n"
        "Denied to spiffe://demo.mesh/guest: 20 of 20. In plain text or without a certificate nobody got an answer."
    )
    let_in = denials()
    let_in.let_in = ("a caller in plain text",)
    assert "nobody" not in let_in.text()


def test_an_answer_is_seen() -> None:
    """So that none means something."""

    async def test() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        assert await answers(Door(server.sockets[0].getsockname()[1]))
        server.close()

    asyncio.run(test())
