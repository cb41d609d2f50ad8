"""Small common ground of all connections: water marks, writing, addresses."""

from __future__ import annotations

import asyncio
from typing import Any, Final

WATERMARK_HIGH: Final = 65_536
"""Bytes in a send buffer at which the other side is no longer read; a smaller per_connection_buffer_limit_bytes lowers it."""
WATERMARK_LOW: Final = 16_384
"""Bytes at which reading goes on."""
JOIN_LIMIT: Final = 16_384
"""Up to this size copying pieces into one write is cheaper than a vector of them."""


def write_all(transport: asyncio.Transport, pieces: list[bytes]) -> int:
    """Write the pieces in one go; the number of bytes."""
    if not pieces:
        return 0
    if len(pieces) == 1:
        data = pieces[0]
        transport.write(data)
        return len(data)
    size = sum(map(len, pieces))
    if size <= JOIN_LIMIT:
        transport.write(b"".join(pieces))
    else:
        transport.writelines(pieces)
    return size


def address_of(sockname: Any) -> bytes:
    """`10.0.0.1:80`, `[::1]:80` or a path, from what `getsockname` and `getpeername` return."""
    if isinstance(sockname, tuple):
        host, port = sockname[0], sockname[1]
        return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()
    if isinstance(sockname, bytes):
        return sockname
    return str(sockname).encode() if sockname else b""


def set_limits(transport: asyncio.Transport, limit: int) -> None:
    """Water marks of a send buffer, lowered by a small per_connection_buffer_limit_bytes."""
    if 0 < limit < WATERMARK_HIGH:
        transport.set_write_buffer_limits(limit, limit // 4)
    else:
        transport.set_write_buffer_limits(WATERMARK_HIGH, WATERMARK_LOW)
