"""Secrets in listeners from files: they count in digests, and stand in no digest, dump or log."""

import json
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
    return str(next(one["digest"] for one in proxy.json("/config_digest")["resources"] if one["type"].endswith(kind)))


def test_a_private_key_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    authority = Authority("test")
    first, second = (authority.issue(dns=("localhost",)) for _ in range(2))
    files, port = Files(tmp_path / "files"), free_port()
    files.move("cds", [], "1")
    files.move("lds", [secure("in", port, {"tls_certificates": [certificate(first)]})], "1")
    with running("mesh-proxy", tmp_path / "p", files.bootstrap()) as proxy:
        proxy.wait_ready()
        before = resource(proxy, ".Listener")
        files.move("lds", [secure("in", port, {"tls_certificates": [certificate(second)]})], "2")
        until("another digest", lambda: resource(proxy, ".Listener") != before)
        # And one that is refused: its text is shown, its key is not.
        broken = certificate(first)
        broken["password"] = {"inline_string": PASSWORD}
        broken["certificate_chain"] = {"inline_string": "nonsense"}
        files.move("lds", [secure("in", port, {"tls_certificates": [broken]})], "3")
        proxy.wait("listener_manager.lds.update_rejected", 1)
        said = everything_said(proxy)
        for pair in (first, second):
            lines = pair.key.decode().splitlines()[1:-1]
            assert not [line for line in lines if line in said or json.dumps(line) in said]
        assert PASSWORD not in said
        assert "[redacted]" in said
