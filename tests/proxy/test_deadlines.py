"""Time-outs in bulk."""

from __future__ import annotations

import asyncio
from time import monotonic

from mesh_proxy.deadlines import DeadlineQueue, Deadlines


class Entry:
    def __init__(self, fired: list[str], name: str, done: asyncio.Event | None = None) -> None:
        self.fired = fired
        self.name = name
        self.done = done

    def on_deadline(self, queue: DeadlineQueue, now: float) -> None:
        self.fired.append(self.name)
        if self.done is not None:
            self.done.set()


def test_expiry_in_order_across_queues_and_one_flush_each_time() -> None:
    async def run() -> None:
        flushed: list[int] = []
        deadlines = Deadlines(asyncio.get_running_loop(), lambda: flushed.append(len(fired)))
        fired: list[str] = []
        done = asyncio.Event()
        now = monotonic()
        deadlines.queue("route", 1.5).add(Entry(fired, "late", done), now)
        deadlines.queue("idle", 0.02).add(Entry(fired, "early"), now)
        async with asyncio.timeout(30):
            await done.wait()
        await asyncio.sleep(0)
        assert fired == ["early", "late"]
        assert flushed == [1, 2]
        deadlines.close()

    asyncio.run(run())


def test_discarded_entries_do_not_fire_and_the_same_queue_serves_a_duration() -> None:
    async def run() -> None:
        deadlines = Deadlines(asyncio.get_running_loop(), lambda: None)
        queue = deadlines.queue("route", 0.02)
        assert deadlines.queue("route", 0.02) is queue
        assert deadlines.queue("idle", 0.02) is not queue
        fired: list[str] = []
        done = asyncio.Event()
        gone = Entry(fired, "gone")
        now = monotonic()
        queue.add(gone, now)
        queue.add(Entry(fired, "stays", done), now)
        queue.discard(gone)
        queue.discard(gone)
        async with asyncio.timeout(30):
            await done.wait()
        assert fired == ["stays"]
        assert "entries=0" in repr(queue)
        deadlines.close()

    asyncio.run(run())


def test_adding_again_restarts_the_wait() -> None:
    async def run() -> None:
        deadlines = Deadlines(asyncio.get_running_loop(), lambda: None)
        queue = deadlines.queue("route", 0.05)
        fired: list[str] = []
        done = asyncio.Event()
        first, second = Entry(fired, "first", done), Entry(fired, "second")
        now = monotonic()
        queue.add(first, now)
        queue.add(second, now)
        queue.add(first, now + 0.01)
        async with asyncio.timeout(30):
            await done.wait()
        assert fired == ["second", "first"]
        deadlines.close()

    asyncio.run(run())
