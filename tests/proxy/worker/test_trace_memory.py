"""Trace id → label in memory that workers share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mesh_proxy.worker.trace_memory import LONGEST_LABEL, PLACES, TABLE_SIZE, TraceMemory, is_table, make_table


@pytest.fixture
def table() -> Iterator[int]:
    """Descriptor of a table."""
    descriptor = make_table()
    yield descriptor
    os.close(descriptor)


def test_what_one_worker_learns_the_other_knows(table: int) -> None:
    one, other = TraceMemory(table), TraceMemory(table)
    assert one.remember(b"tag", b"t1", b"gray", 10.0, 5.0)
    assert other.recall(b"tag", b"t1", 14.9) == b"gray"
    assert other.recall(b"tag", b"t1", 15.0) is None, "its time is over"
    assert other.recall(b"tag", b"t2", 11.0) is None
    assert other.recall(b"gat", b"t1", 11.0) is None, "another label of the same trace"
    other.remember(b"tag", b"t1", b"blue", 12.0, 5.0)
    assert one.recall(b"tag", b"t1", 13.0) == b"blue"


def test_another_process_knows_it_too(table: int) -> None:
    pid = os.fork()
    if pid == 0:
        TraceMemory(table).remember(b"tag", b"t", b"gray", 1.0, 10.0)
        os._exit(0)
    os.waitpid(pid, 0)
    assert TraceMemory(table).recall(b"tag", b"t", 2.0) == b"gray"


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


def test_a_torn_record_is_no_label(table: int) -> None:
    memory = TraceMemory(table)
    memory.remember(b"tag", b"t", b"gray", 1.0, 10.0)
    place = os.pread(table, TABLE_SIZE, 0).index(b"gray")
    os.pwrite(table, b"b", place)
    assert memory.recall(b"tag", b"t", 2.0) is None


def test_a_program_that_was_started_anew_knows_it_too(table: int) -> None:
    """The key depends on nothing of the process."""
    TraceMemory(table).remember(b"tag", b"t", b"gray", 1.0, 10.0)
    code = f"from mesh_proxy.worker.trace_memory import TraceMemory as T; print(T({table}).recall(b'tag', b't', 2.0))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[table], env=environment, check=True, capture_output=True)
    assert done.stdout == b"b'gray'\n"


def test_two_tables_have_two_secrets(table: int) -> None:
    other = make_table()
    try:
        assert TraceMemory(table)._key(b"tag", b"t") != TraceMemory(other)._key(b"tag", b"t")
        assert TraceMemory(table)._key(b"ab", b"c") != TraceMemory(table)._key(b"a", b"bc")
    finally:
        os.close(other)


def test_what_is_no_table(table: int) -> None:
    assert is_table(table)
    os.pwrite(table, b"X", 0)
    assert not is_table(table)
    ours, theirs = os.pipe()
    assert not is_table(ours)
    os.close(ours)
    os.close(theirs)
    assert not is_table(ours)
