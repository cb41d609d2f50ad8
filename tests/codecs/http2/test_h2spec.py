"""Conformance by h2spec 2.6: 147 strict cases for the side that is called, 57 of `h2specd` for the side that calls.

Both are Go programs of github.com/summerwind/h2spec, looked for on the PATH and in `go env GOPATH`/bin.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path

import pytest
from http2_support import calling
from http2_support.serving import start_server
from peer_programs import program

from mesh_codecs.http2 import Http2Settings

pytestmark = pytest.mark.slow
_SUMMARY = re.compile(rb"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed")


def free_block(count: int) -> int:
    """The first of `count` free ports in a row, below those that the system gives out: h2specd wants one per case."""
    for base in range(20_000, 30_000, count):
        probes: list[socket.socket] = []
        try:
            for port in range(base, base + count):
                probes.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return base
    raise AssertionError("no free ports")


async def output_of(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL)
    out, _ = await asyncio.wait_for(process.communicate(), 500)
    return out


def judge(out: bytes, at_least: int) -> None:
    summary = _SUMMARY.search(out)
    assert summary is not None, out.decode(errors="replace")[-2000:]
    total, passed, skipped, failed = (int(group) for group in summary.groups())
    assert (skipped, failed) == (0, 0), out.decode(errors="replace")[-4000:]
    assert total == passed >= at_least  # 2.2 has one case fewer than 2.6


def test_called_side() -> None:
    h2spec = program("h2spec", named_by="MESH_PROXY_H2SPEC")

    async def run() -> bytes:
        server = await start_server(Http2Settings())
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await output_of(h2spec, "--strict", "-h", "127.0.0.1", "-p", str(port), "-o", "20")

    judge(asyncio.run(run()), 146)


def test_calling_side() -> None:
    h2specd = program("h2specd", named_by="MESH_PROXY_H2SPECD")
    client = f"{sys.executable} {Path(calling.__file__)}"
    judge(asyncio.run(output_of(h2specd, "--strict", "-e", client, "-f", str(free_block(57)), "-o", "10")), 57)
