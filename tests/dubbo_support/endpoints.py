"""Endpoints of Dubbo tests: answers of providers, and addresses at which there is none."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from dubbo_support import wire
from dubbo_support.plane import id_of

from mesh_proxy.config.model import AddressConfig


def echo(frame: bytes) -> bytes | None:
    """An OK answer, also to a heartbeat."""
    if not frame[2] & 0x40:
        return None
    return wire.answer(id_of(frame)) if not frame[2] & 0x20 else wire.heartbeat_answer(id_of(frame))


def named(name: str):  # type: ignore[no-untyped-def]
    """Answers with its name."""
    return lambda frame: wire.answer(id_of(frame), name) if frame[2] & 0xE0 == 0xC0 else None


def status_of(frame: bytes) -> int:
    """Of a response."""
    return frame[3]


@contextlib.contextmanager
def full_endpoint() -> Iterator[AddressConfig]:
    """A full accept queue: the kernel answers no further SYN, so that a connection is never made."""
    with contextlib.ExitStack() as stack:
        full, *taken = [stack.enter_context(socket.socket()) for _ in range(5)]
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in taken:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        yield AddressConfig(host="127.0.0.1", port=full.getsockname()[1])


@contextlib.contextmanager
def closed_endpoint() -> Iterator[AddressConfig]:
    """An address that refuses connections."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield AddressConfig(host="127.0.0.1", port=closed.getsockname()[1])
