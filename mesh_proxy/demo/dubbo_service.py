"""A small Dubbo provider, one process per version: `python -m mesh_proxy.demo.dubbo_service v1`.

It serves on a free port of loopback, says `listening PORT` on its standard output, answers every call with its own name, and
ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import cast

import uvloop

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, answer_heartbeat, build_frame
from mesh_codecs.dubbo.frame import HESSIAN2, OK
from mesh_codecs.hessian2.write import string_bytes
from mesh_proxy.demo.service import until_input_ends

_VALUE = b"\x91"
"""result type RESPONSE_VALUE as a Hessian int"""


class Provider(asyncio.Protocol):
    """One connection from the sidecar; the calls of all consumers come over it."""

    def __init__(self, name: str, memo: HeadMemo) -> None:
        self._result = _VALUE + string_bytes(name.encode())
        self._codec = DubboCodec(memo)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        out = []
        for message in self._codec.receive_data(data):
            if not isinstance(message, DubboMessage):
                self._transport.close()
            elif message.two_way:
                if message.is_event:
                    out.append(answer_heartbeat(message.frame))
                else:
                    out.append(build_frame(HESSIAN2, OK, message.request_id, self._result))
        if out:
            self._transport.write(b"".join(out))


async def serve(name: str) -> None:
    """Until standard input ends."""
    memo = HeadMemo()
    await until_input_ends(lambda: Provider(name, memo))


def main() -> int:
    """The command line of one provider."""
    parser = argparse.ArgumentParser(description="A small Dubbo provider for the demo; it ends with its standard input.")
    parser.add_argument("name", help="what it calls itself")
    uvloop.run(serve(parser.parse_args().name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
