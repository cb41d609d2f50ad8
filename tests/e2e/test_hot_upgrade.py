"""A new process takes over from a running one: listening sockets, roll-back, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from e2e_support import Load, one_listener, until
from e2e_support.upgrades import Upgrades

pytestmark = pytest.mark.slow

Chain = Callable[..., Upgrades]


@pytest.fixture
def chain() -> Iterator[Chain]:
    """`chain(config, concurrency=…, flags=…)`: a serving first generation; all are stopped, and no log holds a traceback."""
    made: list[Upgrades] = []

    def begin(config: dict[str, Any], **options: Any) -> Upgrades:
        made.append(Upgrades(config, **options))
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


def test_fresh_connections_over_three_upgrades(chain: Chain) -> None:
    """A connection for each request, workers 1 → 2 → 1: none is refused or reset."""
    proxy = chain(one_listener("back"))
    with Load(proxy.port("in"), kept=0, fresh=4, pause=0.002) as load:
        load.wait_for(50, 60)
        for workers in (2, 1, 1):
            proxy.upgrade(concurrency=workers)
            load.wait_for(50, 60)
    print(load.summary())
    assert not load.failed()
    assert until("statistics", proxy.stats)["server.hot_restart_generation"] == 4
    assert proxy.stats()["server.hot_restart_epoch"] == 3


def test_kept_connections_move(chain: Chain) -> None:
    """Keep-alive connections under load: no request fails and no connection is made anew."""
    proxy = chain(one_listener("back"))
    kept = 12
    with Load(proxy.port("in"), kept=kept, fresh=2, pause=0.002) as load:
        load.wait_for(100, 60)
        for workers in (2, 1, 2):
            proxy.upgrade(concurrency=workers)
            load.wait_for(100, 60)
    print(load.summary())
    assert not load.failed()
    assert not any(one.close for one in load.outcomes)
    again = [one for one in load.outcomes if not one.first]
    assert len({one.local_port for one in again}) == kept
