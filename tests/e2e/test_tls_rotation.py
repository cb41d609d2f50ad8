"""Certificates are changed under load: by files that are written anew, by links that are moved, by a file of SDS."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Sidecar, at, forward, until
from parity.config import bootstrap, cluster, http
from tls_support import client

from mesh_proxy.tasks import create_task
from mesh_proxy.tls.authority import Authority, Pair
from mesh_proxy.tls.certificate import certificates_in

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
ROTATIONS = int(os.environ.get("MESH_PROXY_ROTATIONS", "100"))
DEADLINE_S = 30.0
_DAY = datetime.timedelta(days=1)
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
MESH = Authority("mesh.local")
CALLER = MESH.workload("shop")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mesh-proxy-rotation-") as name:
        yield Path(name)


def secrets_shown(sidecar: Sidecar) -> list[dict[str, Any]]:
    """Of `/config_dump`."""
    configs = json.loads(sidecar.admin("/config_dump").body)["configs"]
    (dump,) = [one for one in configs if one["@type"].endswith("SecretsConfigDump")]
    found: list[dict[str, Any]] = dump["dynamic_active_secrets"]
    return found


def put(folder: Path, pair: Pair, bundle: bytes = MESH.pem) -> None:
    """As an atomic writer does: one file after the other is moved into place."""
    for name, data in (("chain.pem", pair.chain), ("key.pem", pair.key), ("root.pem", bundle)):
        (folder / f".{name}").write_bytes(data)
        os.replace(folder / f".{name}", folder / name)


def config(folder: Path, sds: bool = False) -> dict[str, Any]:
    """Mutual TLS on both sides of the sidecar's only route: `in` calls `second`, which answers by its endpoint."""
    own = {"certificate_chain": {"filename": f"{folder}/chain.pem"}, "private_key": {"filename": f"{folder}/key.pem"}}
    trust = {"trusted_ca": {"filename": f"{folder}/root.pem"}}
    watched = {"watched_directory": {"path": str(folder)}}
    common: dict[str, Any] = {"tls_certificates": [own | watched], "validation_context": trust | watched}
    if sds:
        secrets = [{"@type": f"{TLS}Secret", "name": "default", "tls_certificate": own}]
        secrets.append({"@type": f"{TLS}Secret", "name": "ROOTCA", "validation_context": trust})
        (folder / "sds.yaml").write_text(repr({"resources": secrets}).replace("'", '"'))
        source = {"sds_config": {"path_config_source": {"path": f"{folder}/sds.yaml"}, "resource_api_version": "V3"}}
        common = {
            "tls_certificate_sds_secret_configs": [{"name": "default"} | source],
            "validation_context_sds_secret_config": {"name": "ROOTCA"} | source,
        }
    down = {"@type": f"{TLS}DownstreamTlsContext", "common_tls_context": common, "require_client_certificate": True}
    up = {"@type": f"{TLS}UpstreamTlsContext", "common_tls_context": common, "sni": "second", "max_session_keys": 0}
    listeners = [http("in", [forward("second")]), http("second", [forward("back")])]
    for listener in listeners:
        listener["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": down}
    second = {
        "name": "second",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": "second",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at("$(port.second)")}}]}],
        },
        "transport_socket": {"name": "tls", "typed_config": up},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"max_requests_per_connection": 3},
            }
        },
    }
    return bootstrap(listeners, [second, cluster("back", "back")])


