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
