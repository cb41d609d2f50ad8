"""testssl.sh looks at a listener as a web server shows itself to the world, and finds nothing of medium weight or above.

Certificates are made as `mesh-proxy certs --days 90 --crl-url …` makes them: valid for long enough that nobody would call them
nearly expired, with a place for their revocation list. The headers that an answer should have (HSTS and its like) are added
by the route table.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Sidecar, http_listener
from parity.config import bootstrap, cluster
from peer_programs import REQUIRED, program

from mesh_proxy.tls.command import make

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REQUIRED, reason="minutes of handshakes: make interop")]

LIMIT_S = 540
DAYS = 90.0
SEVERE = ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
ANSWER_HEADERS = {
    "strict-transport-security": "max-age=31536000; includeSubDomains",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
NAME = "localhost"


def config(certs: Path) -> dict[str, Any]:
    one = http_listener("web", "back")
    manager = one["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["response_headers_to_add"] = [
        {"header": {"key": name, "value": value}} for name, value in ANSWER_HEADERS.items()
    ]
    pair = {"certificate_chain": {"filename": f"{certs}/web.pem"}, "private_key": {"filename": f"{certs}/web.key"}}
    common = {"tls_certificates": [pair], "alpn_protocols": ["h2", "http/1.1"]}
    one["filter_chains"][0]["transport_socket"] = {
        "name": "tls",
        "typed_config": {"@type": TLS, "common_tls_context": common},
    }
    return bootstrap([one], [cluster("back", "back")])


@pytest.mark.parametrize("key", ["ec", "rsa"])
def test_no_finding_of_medium_or_above(start: Callable[..., Sidecar], tmp_path: Path, key: str) -> None:
    tool = program("testssl")
    make(tmp_path, "mesh.local", {"web": "web"}, dns=[NAME], days=DAYS, key=key, crl_url="http://127.0.0.1:1/root.crl")
    sidecar = start(config(tmp_path))
    found = tmp_path / "found.json"
    command = [
        tool,
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "batch",
        "--ip",
        "127.0.0.1",
        "--add-ca",
        str(tmp_path / "root.pem"),
    ]
    command += ["--jsonfile", str(found), f"https://{NAME}:{sidecar.port('web')}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, cwd=tmp_path)
    findings = json.loads(found.read_text())
    assert len(findings) > 100, done.stdout[-3000:]
    by_name = {one["id"]: one["finding"] for one in findings}
    # It looked at what we think it looked at.
    assert by_name["TLS1_2"].startswith("offered")
    assert by_name["TLS1_3"].startswith("offered")
    assert by_name["TLS1"] == by_name["TLS1_1"] == by_name["SSLv3"] == "not offered"
    assert by_name["heartbleed"].startswith("not vulnerable")
    severities = [one["severity"] for one in findings]
    print({name: severities.count(name) for name in sorted(set(severities))})
    severe = [one for one in findings if one["severity"] in SEVERE]
    assert not severe, severe
