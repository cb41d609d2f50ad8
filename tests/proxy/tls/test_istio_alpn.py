"""Istio's `istio.alpn`: what TLS offers to endpoints is said by the listener, by the protocol that they are spoken to in."""

from __future__ import annotations

import asyncio

import pytest
from bootstraps import ROUTER, options, web
from plane_support import GET, at, head, plane, run
from tls_support import endpoint, inline, server, upstream

from mesh_codecs.events import Data, RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_codecs.http2 import Http2Codec
from mesh_proxy.tls.authority import Authority

MESH = Authority("mesh.local")
PROVIDER = MESH.workload("provider")
SERVED = ("istio-peer-exchange", "istio-http/1.1", "istio-h2", "istio", "h2", "http/1.1")
SOCKET = upstream(
    f"validation_context: {{trusted_ca: {inline(MESH.pem)}}}, alpn_protocols: [istio-peer-exchange, istio]", "sni: provider"
)
ALPN = f"""http_filters: [{{name: istio.alpn, typed_config: {{
    "@type": type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig, alpn_override: [
      {{upstream_protocol: HTTP11, alpn_override: [istio-http/1.1, istio, http/1.1]}},
      {{upstream_protocol: HTTP2, alpn_override: [istio-h2, istio, h2]}}]}}}}, {ROUTER}]"""
TWO = options("explicit_http_config: {http2_protocol_options: {}}")
KEPT = 'metadata: {filter_metadata: {istio: {alpn_override: "false"}}}'


@pytest.mark.parametrize(
    ("hcm", "cluster", "agreed"),
    [
        ("", "", "istio"),
        (ALPN, "", "istio-http/1.1"),
        (ALPN, TWO, "istio-h2"),
        (ALPN, KEPT, "istio"),
    ],
    ids=["without it", "HTTP/1", "HTTP/2", "a cluster that keeps its own"],
)
def test_what_is_agreed_on(hcm: str, cluster: str, agreed: str) -> None:
    """Never the name whose peers begin with a block of metadata."""
    seen: list[str | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        if cluster != TWO:
            while await head(reader):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        codec = Http2Codec(downstream=True)
        while data := await reader.read(65536):
            for event in codec.receive_data(data):
                if isinstance(event, RequestHeaders):
                    codec.send(ResponseHeaders(event.stream_id, 200, Headers([(b"content-length", b"2")]), False))
                    codec.send(Data(event.stream_id, b"hi", True))
            writer.write(b"".join(codec.data_to_send()))

    async def test() -> None:
        async with endpoint(serve, server(PROVIDER, alpn=SERVED)) as address:
            fields = f"transport_socket: {SOCKET}" + (f", {cluster}" if cluster else "")
            async with plane(web(hcm=hcm, cluster=fields, endpoint=at(address))) as one:
                reader, writer = await one.connect("web")
                for _ in range(3):
                    writer.write(GET)
                    assert (await head(reader)).startswith(b"HTTP/1.1 200")
                    assert await reader.readexactly(2) == b"hi"
                writer.close()

    run(test())
    assert seen == [agreed]
