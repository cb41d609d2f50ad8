"""Workers that change shared numbers in turns: two processes never take the same token."""

from __future__ import annotations

import os
import struct
import time

from mesh_filters.token_bucket import TokenBucket
from mesh_proxy.supervisor.spawner import close_other_fds
from mesh_proxy.worker.shared import SharedTables
from mesh_proxy.worker.shared_cells import TABLE_NAME, SharedCells, table_size

RATE = 2000.0
SECONDS = 1.0


def _take_all(bucket: TokenBucket, end: float) -> int:
    taken = 0
    while (now := time.monotonic()) < end:
        taken += bucket.take(now)
    while bucket.owed:  # on credit, as the other process was stopped in its turn
        taken += bucket.take(end)
    return taken


def test_two_processes_take_no_token_twice() -> None:
    """However they are scheduled, each token that one of them got is gone for the other."""
    cell = SharedCells(SharedTables({TABLE_NAME: table_size(2)}, worker_count=2)).cell("bucket")
    began = time.monotonic()
    cell.set(began)  # empty
    bucket = TokenBucket(int(RATE), RATE, cell)
    end = began + SECONDS
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            close_other_fds({writing})
            os.write(writing, struct.pack("i", _take_all(bucket, end)))
        finally:
            os._exit(0)
    os.close(writing)
    mine = _take_all(bucket, end)
    with os.fdopen(reading, "rb") as pipe:
        (others,) = struct.unpack("i", pipe.read(4))
    assert os.waitpid(pid, 0)[1] == 0
    assert 0 < mine + others == round((cell.get() - began) * RATE)
