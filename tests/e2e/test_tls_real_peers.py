"""openssl, curl and grpcio over mutual TLS, as callers of our listener and as endpoints of our clusters."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from e2e_support import Sidecar, http_listener, static_cluster
from parity.config import bootstrap
from peer_programs import program

from mesh_proxy.tls.command import make

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
TIMEOUT_S = 60
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
HTTP2 = """
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
"""
REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `mesh-proxy certs` makes them; and a caller of another authority with the same names."""
    folder = tmp_path_factory.mktemp("certs")
    make(folder, "mesh.local", {name: name for name in ("sidecar", "caller", "endpoint")}, dns=["localhost"])
    make(folder / "strangers", "mesh.local", {"caller": "caller"}, dns=["localhost"])
    return folder


def common(certs: Path, peer: str, *alpn: str) -> dict[str, Any]:
    own = {"certificate_chain": {"filename": f"{certs}/sidecar.pem"}, "private_key": {"filename": f"{certs}/sidecar.key"}}
    names = [{"san_type": "URI", "matcher": {"exact": f"spiffe://mesh.local/{peer}"}}]
    trust = {"trusted_ca": {"filename": f"{certs}/root.pem"}, "match_typed_subject_alt_names": names}
    return {"tls_certificates": [own], "validation_context": trust, "alpn_protocols": list(alpn)}


def config(certs: Path, port: int, *, http2: bool = False) -> dict[str, Any]:
    """Mutual TLS with whoever calls, and with the endpoint at the port."""
    down = {
        "@type": f"{TLS}DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": common(certs, "caller", "h2", "http/1.1"),
    }
    alpn = ("h2",) if http2 else ()
    up = {"@type": f"{TLS}UpstreamTlsContext", "sni": "localhost", "common_tls_context": common(certs, "endpoint", *alpn)}
    one = http_listener("in", "back", timeout="0s")
    one["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": down}
    back = static_cluster("back", port, HTTP2 if http2 else "") | {"transport_socket": {"name": "tls", "typed_config": up}}
    return bootstrap([one], [back | {"connect_timeout": "20s"}])


@contextmanager
def s_server(certs: Path) -> Iterator[int]:
    """`openssl s_server`: demands a certificate, and answers with a page about the session. Its port."""
    command = [program("openssl"), "s_server", "-accept", "127.0.0.1:0", "-www", "-Verify", "2", "-verify_return_error"]
    command += ["-CAfile", str(certs / "root.pem"), "-cert", str(certs / "endpoint.pem"), "-key", str(certs / "endpoint.key")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if line.startswith("ACCEPT"))
        yield int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def s_client(certs: Path, port: int, *flags: str, shown: Path | None) -> tuple[bytes, str]:
    """The answer to a request, and what openssl says of the session."""
    command = [program("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-ign_eof"]
    command += ["-CAfile", str(certs / "root.pem"), "-verify_return_error", *flags]
    if shown is not None:
        command += ["-cert", f"{shown}/caller.pem", "-key", f"{shown}/caller.key"]
    done = subprocess.run(command, input=REQUEST, capture_output=True, timeout=TIMEOUT_S)
    return done.stdout, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


def test_openssl_on_both_sides(start: Start, certs: Path) -> None:
    with s_server(certs) as port:
        sidecar = start(config(certs, port))
        for flags, version in ((("-tls1_2",), "TLSv1.2"), (("-tls1_3",), "TLSv1.3")):
            answer, said = s_client(certs, sidecar.port("in"), *flags, shown=certs)
            assert b"HTTP/1.1 200 OK" in answer, said
            assert b"s_server" in answer
            assert "Verify return code: 0 (ok)" in said
            assert version in said
        before = sidecar.stats()["http.in.downstream_rq_total"]
        for shown, flags in ((None, ()), (certs / "strangers", ()), (certs, ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"))):
            answer, said = s_client(certs, sidecar.port("in"), *flags, shown=shown)
            assert b"HTTP/1.1" not in answer, said
        stats = sidecar.stats()
        assert stats["http.in.downstream_rq_total"] == before == 2
        assert stats["cluster.back.ssl.handshake"] == 2
        assert stats["cluster.back.ssl.connection_error"] == 0


def test_curl(start: Start, certs: Path) -> None:
    with s_server(certs) as port:
        sidecar = start(config(certs, port))
        url = f"https://localhost:{sidecar.port('in')}/"
        curl = [program("curl"), "-sS", "--noproxy", "*", "--resolve", f"localhost:{sidecar.port('in')}:127.0.0.1"]
        curl += ["--cacert", str(certs / "root.pem"), "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
        for flag, version in (("--http1.1", "1.1"), ("--http2", "2")):
            mine = ["--cert", f"{certs}/caller.pem", "--key", f"{certs}/caller.key"]
            done = subprocess.run([*curl, flag, *mine, url], capture_output=True, text=True, timeout=TIMEOUT_S)
            assert done.stdout == f"{version} 200", done.stderr
        strange = ["--cert", f"{certs}/strangers/caller.pem", "--key", f"{certs}/strangers/caller.key"]
        for mine in ([], strange):
            done = subprocess.run([*curl, *mine, url], capture_output=True, text=True, timeout=TIMEOUT_S)
            assert done.returncode != 0
            assert done.stdout.endswith(" 000")
        assert sidecar.stats()["http.in.downstream_rq_total"] == 2


class Echo(grpc.GenericRpcHandler):
    """Every call is answered with the names in the caller's certificate."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        def answer(message: bytes, context: grpc.ServicerContext) -> bytes:
            names = context.auth_context().get("x509_subject_alternative_name", [])
            return message + b" for " + b" ".join(names)

        return grpc.unary_unary_rpc_method_handler(answer)


@contextmanager
def grpc_server(certs: Path) -> Iterator[int]:
    own = ((certs / "endpoint.key").read_bytes(), (certs / "endpoint.pem").read_bytes())
    credentials = grpc.ssl_server_credentials([own], (certs / "root.pem").read_bytes(), require_client_auth=True)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[Echo()], options=[("grpc.so_reuseport", 0)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


def call(certs: Path, port: int, shown: Path | None) -> bytes:
    """One unary call. Raises grpc.RpcError."""
    pair = ((shown / "caller.key").read_bytes(), (shown / "caller.pem").read_bytes()) if shown is not None else (None, None)
    credentials = grpc.ssl_channel_credentials((certs / "root.pem").read_bytes(), *pair)
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        return bytes(channel.unary_unary("/mesh.Test/Echo")(b"hello", timeout=TIMEOUT_S))


def test_grpcio_on_both_sides(start: Start, certs: Path) -> None:
    with grpc_server(certs) as port:
        sidecar = start(config(certs, port, http2=True))
        answer = call(certs, sidecar.port("in"), certs)
        assert answer.startswith(b"hello for ")
        assert b"spiffe://mesh.local/sidecar" in answer
        for shown in (None, certs / "strangers"):
            with pytest.raises(grpc.RpcError) as refused:
                call(certs, sidecar.port("in"), shown)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        stats = sidecar.stats()
        assert stats["http.in.downstream_rq_total"] == 1
        assert stats["cluster.back.ssl.handshake"] == 1
