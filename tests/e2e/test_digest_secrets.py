"""Secrets in listeners from files: they count in digests, and stand in no digest, dump or log."""

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from e2e_support.dynamic import Files, Proxy, Tree, free_port, listener, running, table, until

from mesh_proxy.tls.authority import Authority

pytestmark = pytest.mark.slow
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
PASSWORD = "correct horse battery staple"


def secure(name: str, port: int, common: Tree) -> Tree:
    found = listener(name, port, routes=table("safe"))
    config = {"@type": TLS, "common_tls_context": common}
    found["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": config}
    return found


def certificate(pair: Any) -> Tree:
    return {"certificate_chain": {"inline_string": pair.chain.decode()}, "private_key": {"inline_string": pair.key.decode()}}


def everything_said(proxy: Proxy) -> str:
    paths = ("/config_dump?include_eds", "/config_digest", "/stats", "/clusters", "/listeners", "/server_info", "/init_dump")
    return proxy.log + "".join(proxy.ask(path)[1].decode() for path in paths)


def resource(proxy: Proxy, kind: str) -> str:
    """Its digest. A worker serves with a resource before the supervisor has heard that all do."""

    def find() -> Any:
        return next((one["digest"] for one in proxy.json("/config_digest")["resources"] if one["type"].endswith(kind)), None)

    return str(until(f"the digest of a {kind}", find))


def test_a_private_key_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    authority = Authority("test")
    first, second = (authority.issue(dns=("localhost",)) for _ in range(2))
    files, port = Files(tmp_path / "files"), free_port()
    files.move("cds", [], "1")
    files.move("lds", [secure("in", port, {"tls_certificates": [certificate(first)]})], "1")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        assert shown(port) == leaf(first)
        before = resource(proxy, ".Listener")
        files.move("lds", [secure("in", port, {"tls_certificates": [certificate(second)]})], "2")
        until("another digest", lambda: resource(proxy, ".Listener") != before)
        # And one that is refused: its text is shown, its key is not.
        broken = certificate(first)
        broken["password"] = {"inline_string": PASSWORD}
        broken["certificate_chain"] = {"inline_string": "nonsense"}
        files.move("lds", [secure("in", port, {"tls_certificates": [broken]})], "3")
        proxy.wait("listener_manager.lds.update_rejected", 1)
        assert shown(port) == leaf(second)
        said = everything_said(proxy)
        for pair in (first, second):
            lines = pair.key.decode().splitlines()[1:-1]
            assert not [line for line in lines if line in said or json.dumps(line) in said]
        assert PASSWORD not in said
        assert "[redacted]" in said


def leaf(pair: Any) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.chain.decode())


def shown(port: int) -> bytes:
    """The certificate that a new connection sees; a request on it is answered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain, context.wrap_socket(plain) as one:
        one.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        data = b""
        while chunk := one.recv(4096):
            data += chunk
        found = one.getpeercert(binary_form=True)
    assert data.endswith(b"safe"), data
    assert found is not None
    return found


def test_a_secret_from_a_file_in_a_listener_from_a_file(tmp_path: Path) -> None:
    authority = Authority("test")
    first, second = (authority.issue(dns=("localhost",)) for _ in range(2))
    files, port = Files(tmp_path / "files"), free_port()
    files.move("cds", [], "1")
    files.move("sds", [{"name": "mine", "tls_certificate": certificate(first)}], "1")
    common = {"tls_certificate_sds_secret_configs": [{"name": "mine", "sds_config": files.source("sds")}]}
    files.move("lds", [], "0")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        files.move("lds", [secure("in", port, common)], "1")
        until("the listener", lambda: shown(port) == leaf(first))
        before, listeners = resource(proxy, ".Secret"), resource(proxy, ".Listener")
        files.move("sds", [{"name": "mine", "tls_certificate": certificate(second)}], "2")
        until("the second certificate", lambda: shown(port) == leaf(second))
        until("another digest", lambda: resource(proxy, ".Secret") != before)
        assert resource(proxy, ".Listener") == listeners
        assert proxy.stat("listener_manager.listener_modified") == 0
        said = everything_said(proxy)
        for pair in (first, second):
            assert not [line for line in pair.key.decode().splitlines()[1:-1] if line in said]
