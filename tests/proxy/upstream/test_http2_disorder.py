"""An HTTP/2 endpoint that does anything at any time: every caller gets an answer or an end, and nothing is left behind.

`DISORDER_SEED` repeats one run, `DISORDER_ROUNDS` makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from h2.exceptions import ProtocolError
from http2_support.peer import MAX_STREAMS, WINDOW, Http2Peer, PeerConnection, Request
from http2_support.upstream_plane import config, read_answer, request, settled
from plane_support import Plane, plane, run, until

ROUNDS = int(os.environ.get("DISORDER_ROUNDS", "12"))
SEEDS = [int(os.environ["DISORDER_SEED"])] if "DISORDER_SEED" in os.environ else [1, 2, 3]
CALLERS = 12


def misbehave(source: random.Random):
    """A connection that picks what to do with each request."""

    def serve(connection: PeerConnection) -> None:
        open_ones: list[Request] = []
        while True:
            request = connection.head()
            if request is None:
                return
            open_ones.append(request)
            open_ones = [one for one in open_ones if one.reset is None]
            if not open_ones:
                continue
            one = open_ones.pop(source.randrange(len(open_ones)))
            try:
                if act(connection, one, source):
                    return
            except ProtocolError:
                return  # the request ended while we were speaking of it

    return serve


def act(connection: PeerConnection, one: Request, source: random.Random) -> bool:
    """Do something about a request; True when the connection is over."""
    action = source.randrange(17)
    if action < 6:
        connection.answer(one, bytes(source.choice([0, 1, 3000, 70_000])))
    elif action == 6:
        connection.reset(one, source.choice([0, 1, 2, 7, 8]))
    elif action == 7:
        connection.headers(one)
        connection.reset(one, 2)
    elif action == 8:
        connection.headers(one, 200, [(b"content-length", b"10")])
        connection.data(one, b"abc")
        connection.reset(one, 8)
    elif action == 9:
        connection.go_away(source.choice([0, one.stream_id - 1, one.stream_id, (1 << 31) - 1]))
        connection.answer(one)
    elif action == 10:
        return True
    elif action == 11:
        connection.update_settings({source.choice([MAX_STREAMS]): source.choice([1, 2, 50])})
        connection.answer(one)
    elif action == 12:
        connection.update_settings({WINDOW: source.choice([10, 1000, 65_535])})
        connection.answer(one)
    elif action == 13:
        connection.headers(one, 103, [(b"link", b"x")])
        connection.headers(one, 200)
        connection.trailers(one, [(b"x-t", b"1")])
    elif action == 14:
        connection.raw(bytes(source.randrange(256) for _ in range(40)))
        return True
    elif action == 15:
        connection.answer(one, b"early", 413)  # perhaps before the end of the request
    # else: it gets no answer and times out
    return False


async def caller(one: Plane, source: random.Random, seen: list[int]) -> None:
    for _ in range(ROUNDS):
        reader, writer = await one.connect("web")
        try:
            if source.random() < 0.5:
                writer.write(request("/", "POST", bytes(source.choice([1, 5000, 200_000]))))
            else:
                writer.write(request())
            if source.random() < 0.1:
                continue  # leaves without waiting
            async with asyncio.timeout(20):
                seen.append((await read_answer(reader)).status)
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.append(0)
        finally:
            writer.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_left_behind(seed: int) -> None:
    source = random.Random(seed)
    seen: list[int] = []

    async def test() -> None:
        with Http2Peer(misbehave(source), {MAX_STREAMS: source.choice([1, 4, 100])}) as peer:
            limits = "circuit_breakers: {thresholds: [{max_connections: 4, max_pending_requests: 20}]}"
            retries = "retry_policy: {retry_on: 'reset,refused-stream', num_retries: 1}"
            route = f"match: {{prefix: /}}, route: {{cluster: a, timeout: 1s, {retries}}}"
            async with plane(config(peer, cluster=limits, route=route)) as one:
                await asyncio.gather(*(caller(one, random.Random(f"{seed} {n}"), seen) for n in range(CALLERS)))
                for name in ("upstream_rq_active", "upstream_rq_pending_active"):
                    await settled(one, name, 0)
                await settled(one, "streams_active", 0, "cluster.a.http2.")
                cluster = one.data._context.clusters.get("a")
                assert cluster is not None
                limit = cluster.default  # a caller that left during the back-off of a retry is not yet gone for us
                await until(lambda: (limit.requests, limit.pending_requests, limit.retries) == (0, 0, 0))
                for endpoint in cluster.endpoints:
                    assert endpoint.stats.rq_active == 0
                    for pool in endpoint.pools.values():
                        assert not pool.moved
                        assert all(not c.streams for c in pool.connections)
                        assert cluster.default.connections == len(pool.connections) + len(pool.connecting)

    run(test())
    assert seen.count(200) > len(seen) // 4, seen
