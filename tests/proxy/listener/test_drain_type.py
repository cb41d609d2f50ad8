"""`drain_type`: whether a failed health check of ours ends the connections of a listener."""

from __future__ import annotations

import pytest
from bootstraps import web
from plane_support import GET, head, plane, run

DIRECT = "match: {prefix: /}, direct_response: {status: 204}"


@pytest.mark.parametrize(("listener", "last"), [("", True), ("drain_type: MODIFY_ONLY", False)])
def test_after_a_failed_health_check(listener: str, last: bool) -> None:
    async def test() -> None:
        async with plane(web(listener=listener, route=DIRECT)) as one:
            reader, writer = await one.connect("web")
            writer.write(GET)
            assert b"connection: close" not in await head(reader)
            one.data.set_health_check_failed(True)
            writer.write(GET)
            assert (b"connection: close" in await head(reader)) is last
            writer.close()

    run(test())