class Load:
    """Callers that connect anew for each request, and one that stays connected."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.handshakes = 0
        self.requests = 0
        self.failures: list[str] = []
        self.serials: set[str] = set()
        self.stop = False

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.splitlines()[0].decode())
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
        self.requests += 1

    async def _connect(self, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="in")
        self.handshakes += 1
        shown = writer.get_extra_info("ssl_object").getpeercert(True)
        self.serials.add(certificates_in(ssl.DER_cert_to_PEM_cert(shown).encode())[0].serial)
        return reader, writer

    async def new_connections(self, context: ssl.SSLContext) -> None:
        while not self.stop:
            try:
                reader, writer = await self._connect(context)
                try:
                    await self._ask(reader, writer)
                finally:
                    writer.transport.abort()
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error))

    async def one_connection(self, context: ssl.SSLContext) -> None:
        reader, writer = await self._connect(context)
        try:
            while not self.stop:
                await self._ask(reader, writer)
                await asyncio.sleep(0.005)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.failures.append(f"the lasting connection: {error!r}")
        finally:
            writer.transport.abort()

    async def seen(self, serial: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while serial not in self.serials:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


def test_rotations_under_load(start: Start, folder: Path) -> None:
    put(folder, MESH.workload("web"))
    sidecar = start(config(folder))

    async def run() -> Load:
        load = Load(sidecar.port("in"))
        context = client(MESH.pem, pair=CALLER)
        tasks = [create_task(load.new_connections(context), name="load") for _ in range(2)]
        tasks.append(create_task(load.one_connection(context), name="load"))
        for number in range(ROTATIONS):
            pair = MESH.workload("web")
            if number % 5 == 3:
                # A bad one in between changes nothing.
                put(folder, Pair(pair.chain, CALLER.key))
            put(folder, pair, MESH.pem if number % 2 else MESH.pem + Authority("other.local").pem)
            await load.seen(certificates_in(pair.chain)[0].serial)
        load.stop = True
        await asyncio.gather(*tasks)
        return load

    load = asyncio.run(run())
    assert load.failures == []
    assert len(load.serials) > ROTATIONS
    stats = sidecar.stats()
    assert stats["cluster.second.ssl.handshake"] > 0
    assert stats["cluster.second.ssl.connection_error"] == stats["cluster.second.ssl.fail_verify_error"] == 0
    print(f"{ROTATIONS} rotations, {load.handshakes} handshakes, {load.requests} requests, 0 failed")


def _serial(port: int, context: ssl.SSLContext) -> str:
    async def ask() -> str:
        load = Load(port)
        reader, writer = await load._connect(context)
        await load._ask(reader, writer)
        writer.transport.abort()
        return load.serials.pop()

    return asyncio.run(ask())


def test_a_file_of_sds_and_bad_secrets(start: Start, folder: Path) -> None:
    first = MESH.workload("web")
    put(folder, first)
    sidecar = start(config(folder, sds=True) | {"node": {"id": "me", "cluster": "c"}})
    context = client(MESH.pem, pair=CALLER)
    serial = certificates_in(first.chain)[0].serial
    assert _serial(sidecar.port("in"), context) == serial

    def rejected() -> int:
        return sidecar.stats().get("sds.default.update_rejected", 0)

    # A key of somebody else, half a file, a certificate that has expired: the first one stays.
    expired = MESH.issue(uris=["spiffe://mesh.local/web"], valid_from=-2 * _DAY, valid_for=-_DAY)
    for bad, why in (
        (Pair(MESH.workload("web").chain, CALLER.key), "do not belong together"),
        (Pair(first.chain[:200], first.key), "no certificate"),
        (expired, "has expired"),
        (Pair(first.chain, b""), "cannot be used"),
    ):
        before = rejected()
        put(folder, bad)
        until(f"{why} is refused", lambda before=before: rejected() > before, DEADLINE_S)
        assert _serial(sidecar.port("in"), context) == serial
        until(f"{why} is logged", lambda why=why: why in sidecar.log(), DEADLINE_S)
        (own,) = [one for one in secrets_shown(sidecar) if one["name"] == "default"]
        assert why in own["error_state"]["details"]
        assert [why in one["details"] for one in json.loads(sidecar.admin("/config_digest").body)["refused"]] == [True]
    assert "PRIVATE KEY" not in sidecar.log()
    # Another secret by another file.
    second = MESH.workload("web")
    (folder / "new-chain.pem").write_bytes(second.chain)
    (folder / "new-key.pem").write_bytes(second.key)
    text = (folder / "sds.yaml").read_text().replace("/chain.pem", "/new-chain.pem").replace("/key.pem", "/new-key.pem")
    (folder / ".sds.yaml").write_text(text)
    os.replace(folder / ".sds.yaml", folder / "sds.yaml")
    new = certificates_in(second.chain)[0].serial
    until("the new one is served", lambda: _serial(sidecar.port("in"), context) == new, DEADLINE_S)
    # The admin interface shows it, without keys.
    shown = {one["name"]: one for one in secrets_shown(sidecar)}
    assert shown.keys() == {"default", "ROOTCA"}
    assert not any("error_state" in one for one in shown.values())
    chain = shown["default"]["secret"]["tls_certificate"]
    assert base64.b64decode(chain["certificate_chain"]["inline_bytes"]) == second.chain
    assert base64.b64decode(chain["private_key"]["inline_bytes"]) == b"[redacted]"
    found = sidecar.admin("/certs").body.decode()
    assert new in found
    assert f"{folder}/new-chain.pem" in found
    dump = sidecar.admin("/config_dump").body.decode()
    assert "PRIVATE KEY" not in dump + found
    assert sidecar.stats()["server.days_until_first_cert_expiring"] == 0  # of a certificate for a day
