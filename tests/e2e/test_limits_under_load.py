"""Rate limits under a real load, by counts: what two workers let through together is the rate times the time measured."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest
from e2e_support import Sidecar, until
from parity.config import bootstrap, http

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
TYPE = "type.googleapis.com/envoy.extensions.filters.http."
RATE = 300
SECONDS = 10.0
CONNECTIONS = 24
"""enough that the kernel gives some of them to each worker"""
STOPPED_S = 1.0
"""So long this process may have been stopped while the first or the last refusal was on its way to it."""
AHEAD = 5
"""seconds of tokens that the bucket holds: so long the load may stand still on a busy machine and lose nothing"""


def hot_values(rate: int) -> str:
    """The same rate for the one caller."""
    rules = f"rules: [{{by: [caller], rate: {rate}, burst: {rate * AHEAD}}}]"
    return (
        'http_filters: [{name: limit, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, '
        f"type_url: mesh_proxy.filters.HotParameters, value: {{{rules}}}}}}}, "
        f'{{name: router, typed_config: {{"@type": {TYPE}router.v3.Router}}}}]'
    )


def token_bucket(rate: int) -> str:
    bucket = f"token_bucket: {{max_tokens: {rate * AHEAD}, tokens_per_fill: {rate}, fill_interval: 1s}}"
    on = "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}"
    return (
        f'http_filters: [{{name: limit, typed_config: {{"@type": {TYPE}local_ratelimit.v3.LocalRateLimit, stat_prefix: rl, '
        f'{bucket}, {on}}}}}, {{name: router, typed_config: {{"@type": {TYPE}router.v3.Router}}}}]'
    )


async def drive(port: int, seconds: float) -> tuple[int, int, float]:
    """Requests as fast as they are answered, on many connections. Measured is from a refusal to a refusal, that is from an
    empty bucket to an empty bucket: (let through, refused, seconds between)."""
    passed: list[float] = []
    refused: list[float] = []
    over = asyncio.Event()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not over.is_set():
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            (refused if head[9:12] == b"429" else passed).append(monotonic())
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if refused and monotonic() - refused[0] >= seconds:
                over.set()
        writer.close()

    async with asyncio.timeout(120):
        await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    begin, end = refused[0], refused[-1]
    return sum(begin < moment <= end for moment in passed), len(refused), end - begin


@pytest.mark.parametrize("chain", [token_bucket, hot_values])
def test_two_workers_keep_the_rate_together(start: Start, chain: Callable[[int], str]) -> None:
    config = bootstrap(
        [http("in", "- {match: {prefix: /}, direct_response: {status: 200, body: {inline_string: ok}}}", chain(RATE))], []
    )
    sidecar = start(config, concurrency=2)
    passed, refused, seconds = asyncio.run(drive(sidecar.port("in"), SECONDS))
    print(f"{passed} of {passed + refused} requests in {seconds:.2f} s: {passed / seconds:.1f}/s of {RATE}/s")
    assert seconds >= SECONDS
    assert abs(passed - RATE * seconds) <= 0.02 * RATE * seconds + RATE * STOPPED_S
    counter = "rl.http_local_rate_limit.enforced" if chain is token_bucket else "http.in.hot_parameters.refused"
    until("the last ones are counted", lambda: sidecar.stats().get(counter, 0) >= refused)
    stats = sidecar.stats()
    shares = [value for name, value in stats.items() if ".worker_" in name and name.endswith("downstream_cx_total")]
    assert len([one for one in shares if one]) == 2, "both workers took part"
