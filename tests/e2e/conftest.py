"""Sidecars that are always stopped, and whose log holds no traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e_support import Sidecar
from e2e_support.upgrades import Chain, chains

Start = Callable[..., Sidecar]


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
    """See `chains`."""
    with chains() as begin:
        yield begin
