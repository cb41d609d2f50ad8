"""Token buckets in virtual time, alone and shared by workers."""

from __future__ import annotations

import random

import pytest

from mesh_filters.token_bucket import LocalCell, TokenBucket
from mesh_proxy.worker.shared import SharedTables
from mesh_proxy.worker.shared_cells import PLACES, TABLE_NAME, SharedCells, table_size


def test_full_at_first_then_one_by_one() -> None:
    bucket = TokenBucket(3, 2.0, LocalCell())
    now = 1000.0
    assert [bucket.take(now) for _ in range(4)] == [True, True, True, False]
    assert bucket.remaining(now) == 0
    assert not bucket.take(now + 0.4)
    assert bucket.take(now + 0.5)
    assert not bucket.take(now + 0.9)
    assert bucket.remaining(now + 100) == 3, "never more than its size"
    assert bucket.take(now + 100, 3)
    assert not bucket.take(now + 100)


@pytest.mark.parametrize("rate", [10, 333, 1000.0, 7.3])
@pytest.mark.parametrize("offered", [2, 3, 20])
def test_the_rate_is_exact_over_ten_seconds(rate: float, offered: float) -> None:
    """Two workers on one cell, requests of both at random moments: what passes is what was there plus what came in."""
    cells = SharedCells(SharedTables({TABLE_NAME: table_size(2)}, worker_count=2))
    size = max(1, int(rate))
    workers = [TokenBucket(size, rate, cells.cell("limit")) for _ in range(2)]
    source = random.Random(5)
    seconds = 10.0
    moments = sorted(source.uniform(5000.0, 5000.0 + seconds) for _ in range(int(rate * offered * seconds) + 10 * size))
    passed = sum(workers[source.randrange(2)].take(now) for now in moments)
    allowed = size + rate * seconds
    assert allowed * 0.98 - 2 <= passed <= allowed + 1e-6


def test_cells_by_name() -> None:
    shared = SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)
    one, other = SharedCells(shared), SharedCells(shared)
    names = [f"n{i}" for i in range(500)]
    for i, name in enumerate(names):
        one.cell(name).set(float(i))
    assert [other.cell(name).get() for name in reversed(names)] == [float(i) for i in reversed(range(500))]


def test_who_loses_a_place_finds_another() -> None:
    shared = SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)
    cells = SharedCells(shared)
    cell = cells.cell("a")
    cell.set(5.0)
    cells._tags[cell._place] = 17  # another worker wrote its own tag at the same moment
    assert cell.get() == 0.0
    cell.set(6.0)
    assert SharedCells(shared).cell("a").get() == 6.0


def test_a_full_table_leaves_numbers_of_ones_own(caplog: pytest.LogCaptureFixture) -> None:
    cells = SharedCells(None)
    for place in range(PLACES):
        cells._tags[place] = 1 << 62
    cell = cells.cell("a")
    assert "is full" in caplog.text
    cell.set(3.0)
    assert cell.get() == 3.0
