"""One GET at an admin interface, for commands that ask many of them: bounded in time and size, with one kind of failure."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

MOST_BYTES: Final = 64 * 1024 * 1024
"""of an answer; a hundred thousand resources have 25 MB"""


class FetchError(Exception):
    """There was no usable answer; the text says why."""


async def fetch_json(address: str, path: str, timeout_s: float) -> Any:
    """The JSON under a path. `address` is HOST:PORT, perhaps with `http://`, or the path of a unix socket. Raises FetchError."""
    try:
        async with asyncio.timeout(timeout_s):
            status, body = await _fetch(address, path)
    except TimeoutError:
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    except (OSError, ValueError, EOFError) as error:
        raise FetchError(str(error) or type(error).__name__) from None
    if status != 200:
        raise FetchError(f"answers {path.partition('?')[0]} with {status}")
    try:
        return json.loads(body)
    except ValueError:
        raise FetchError("answers with something that is not JSON") from None


async def _fetch(address: str, path: str) -> tuple[int, bytes]:
    if address.startswith(("/", "@")):
        name = "\0" + address[1:] if address.startswith("@") else address
        reader, writer = await asyncio.open_unix_connection(name)
        host = "localhost"
    else:
        host = address.removeprefix("http://").rstrip("/")
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit():
            raise ValueError(f"{address!r} is not HOST:PORT")
        reader, writer = await asyncio.open_connection(name.strip("[]"), int(port))
        # A name as Host would be refused, as it may be somebody else's name for that address.
        peer = writer.get_extra_info("peername")
        host = f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n".encode())
        await writer.drain()
        data = bytearray()
        while chunk := await reader.read(65536):
            data += chunk
            if len(data) > MOST_BYTES:
                raise ValueError("the answer is too long")
    finally:
        writer.close()
    head, found, body = bytes(data).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if not found or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ValueError("this is no HTTP answer")
    return int(words[1]), body
