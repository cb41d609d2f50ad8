"""Questions to several workers at once, and their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mesh_proxy.supervisor.worker_handle import WorkerHandle


class Questions:
    """Those that are open."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: dict[int, asyncio.Future[dict[int, Any]]] = {}
        """open questions by request id"""
        self._collected: dict[int, tuple[set[int], dict[int, Any]]] = {}
        """request id -> (tokens that have not answered, answers by worker index)"""
        self._next_request = 1

    async def ask(self, workers: list[WorkerHandle], question: Callable[[int], object], timeout_s: float) -> dict[int, Any]:
        """Ask these workers; answers by worker index. One that does not answer in time is left out."""
        request_id = self._next_request
        self._next_request += 1
        if not workers:
            return {}
        done: asyncio.Future[dict[int, Any]] = self._loop.create_future()
        answers: dict[int, Any] = {}
        self._answers[request_id] = done
        self._collected[request_id] = ({handle.token for handle in workers}, answers)
        for handle in workers:
            handle.channel.send(question(request_id))
        try:
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            return answers
        finally:
            self._answers.pop(request_id, None)
            self._collected.pop(request_id, None)

    def answered(self, request_id: int, handle: WorkerHandle, answer: Any) -> None:
        """A worker's answer; None when it has none."""
        waiting = self._collected.get(request_id)
        if waiting is None:
            return
        tokens, answers = waiting
        tokens.discard(handle.token)
        if answer is not None:
            answers[handle.index] = answer
        if not tokens and not self._answers[request_id].done():
            self._answers[request_id].set_result(answers)

    def worker_lost(self, handle: WorkerHandle) -> None:
        """It is dead: nobody waits for its answers."""
        for request_id in list(self._collected):
            self.answered(request_id, handle, None)
