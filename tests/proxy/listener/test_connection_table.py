"""Counts that workers share."""

from __future__ import annotations

from mesh_proxy.listener.connection_table import TABLE_NAME, ConnectionTable, table_size
from mesh_proxy.worker.shared import SharedTables


def tables(workers: int) -> tuple[SharedTables, list[ConnectionTable]]:
    shared = SharedTables({TABLE_NAME: table_size(workers)}, worker_count=workers)
    return shared, [ConnectionTable(shared, index) for index in range(workers)]


def test_workers_see_each_other() -> None:
    _, (one, two) = tables(2)
    one.count("listener a").add(1)
    one.count("listener a").add(1)
    two.count("listener a").add(1)
    two.count("listener b").add(1)
    assert one.count("listener a").total() == two.count("listener a").total() == 3
    assert one.count("listener b").total() == 1
    one.count("listener a").add(-1)
    assert two.count("listener a").total() == 2
    assert two.count("listener a").here == 1


def test_a_replacement_clears_what_the_dead_worker_left() -> None:
    shared, (one, two) = tables(2)
    one.count("a").add(1)
    two.count("a").add(1)
    again = ConnectionTable(shared, 0)
    assert two.count("a").total() == again.count("a").total() == 1


def test_one_worker_needs_no_table() -> None:
    assert table_size(1) == 0
    count = ConnectionTable(None, 0).count("a")
    count.add(1)
    assert count.total() == 1


def test_a_place_that_is_taken_counts_for_the_worker_alone() -> None:
    _, (one, two) = tables(2)
    names = [f"n{i}" for i in range(3000)]  # more than there are places
    for table in (one, two):
        for name in names:
            table.count(name).add(1)
    totals = {one.count(name).total() for name in names}
    assert totals == {1, 2}
