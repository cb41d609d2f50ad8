"""TLS: requests on connections that last, over mutual TLS towards the endpoint, and new connections with both certificates."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import ClassVar

from harness import generators, programs
from harness.comparison import Bench, Turn, Workload

from mesh_proxy.tls.authority import Authority
from workloads import configuration as c

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


class Tls(Workload):
    """HTTPS requests of callers; the endpoint (nginx) demands our certificate. A point is connections x streams."""

    points = ("8x1", "32x1")

    def __init__(self, *, http2: bool) -> None:
        self.http2 = http2
        self.name = "tls-http2" if http2 else "tls-http1"
        if http2:
            self.points = ("8x1", "8x16")

    def start(self, bench: Bench) -> None:
        authority = Authority("mesh.local")
        self.folder = folder = bench.folder
        (folder / "root.pem").write_bytes(authority.pem)
        for name in ("proxy", "caller", "endpoint"):
            pair = authority.workload(name)
            (folder / f"{name}.pem").write_bytes(pair.chain)
            (folder / f"{name}.key").write_bytes(pair.key)
        self.upstream = programs.free_port()
        config = folder / "nginx-tls.conf"
        config.write_text(self._nginx(f"{self.upstream} ssl backlog=4096", "endpoint"))
        bench.run([programs.find("nginx", "nginx-light"), "-c", str(config), "-p", str(folder)], self.upstream)

    def configuration(self, program: str, port: int, admin: int) -> str:
        if program == "nginx":
            return self._nginx(f"{port} ssl backlog=4096", "proxy")
        cluster = c.cluster("upstream", c.endpoint(self.upstream))
        cluster["connect_timeout"] = "10s"  # all connections of a point begin at once, each with two handshakes
        cluster["transport_socket"] = self._socket("UpstreamTlsContext", sni="endpoint")
        text = json.loads(c.bootstrap(port, admin, c.http_manager([c.route_all()]), [cluster]))
        chain = text["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = self._socket("DownstreamTlsContext", require_client_certificate=self.demands_certificate)
        return json.dumps(text, indent=1)

    def _nginx(self, listen: str, name: str) -> str:
        folder = self.folder
        return (
            f"worker_processes 1; daemon off; pid {folder}/nginx-{name}.pid; error_log {folder}/nginx-{name}.err;\n"
            "events { worker_connections 16384; }\n"
            "http { access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n"
            f"  server {{ listen 127.0.0.1:{listen}; ssl_certificate {folder}/{name}.pem;\n"
            f"    ssl_certificate_key {folder}/{name}.key; ssl_client_certificate {folder}/root.pem; ssl_verify_client on;\n"
            "    ssl_protocols TLSv1.2 TLSv1.3; location / { return 200 'hello world\\n'; } } }\n"
        )

    demands_certificate = False

    def _socket(self, kind: str, **more: object) -> c.Json:
        def file(name: str) -> c.Json:
            return {"filename": str(self.folder / name)}

        common: c.Json = {"tls_certificates": [{"certificate_chain": file("proxy.pem"), "private_key": file("proxy.key")}]}
        common["validation_context"] = {"trusted_ca": file("root.pem")}
        if kind.startswith("Down"):
            common["alpn_protocols"] = ["h2", "http/1.1"]
        return {"name": "tls", "typed_config": {"@type": f"{_TLS}.{kind}", "common_tls_context": common, **more}}

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        return generators.h2load(f"https://127.0.0.1:{port}/", point, seconds, http1=not self.http2, rate=rate)


class Handshakes(Tls):
    """New connections with full handshakes and certificates of both sides, no request. A point is the number of callers.

    nginx does the same with little beside OpenSSL, mostly the one that Python has too: what a handshake costs with it."""

    unit: ClassVar[str] = "connection"
    rivals: ClassVar[tuple[str, ...]] = ("nginx",)
    points = ("4",)
    demands_certificate = True

    def __init__(self) -> None:
        super().__init__(http2=False)
        self.name = "tls-handshakes"
        self.points = ("4",)

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        command = [programs.find("openssl", "openssl"), "s_time", "-connect", f"127.0.0.1:{port}", "-new"]
        command += ["-time", f"{max(1, round(seconds))}", "-CAfile", str(self.folder / "root.pem")]
        command += ["-cert", str(self.folder / "caller.pem"), "-key", str(self.folder / "caller.key")]
        started = time.monotonic()
        callers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(int(point))
        ]
        texts = [caller.communicate(timeout=seconds + generators.GRACE_S)[0] for caller in callers]
        elapsed = time.monotonic() - started
        done = 0
        for text in texts:
            found = re.search(r"(\d+) connections in \d+ real seconds", text)
            if found is None or "rror" in text:
                raise RuntimeError(f"openssl s_time saw errors:\n{text}")
            done += int(found[1])
        return Turn(done, elapsed)


def all_workloads() -> tuple[Workload, ...]:
    """All of TLS."""
    return (Tls(http2=False), Tls(http2=True), Handshakes())
