"""One inotify instance for everybody: each hears of what he asked for, also of directories that come back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mesh_proxy import notifier as module
from mesh_proxy.notifier import CHANGED, MOVED, Notifier

Told = list[tuple[str, str]]


def run(test: Callable[[Notifier], Awaitable[None]]) -> None:
    async def within() -> None:
        one = Notifier(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(60):
                await test(one)
        finally:
            one.close()

    asyncio.run(within())


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def watching(one: Notifier, mask: int, *directories: Path) -> Told:
    told: Told = []
    one.interest(mask, lambda directory, name: told.append((directory, name))).watch(map(str, directories))
    return told


def move(path: Path, text: str = "") -> None:
    fresh = path.parent.parent / f"{path.name}.new"
    fresh.write_text(text)
    fresh.rename(path)


def test_each_hears_what_he_asked_for(tmp_path: Path) -> None:
    async def test(one: Notifier) -> None:
        a, b = tmp_path / "a", tmp_path / "b"
        a.mkdir()
        b.mkdir()
        moved, changed, other = watching(one, MOVED, a), watching(one, CHANGED, a), watching(one, CHANGED, b)
        (a / "written").write_text("x")
        move(a / "moved")
        await until(lambda: (str(a), "moved") in moved and (str(a), "moved") in changed)
        assert moved == [(str(a), "moved")]
        assert {name for _, name in changed} == {"written", "moved"}
        assert other == []

    run(test)


def test_who_does_not_care_any_more_hears_nothing(tmp_path: Path) -> None:
    async def test(one: Notifier) -> None:
        told: Told = []
        interest = one.interest(CHANGED, lambda directory, name: told.append((directory, name)))
        a, b = tmp_path / "a", tmp_path / "b"
        a.mkdir()
        b.mkdir()
        interest.watch([str(a), str(b)])
        kept = watching(one, MOVED, a)
        interest.watch([str(b)])
        move(a / "x")
        (b / "y").write_text("")
        await until(lambda: bool(kept) and bool(told))
        assert {directory for directory, _ in told} == {str(b)}
        interest.close()
        move(a / "z")
        (b / "z").write_text("")
        await until(lambda: len(kept) == 2)
        assert {name for _, name in told} == {"y"}

    run(test)


@pytest.mark.parametrize("how", ["deleted", "moved away", "not there yet"])
def test_a_directory_that_is_made_anew_counts_as_changed(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)

    async def test(one: Notifier) -> None:
        a = tmp_path / "a"
        if how != "not there yet":
            a.mkdir()
        told = watching(one, MOVED, a)
        if how == "deleted":
            shutil.rmtree(a)
        elif how == "moved away":
            a.rename(tmp_path / "elsewhere")
        await until(lambda: bool(one._missing))
        assert told == []
        a.mkdir()
        await until(lambda: told == [(str(a), "")])
        move(a / "x")
        await until(lambda: told[1:] == [(str(a), "x")])
        if how == "moved away":
            move(tmp_path / "elsewhere" / "y")
            move(a / "z")
            await until(lambda: len(told) == 3)
            assert told[2] == (str(a), "z")

    run(test)


def test_two_paths_of_one_directory(tmp_path: Path) -> None:
    """The kernel has one watch for both."""

    async def test(one: Notifier) -> None:
        a, link = tmp_path / "a", tmp_path / "link"
        a.mkdir()
        link.symlink_to(a)
        first, second = watching(one, CHANGED, a), watching(one, MOVED, link)
        (a / "x").write_text("")
        move(a / "y")
        await until(lambda: (str(a), "y") in first and bool(second))
        assert second == [(str(link), "y")]
        assert (str(a), "x") in first

    run(test)


def test_after_an_overflow_everything_counts_as_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(one: Notifier) -> None:
        told = watching(one, MOVED, tmp_path)
        overflow = module._EVENT.pack(-1, module.IN_Q_OVERFLOW, 0, 0)
        monkeypatch.setattr(module.os, "read", lambda fd, size: overflow)
        one._readable()
        monkeypatch.undo()
        assert told == [(str(tmp_path), "")]

    run(test)
