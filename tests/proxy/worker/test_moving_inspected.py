"""Connections to a listener that looks at their first bytes go to another process too, before it has seen them and after."""

from __future__ import annotations

import pytest
from bootstraps import EXT, web
from moving_support import Handing, ok, planes, run, web_planes
from plane_support import GET, answer, at, until, upstream

INSPECTOR = f'listener_filters: [{{name: h, typed_config: {{"@type": {EXT}filters.listener.http_inspector.v3.HttpInspector}}}}]'
ONLY_HTTP1 = "filter_chain_match: {application_protocols: [http/1.1]}"


@pytest.mark.parametrize("cut", [0, 3, len(GET) - 1])
def test_before_and_after_the_protocol_is_known(cut: int) -> None:
    async def test() -> None:
        async with web_planes(answer, listener=INSPECTOR, chain=ONLY_HTTP1) as (old, new):
            known = cut > len(b"GET / HTTP/1.1\r\n")
            reader, writer = await old.connect("web")
            writer.write(GET[:cut])
            await until(lambda: old.stat("listener.127.0.0.1_0.", "downstream_cx_total") == 1)
            await until(lambda: old.stat("listener.127.0.0.1_0.", "downstream_pre_cx_active") == (not known))
            handing = await Handing(old, new).begin().done()
            assert handing.mover.moved == 1
            writer.write(GET[cut:])
            await ok(reader)
            assert known or new.stat("http_inspector.", "http11_found") == 1
            assert new.stat("listener.127.0.0.1_0.", "downstream_cx_total") == 0
            assert old.stat("listener.127.0.0.1_0.", "downstream_cx_destroy") == 0
            assert old.stat("listener.127.0.0.1_0.", "downstream_pre_cx_active") == 0
            writer.close()
            await until(lambda: new.data.active_connections == 0)
            assert new.stat("listener.127.0.0.1_0.", "downstream_cx_destroy") == 1

    run(test())


def test_a_new_process_that_does_not_look_leaves_it_where_it_is() -> None:
    async def test() -> None:
        async with upstream(answer) as address:
            looks, does_not = web(endpoint=at(address), listener=INSPECTOR), web(endpoint=at(address))
            async with planes(looks, does_not) as (old, new):
                reader, writer = await old.connect("web")
                writer.write(GET[:3])
                await until(lambda: old.stat("listener.127.0.0.1_0.", "downstream_pre_cx_active") == 1)
                handing = Handing(old, new).begin()
                await until(lambda: bool(handing.refused))
                assert handing.refused == ["the listener does not look at first bytes any more"]
                writer.write(GET[3:])
                await ok(reader)
                await handing.done()  # now that it is HTTP it goes
                assert handing.mover.moved == 1
                writer.close()

    run(test())


def test_a_new_process_that_dies_leaves_it_where_it_is() -> None:
    async def test() -> None:
        async with web_planes(answer, listener=INSPECTOR) as (old, new):
            reader, writer = await old.connect("web")
            await until(lambda: old.stat("listener.127.0.0.1_0.", "downstream_pre_cx_active") == 1)
            handing = Handing(old, new).begin(hold=True)
            await until(lambda: bool(handing.held))
            handing.fail()
            writer.write(GET)
            await ok(reader)
            writer.close()

    run(test())
