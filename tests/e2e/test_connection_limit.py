"""A listener's connection limit holds for all workers together."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from e2e_support import Sidecar, one_listener, until

pytestmark = pytest.mark.slow

Start = Callable[..., Sidecar]
LIMIT = 3


def accepted(sidecar: Sidecar, count: int) -> bool:
    """So many connections have come to the listener, by its own statistics."""
    names = [name for name in sidecar.stats() if name.startswith("listener.") and name.endswith("downstream_cx_total")]
    return sum(sidecar.stats()[name] for name in names if "admin" not in name and "worker_" not in name) >= count


def test_the_limit_of_a_listener_is_shared_by_the_workers(start: Start) -> None:
    runtime = {"static_layer": {"envoy": {"resource_limits": {"listener": {"in": {"connection_limit": LIMIT}}}}}}
    config = one_listener("back") | {"layered_runtime": {"layers": [{"name": "static", **runtime}]}}
    sidecar = start(config, concurrency=2)
    with ExitStack() as stack:
        callers = []
        for _ in range(4 * LIMIT):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port("in")), timeout=30))
            callers.append(caller)
            if len(callers) <= LIMIT:
                # Workers that accept at the same time may exceed a limit: one after the other up to it.
                until("it is accepted", functools.partial(accepted, sidecar, len(callers)))
        refused = 0
        for caller in callers[LIMIT:]:
            try:
                refused += caller.recv(1) == b""
            except ConnectionResetError:
                refused += 1
        assert refused == len(callers) - LIMIT
        for caller in callers[:LIMIT]:
            caller.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            assert caller.recv(12) == b"HTTP/1.1 200"
