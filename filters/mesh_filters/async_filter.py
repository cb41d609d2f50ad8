"""A base for filters that wait for something: a remote service, a lock, a clock."""

from __future__ import annotations

from asyncio import Task
from collections.abc import Coroutine
from typing import Any

from mesh_codecs.events import RequestHeaders
from mesh_filters.filter import Filter, FilterStatus, Stream


async def guarded(stream: Stream, work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work of a filter that holds the request. An error in it ends the request with 500: nothing hangs."""
    try:
        await work
    except Exception:
        stream.send_local_reply(500, details="filter_failed")
        raise


class AsyncFilter(Filter):
    """Override `before_request`: the request waits while it runs, and goes on when it returns, unless it sent a local reply.

    An error in it ends the request with 500. If the stream ends first, the task is cancelled.
    """

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: Task[None] | None = None

    async def before_request(self, stream: Stream, event: RequestHeaders) -> None:
        """Look at the request, change it, answer it; take your time."""
        raise NotImplementedError

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        """Hold the request and start."""
        self._task = stream.start_task(self._run(stream, event), f"filter {type(self).__name__}")
        return FilterStatus.STOP

    async def _run(self, stream: Stream, event: RequestHeaders) -> None:
        try:
            await guarded(stream, self.before_request(stream, event))
        finally:
            self._task = None
        stream.continue_request(self)

    def on_complete(self, stream: Stream) -> None:
        """Do not go on for nobody."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
