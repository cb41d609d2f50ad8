"""Whatever is wrong with a secret is said without showing it: in errors, and in what `/config_dump` shows of a refused update."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mesh_proxy.config.discovery import DiscoveryReader
from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.tls.authority import Authority
from mesh_proxy.xds.resources import Fault

MESH = Authority("mesh.local")
OWN, OTHER = MESH.issue(dns=("a",)), MESH.issue(dns=("b",))
KEY = OWN.key.decode()
PASSWORD = "correct-horse-battery"
CHAIN = {"inline_string": OWN.chain.decode()}
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
BAD: dict[str, dict[str, Any]] = {
    "another certificate's": {"certificate_chain": CHAIN, "private_key": {"inline_string": OTHER.key.decode()}},
    "cut off": {"certificate_chain": CHAIN, "private_key": {"inline_string": KEY[: len(KEY) // 2]}},
    "without its frame": {"certificate_chain": CHAIN, "private_key": {"inline_string": KEY.splitlines()[1]}},
    "exchanged": {"certificate_chain": {"inline_string": KEY}, "private_key": CHAIN},
    "in a list": {"certificate_chain": CHAIN, "private_key": [KEY]},
    "as text": {"certificate_chain": CHAIN, "private_key": KEY},
    "not as base64": {"certificate_chain": CHAIN, "private_key": {"inline_bytes": KEY}},
    "in a field that there is not": {"certificate_chain": CHAIN, "private_kye": {"inline_string": KEY}},
    "as a name": {"certificate_chain": CHAIN, "private_key": {KEY: "x"}},
    "as a file name": {"certificate_chain": CHAIN, "private_key": {"filename": KEY}},
    "as a variable": {"certificate_chain": CHAIN, "private_key": {"environment_variable": KEY}},
    "twice": {
        "certificate_chain": CHAIN,
        "private_key": {"inline_string": KEY, "inline_bytes": base64.b64encode(KEY.encode()).decode()},
    },
    "a password in a list": {
        "certificate_chain": CHAIN,
        "private_key": {"inline_string": KEY},
        "password": {"inline_string": [PASSWORD]},
    },
    "a password as text": {"certificate_chain": CHAIN, "private_key": {"inline_string": KEY}, "password": PASSWORD},
    "a password as a name": {"certificate_chain": CHAIN, "private_key": {"inline_string": KEY}, "password": {PASSWORD: "x"}},
    "a password as bytes": {
        "certificate_chain": CHAIN,
        "private_key": {"inline_string": KEY},
        "password": {"inline_bytes": PASSWORD + "!"},
    },
}


def listener(certificate: dict[str, Any]) -> dict[str, Any]:
    socket = {"@type": f"{TLS}.DownstreamTlsContext", "common_tls_context": {"tls_certificates": [certificate]}}
    tcp = {"name": "t", "typed_config": {"@type": TCP, "stat_prefix": "a", "cluster": "a"}}
    return {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [tcp], "transport_socket": {"name": "tls", "typed_config": socket}}],
    }


def secrets_in(text: str) -> list[str]:
    lines = [*KEY.splitlines()[1:-1], *OTHER.key.decode().splitlines()[1:-1], PASSWORD]
    return [line for line in lines if line in text]


@pytest.mark.parametrize("bad", list(BAD))
def test_a_bootstrap_is_refused_without_showing_it(bad: str) -> None:
    bootstrap = {"static_resources": {"listeners": [listener(BAD[bad])], "clusters": [{"name": "a"}]}}
    with pytest.raises(ConfigError) as caught:
        load_bootstrap(None, json.dumps(bootstrap))
    said = str(caught.value)
    assert secrets_in(said + repr(caught.value.problems)) == []
    assert said.startswith("listeners[0].filter_chains[0].transport_socket.typed_config.common_tls_context")


@pytest.mark.parametrize("bad", list(BAD))
def test_an_update_is_refused_without_showing_it(bad: str, tmp_path: Path) -> None:
    resource = {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", **listener(BAD[bad])}
    whole = json.dumps({"resources": [resource]})
    texts = {"whole.json": whole, "broken.json": whole[:-2], "broken.yaml": whole[:-2], "none.pb": whole}
    for name, text in texts.items():
        file = tmp_path / name
        file.write_text(text)
        found = DiscoveryReader({}, reject_unknown_fields=True).read("lds", str(file))
        assert isinstance(found, Fault)
        assert secrets_in(repr(found)) == [], name


@pytest.mark.parametrize("end", ["", " }", " nothing: 1 } } }", " ] } }"])
def test_the_text_format_does_not_show_its_line(end: str, tmp_path: Path) -> None:
    file = tmp_path / "lds.pb_text"
    secret = f"tls_certificate {{ private_key {{ inline_string: {json.dumps(KEY)}{end}"
    file.write_text(f'resources {{ [{TLS}.Secret] {{ name: "a" {secret}')
    found = DiscoveryReader({}, reject_unknown_fields=True).read("lds", str(file))
    assert isinstance(found, Fault)
    assert secrets_in(repr(found)) == []
    assert ": line 1, column " in found.text
