"""Trace id → label in memory that workers share."""

from __future__ import annotations

import os

from mesh_proxy.worker.shared import SharedTables
from mesh_proxy.worker.trace_memory import LONGEST_LABEL, PLACES, TABLE_NAME, TraceMemory, table_size


def shared() -> SharedTables:
    return SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)


def test_what_one_worker_learns_the_other_knows() -> None:
    tables = shared()
    one, other = TraceMemory(tables), TraceMemory(tables)
    assert one.remember(b"tag", b"t1", b"gray", 10.0, 5.0)
    assert other.recall(b"tag", b"t1", 14.9) == b"gray"
    assert other.recall(b"tag", b"t1", 15.0) is None, "its time is over"
    assert other.recall(b"tag", b"t2", 11.0) is None
    assert other.recall(b"gat", b"t1", 11.0) is None, "another label of the same trace"
    other.remember(b"tag", b"t1", b"blue", 12.0, 5.0)
    assert one.recall(b"tag", b"t1", 13.0) == b"blue"


def test_another_process_knows_it_too() -> None:
    tables = shared()
    pid = os.fork()
    if pid == 0:
        TraceMemory(tables).remember(b"tag", b"t", b"gray", 1.0, 10.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert TraceMemory(tables).recall(b"tag", b"t", 2.0) == b"gray"


def test_it_is_bounded_and_forgets_the_oldest_first() -> None:
    memory = TraceMemory(None)
    count = PLACES + PLACES // 2
    for number in range(count):
        memory.remember(b"tag", b"%d" % number, b"x", number / 1000, 1e6)
    known = [number for number in range(count) if memory.recall(b"tag", b"%d" % number, count / 1000) is not None]
    assert len(known) <= PLACES
    newest = [number for number in known if number >= count - PLACES // 2]
    assert len(newest) > 0.95 * (PLACES // 2), "the newest are hardly ever lost"


def test_labels_that_are_too_long_are_not_kept() -> None:
    memory = TraceMemory(None)
    assert memory.remember(b"tag", b"t", b"x" * LONGEST_LABEL, 0.0, 10.0)
    assert memory.recall(b"tag", b"t", 1.0) == b"x" * LONGEST_LABEL
    assert not memory.remember(b"tag", b"t", b"x" * (LONGEST_LABEL + 1), 0.0, 10.0)


def test_a_torn_record_is_no_label() -> None:
    tables = shared()
    memory = TraceMemory(tables)
    memory.remember(b"tag", b"t", b"gray", 1.0, 10.0)
    table = tables.table(TABLE_NAME)
    place = bytes(table).index(b"gray")
    table[place] = ord("b")
    assert memory.recall(b"tag", b"t", 2.0) is None
