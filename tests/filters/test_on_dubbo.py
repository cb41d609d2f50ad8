"""Filters of HTTP before the Dubbo router: what they change are attachments, of the call and of its answer."""

from __future__ import annotations

from dubbo_support import wire
from dubbo_support.plane import Provider, id_of, proxied, read_frame
from plane_support import run

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo

HTTP = "type.googleapis.com/envoy.extensions.filters.http."


def attachments(frame: bytes) -> dict[bytes, bytes]:
    (message,) = DubboCodec(HeadMemo()).receive_data(frame)
    assert isinstance(message, DubboMessage)
    found = message.attachments
    return found.values if found is not None else {}


def test_header_mutation_changes_attachments() -> None:
    async def test() -> None:
        provider = Provider()
        changes = (
            "request_mutations: [{append: {header: {key: x-added, value: '%REQ(dubbo.tag)%'}}}, "
            "{remove: secret}, {append: {header: {key: dubbo.tag, value: blue}, append_action: OVERWRITE_IF_EXISTS}}, "
            "{append: {header: {key: absent, value: x}, append_action: OVERWRITE_IF_EXISTS}}], "
            "response_mutations: [{append: {header: {key: x-answered, value: '%RESPONSE_CODE%'}}}]"
        )
        filters = f'{{name: m, config: {{"@type": {HTTP}header_mutation.v3.HeaderMutation, mutations: {{{changes}}}}}}}'
        async with proxied(provider, dubbo_filters=filters) as (_, [(reader, writer)]):
            writer.write(wire.call(request_id=5, attachments={"dubbo.tag": "gray", "secret": "s", "other": "o"}))
            frame, upstream = await provider.next()
            assert attachments(frame) == {
                b"path": b"demo.HelloService",
                b"dubbo.tag": b"blue",
                b"other": b"o",
                b"x-added": b"gray",
            }
            upstream.write(wire.answer(id_of(frame)))
            answer = await read_frame(reader)
            assert id_of(answer) == 5

    run(test())


def test_limits_count_by_arguments() -> None:
    async def test() -> None:
        provider = Provider(lambda frame: wire.answer(id_of(frame)) if frame[2] & 0xE0 == 0xC0 else None)
        struct = '"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.HotParameters'
        rules = "rules: [{when: argument 1 > 10, by: [{argument: 0}], rate: 0.001}, {by: [{argument: 2.user.id}], rate: 0.001}]"
        filters = f"{{name: h, config: {{{struct}, value: {{{rules}}}}}}}"

        async with proxied(provider, dubbo_filters=filters) as (_, [(reader, writer)]):

            async def status(*arguments: object) -> int:
                writer.write(wire.call(types="Ljava/lang/String;ILjava/util/Map;", arguments=arguments))
                return (await read_frame(reader))[3]

            assert [await status("sku-1", 11, {}) for _ in range(2)] == [20, 100]
            assert [await status("sku-2", 11, {}) for _ in range(2)] == [20, 100], "another value"
            assert [await status("sku-1", 10, {}) for _ in range(2)] == [20, 20], "not concerned"
            assert [await status("x", 0, {"user": {"id": 7}}) for _ in range(2)] == [20, 100]
            assert [await status("x", 0, {"user": {"id": 8}}), await status("x", 0, {"user": None})] == [20, 20]
            writer.write(wire.call(request_id=9))
            assert (await read_frame(reader))[3] == 20, "without arguments"

    run(test())


def test_ip_tags_are_attachments() -> None:
    async def test() -> None:
        provider = Provider()
        tags = "ip_tags: [{ip_tag_name: here, ip_list: [{address_prefix: 127.0.0.0, prefix_len: 8}]}]"
        filters = f'{{name: t, config: {{"@type": {HTTP}ip_tagging.v3.IPTagging, {tags}}}}}'
        async with proxied(provider, dubbo_filters=filters) as (one, [(_, writer)]):
            writer.write(wire.call(attachments={"a": "b"}))
            frame, _ = await provider.next()
            assert attachments(frame)[b"x-envoy-ip-tags"] == b"here"
            assert one.stat("dubbo.d.ip_tagging.here.", "hit") == 1

    run(test())
