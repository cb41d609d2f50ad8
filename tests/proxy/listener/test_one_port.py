"""Triple and Dubbo 2 on one port: each call finds the endpoints of its protocol, and one rule holds for both."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from bootstraps import EXT, ROUTER, options
from dubbo_support import wire as dubbo
from dubbo_support.plane import DUBBO, Provider, id_of, read_frame
from http2_support.caller import Answer, Caller
from http2_support.peer import Http2Peer, PeerConnection
from plane_support import plane, run, upstream

HCM = f"{EXT}filters.network.http_connection_manager.v3.HttpConnectionManager"
SERVICE = "demo.HelloService"
INSPECTOR = f'{{name: h, typed_config: {{"@type": {EXT}filters.listener.http_inspector.v3.HttpInspector}}}}'
LIMIT = (
    '{name: limit, %s: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.HotParameters, value: '
    "{rules: [{when: 'service == demo.HelloService and path endswith /rare and version == 2.0.0', by: [call], rate: 0.01}]}}}"
)
MESSAGE = b"\0\0\0\0\2hi"


def cluster(name: str, port: int, more: str = "") -> str:
    at = f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
    return f"  - {{name: {name}, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{at}]}}]}}{more}}}"


def bootstrap(ports: dict[str, int]) -> str:
    http2 = ", " + options("explicit_http_config: {http2_protocol_options: {}}")
    version = "headers: [{name: tri-service-version, string_match: {exact: 2.0.0}}]"
    triple = (
        f"{{match: {{prefix: /{SERVICE}/, {version}}}, route: {{cluster: tri2}}}}, "
        f"{{match: {{prefix: /{SERVICE}/}}, route: {{cluster: tri1}}}}"
    )
    return "\n".join(
        (
            "static_resources:",
            "  listeners:",
            "  - name: port",
            "    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
            f"    listener_filters: [{INSPECTOR}]",
            "    filter_chains:",
            "    - filter_chain_match: {application_protocols: [http/1.1, h2c]}",
            f'      filters: [{{name: http, typed_config: {{"@type": {HCM}, stat_prefix: t,',
            f"        http_filters: [{LIMIT % 'typed_config'}, {ROUTER}],",
            f'        route_config: {{name: r, virtual_hosts: [{{name: v, domains: ["*"], routes: [{triple}]}}]}}}}}}]',
            f'    - filters: [{{name: dubbo, typed_config: {{"@type": {DUBBO}, stat_prefix: d,',
            f"        dubbo_filters: [{LIMIT % 'config'}, {{name: envoy.filters.dubbo.router}}], route_config: [",
            f"        {{name: r2, interface: {SERVICE}, version: 2.0.0, routes: [{{match: {{}}, route: {{cluster: two}}}}]}},",
            f"        {{name: r1, interface: {SERVICE}, routes: [{{match: {{}}, route: {{cluster: one}}}}]}}]}}}}]",
            "  clusters:",
            *(cluster(name, port, http2 if name.startswith("tri") else "") for name, port in ports.items()),
        )
    )


def triple_endpoint(name: bytes) -> Http2Peer:
    def serve(connection: PeerConnection) -> None:
        while (request := connection.request()) is not None:
            connection.headers(request, 200, [(b"content-type", b"application/grpc"), (b"who", name)])
            connection.data(request, MESSAGE)
            connection.trailers(request, [(b"grpc-status", b"0")])

    return Http2Peer(serve)


async def triple(caller: Caller, method: str, version: str) -> Answer:
    fields = [
        (b"content-type", b"application/grpc+proto"),
        (b"te", b"trailers"),
        (b"tri-service-version", version.encode()),
    ]
    stream = caller.request(f"/{SERVICE}/{method}".encode(), method=b"POST", headers=fields, end=False)
    caller.data(stream, MESSAGE, end=True)
    return await caller.answer(stream)


@pytest.mark.parametrize("cut", [0, 1, 2, 15])
def test_both_are_served_and_limited_alike(cut: int) -> None:
    async def test() -> None:
        async with AsyncExitStack() as stack:
            ports = {}
            for name in ("one", "two"):
                provider = Provider(lambda frame, name=name: dubbo.answer(id_of(frame), name))  # type: ignore[misc]
                ports[name] = (await stack.enter_async_context(upstream(provider.serve))).port
            for name in ("tri1", "tri2"):
                ports[name] = stack.enter_context(triple_endpoint(name.encode())).port
            one = await stack.enter_async_context(plane(bootstrap(ports)))
            pairs = [await one.connect("port") for _ in range(4)]
            callers = [Caller(*pair) for pair in pairs[:2]]
            for number, (reader, writer) in enumerate(pairs[2:]):
                first = dubbo.call(SERVICE, request_id=7, version="1.0.0")
                writer.write(first[:cut])
                assert (await triple(callers[number], "sayHello", "1.0.0")).headers.get(b"who") == b"tri1"
                writer.write(first[cut:])  # meanwhile the first bytes were looked at
                assert await read_frame(reader) == dubbo.answer(7, "one")
                writer.write(dubbo.call(SERVICE, request_id=8, version="2.0.0"))
                assert await read_frame(reader) == dubbo.answer(8, "two")
                answer = await triple(callers[number], "sayHello", "2.0.0")
                assert (answer.headers.get(b"who"), answer.body) == (b"tri2", MESSAGE)
                assert answer.trailers is not None
                assert answer.trailers.get(b"grpc-status") == b"0"
            for version, then in (("1.0.0", None), ("2.0.0", b"8")):
                statuses = [(await triple(callers[0], "rare", version)) for _ in range(2)]
                assert [(a.trailers or a.headers).get(b"grpc-status") for a in statuses] == [b"0", then or b"0"]
                frames = []
                for number in range(2):
                    writer.write(dubbo.call(SERVICE, "rare", request_id=number, version=version))
                    frames.append(await read_frame(reader))
                assert [dubbo.header(frame)[1] == 20 for frame in frames] == [True, then is None]
            assert one.stat("http_inspector.", "http2_found") == 2
            assert one.stat("http_inspector.", "http_not_found") == 2
            for _, writer in pairs:
                writer.close()

    run(test())
