"""The supervisor's end of the process that reads files; starts it when it is needed, and lets it go when it is not."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mesh_proxy.xds.reader_process import LENGTH
from mesh_proxy.xds.resources import Fault, ReadFiles, Response

LINGER_S: Final = 30.0
"""how long the process stays without work: updates come in storms, and between them its memory is better used"""
READ_TIMEOUT_S: Final = 60.0
"""for all files of one request; ten thousand clusters take 5 s"""
ATTEMPTS: Final = 2
"""a reader that died of something is started once more; if the file kills it again, the file is refused"""

_log = logging.getLogger("config")

Spawn = Callable[[int], None]
"""has the spawner fork a reader on the socket with this descriptor"""


class ReaderClient:
    """One reader process at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawn: Spawn) -> None:
        self._loop = loop
        self._spawn = spawn
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._socket: socket.socket | None = None
        self._linger: asyncio.TimerHandle | None = None

    async def read(
        self, files: Sequence[tuple[str, str]], runtime: Mapping[str, Any], *, reject_unknown_fields: bool
    ) -> list[Response | Fault]:
        """Read files, each given as (kind, path); the answers in the same order."""
        if self._linger is not None:
            self._linger.cancel()
        request = ReadFiles(files=tuple(files), runtime=runtime, reject_unknown_fields=reject_unknown_fields)
        data = pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL)
        why = ""
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    answers = await self._exchange(data)
            except (OSError, EOFError) as error:  # TimeoutError is an OSError
                self.close()
                why = f"the process that reads files ended or hangs ({type(error).__name__})"
                _log.error("%s", why)
            else:
                self._linger = self._loop.call_later(LINGER_S, self.close)
                return answers
        return [Fault(unreadable=True, problems=((path, why),)) for _, path in files]

    async def _exchange(self, data: bytes) -> list[Response | Fault]:
        if self._streams is None:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            try:
                self._spawn(theirs.fileno())
            finally:
                theirs.close()
            self._socket = ours
            self._streams = await asyncio.open_connection(sock=ours)
        reader, writer = self._streams
        writer.write(LENGTH.pack(len(data)) + data)
        await writer.drain()
        length = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
        answers: list[Response | Fault] = pickle.loads(await reader.readexactly(length))
        return answers

    @property
    def running(self) -> bool:
        """There is a reader process."""
        return self._streams is not None

    def close(self) -> None:
        """Let the reader end."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # now: closing a stream takes another turn of the loop
            except OSError:
                pass
            self._socket = None
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
