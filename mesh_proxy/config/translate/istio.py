"""Istio's own extensions, which istiod puts into the configuration of every sidecar.

Those whose only work is telemetry are left out, each with its reason, so that what istiod sends can be loaded. That changes
neither which requests pass nor where they go:

* `metadata_exchange` between HTTP sidecars adds two headers, which nobody shall see; so they are removed from both directions.
* `metadata_exchange` on TCP writes bytes into a connection whose ends have agreed on `istio-peer-exchange` by ALPN. That name is
  never offered and never chosen here (`tls.py`), so that no peer writes them.
* `istio.alpn` is not left out: what it says becomes part of the HTTP connection manager.
"""

from __future__ import annotations

from typing import Any, Final

from mesh_filters.header_mutation import HeaderMutationConfig, MutationConfig, MutationsConfig
from mesh_proxy.config.istio_protos import METADATA_EXCHANGE
from mesh_proxy.config.reader import Extension, Reader

PEER_EXCHANGE: Final = "istio-peer-exchange"
"""the ALPN name of peers that begin with a block of metadata"""
_HEADERS: Final = ("x-envoy-peer-metadata", "x-envoy-peer-metadata-id")
_STATS: Final = "it only feeds Istio's own metrics, which are not kept"
_EXCHANGE: Final = f"it only feeds Istio's own metrics; {PEER_EXCHANGE} is never agreed on, so no peer sends metadata"
_WASM: Final = frozenset({"envoy.extensions.filters.http.wasm.v3.Wasm", "envoy.extensions.filters.network.wasm.v3.Wasm"})
_BUILT_IN: Final = "envoy.wasm.runtime.null"
"""the runtime of the filters that are compiled into Istio's Envoy"""
_PLUGINS: Final = {"envoy.wasm.metadata_exchange": _EXCHANGE, "envoy.wasm.stats": _STATS}
_LEFT_OUT: Final = {
    METADATA_EXCHANGE: _EXCHANGE,
    "io.istio.http.peer_metadata.Config": "it only feeds Istio's own metrics",
    "stats.PluginConfig": _STATS,
}


def left_out(extension: Extension) -> str:
    """Why an extension may be left out; empty if it may not."""
    why = _LEFT_OUT.get(extension.type, "")
    if extension.type in _WASM:
        machine: Any = extension.reader.message.config.vm_config
        if machine.runtime == _BUILT_IN:
            why = _PLUGINS.get(machine.code.local.inline_string, "")
    if why and extension.is_message:
        extension.reader.abandon()
    return why


def without_exchange(extension: Extension) -> HeaderMutationConfig | None:
    """What takes the place of an HTTP filter that is left out: the removal of the headers that it would have removed."""
    exchanges = extension.type == "io.istio.http.peer_metadata.Config"
    if extension.type in _WASM:
        exchanges = "metadata_exchange" in extension.reader.message.config.vm_config.code.local.inline_string
    if not exchanges:
        return None
    removals = tuple(MutationConfig(remove=name) for name in _HEADERS)
    return HeaderMutationConfig(mutations=MutationsConfig(request=removals, response=removals))


def alpn_overrides(reader: Reader) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`: (protocol of the endpoint, what TLS offers to it)."""
    return reader.each("alpn_override", lambda r: (r.enum("upstream_protocol"), offered(r, "alpn_override")))


def offered(reader: Reader, name: str) -> tuple[str, ...]:
    """ALPN names, without the one whose peers begin with metadata."""
    names = reader.strings(name)
    for i, one in enumerate(names):
        if not 0 < len(one.encode()) < 256 or not one.isascii():
            raise reader.error("must be 1 to 255 ASCII characters", f"{name}[{i}]")
    if PEER_EXCHANGE in names:
        reader.problems.warn(reader.at(name), f"ignored: {PEER_EXCHANGE}, as no metadata is exchanged with peers")
    return tuple(one for one in names if one != PEER_EXCHANGE)
