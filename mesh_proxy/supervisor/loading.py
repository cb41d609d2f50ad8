"""Reading the configuration in a process of its own, which ends when it has handed it over.

Protobuf, its descriptors and YAML cost about 15 MB, and are needed for a quarter of a second. So a child is forked before the
event loop exists; it reads, checks and translates, and writes the resulting dataclasses to a pipe.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
from collections.abc import Callable
from typing import Final

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import BootstrapConfig

_CHUNK: Final = 1 << 20


class LoadError(Exception):
    """The loading process failed in a way that is nobody's configuration."""


class Loading:
    """A child that loads, and its answer."""

    def __init__(self, load: Callable[[], BootstrapConfig]) -> None:
        """Fork. Call it before any event loop exists."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.close(reading)
                gc.disable()  # it ends before garbage matters; walking 10,000 clusters again and again took half of its time
                with os.fdopen(writing, "wb") as pipe:
                    pipe.write(_outcome(load))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        self._pipe = reading

    async def result(self) -> BootstrapConfig:
        """Wait for it. Raises ConfigError or LoadError."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        ended: asyncio.Future[None] = loop.create_future()

        def readable() -> None:
            chunk = os.read(self._pipe, _CHUNK)
            data.extend(chunk)
            if not chunk:
                loop.remove_reader(self._pipe)
                if not ended.done():
                    ended.set_result(None)

        os.set_blocking(self._pipe, False)
        loop.add_reader(self._pipe, readable)
        try:
            await ended
        finally:
            loop.remove_reader(self._pipe)
            status = self.close()
        if not data:
            raise LoadError(f"the process that reads the configuration ended with {os.waitstatus_to_exitcode(status)}")
        outcome = pickle.loads(data)
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, BootstrapConfig)
        return outcome

    def close(self) -> int:
        """End the child if it still runs; its wait status."""
        if not self._pid:
            return 0
        os.close(self._pipe)
        os.kill(self._pid, signal.SIGKILL)  # it has nothing left to do; a zombie does not mind
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return status


def _outcome(load: Callable[[], BootstrapConfig]) -> bytes:
    outcome: BootstrapConfig | Exception
    try:
        outcome = load()
    except ConfigError as error:
        outcome = error
    except Exception as error:
        outcome = LoadError(f"cannot load the configuration: {type(error).__name__}: {error}")
    return pickle.dumps(outcome, protocol=pickle.HIGHEST_PROTOCOL)
