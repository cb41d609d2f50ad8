"""Sidecars that are always stopped, and whose log holds no traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e_support import Sidecar
from e2e_support.upgrades import Upgrades

Start = Callable[..., Sidecar]
Chain = Callable[..., Upgrades]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(config, concurrency=…, files=…, flags=…, before=…)`: a ready sidecar; `before` is called before it starts."""
    started: list[Sidecar] = []

    def start(config: dict[str, Any], *, before: Callable[[Sidecar], object] | None = None, **options: Any) -> Sidecar:
        sidecar = Sidecar(config, **options)
        started.append(sidecar)
        if before is not None:
            before(sidecar)
        sidecar.start()
        return sidecar

    yield start
    logs = []
    for sidecar in started:
        sidecar.stop(keep=True)
        logs.append(sidecar.log())
        sidecar.remove()
    for log in logs:
        print(log[-4000:])
        assert "Traceback" not in log


@pytest.fixture
def chain() -> Iterator[Chain]:
    """`chain(config, concurrency=…, flags=…)`: a first generation that serves (`start=False`: not even that), to be upgraded."""
    made: list[Upgrades] = []

    def begin(config: dict[str, Any], *, start: bool = True, **options: Any) -> Upgrades:
        made.append(Upgrades(config, **options))
        if start:
            made[-1].start()
        return made[-1]

    yield begin
    logs = []
    for one in made:
        one.stop(keep=True)
        logs.append(one.log())
        one.remove()
    for log in logs:
        print(log[-8000:])
        assert "Traceback" not in log
