import asyncio
import gc
import logging

import pytest

from mesh_proxy.tasks import create_task


def test_a_task_survives_without_a_reference_and_its_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            seen.append("done")
            raise ValueError("broken")

        create_task(work(), name="background work")
        gc.collect()
        await asyncio.sleep(0)
        go.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return seen

    with caplog.at_level(logging.ERROR):
        assert asyncio.run(main()) == ["done"]
    assert "task background work failed" in caplog.text


def test_cancelling_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        task = create_task(asyncio.sleep(60), name="sleeper")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert caplog.text == ""
