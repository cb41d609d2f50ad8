"""Trace id → traffic label, for all workers of a sidecar: what the inbound side learns, the outbound side of any worker knows.

A fixed table in shared memory: buckets of four places, each place one record of 64 bytes with its own checksum. The key is a
64-bit hash of label name and trace id. A place is taken by its own key, else by what has expired, else by what would
expire next in its bucket: the table is bounded, and the oldest of a bucket goes first.

There is no lock. A record is written by one copy of 64 bytes; what a race may cost:

* Two workers that write into the same place at the same moment: one of the two records is lost, or both are and the checksum
  says so. That request then has no restored label, as if its time to live were over.
* A reader that meets a record while it is written sees a wrong checksum and finds nothing.

Time is CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

from mesh_proxy.worker.shared import SharedTables

TABLE_NAME: Final = "trace_labels"
PLACES: Final = 65_536
"""traces at a time; pages that nobody writes take no memory"""
_WAYS: Final = 4
_RECORD: Final = struct.Struct("=QdIB43s")
"""key, expiry in monotonic seconds, checksum, length of the label, label"""
RECORD_SIZE: Final = 64
LONGEST_LABEL: Final = 43
_BUCKETS: Final = PLACES // _WAYS
_BUCKET_SIZE: Final = _WAYS * RECORD_SIZE
_HEAD: Final = struct.Struct("=Qd")
assert _RECORD.size == RECORD_SIZE


def table_size(worker_count: int) -> int:
    """Bytes; also for one worker, so that its replacement knows what it knew."""
    return PLACES * RECORD_SIZE


class TraceMemory:
    """The table as one worker sees it."""

    __slots__ = ("_memory",)

    def __init__(self, shared: SharedTables | None) -> None:
        self._memory = shared.table(TABLE_NAME) if shared is not None else memoryview(bytearray(table_size(1)))

    def remember(self, name: bytes, trace_id: bytes, label: bytes, now: float, ttl_s: float) -> bool:
        """Keep a label for so many seconds. False when it is too long."""
        if len(label) > LONGEST_LABEL:
            return False
        key = _key(name, trace_id)
        memory = self._memory
        start = key % _BUCKETS * _BUCKET_SIZE
        place, oldest = start, float("inf")
        for offset in range(start, start + _BUCKET_SIZE, RECORD_SIZE):
            there, expiry = _HEAD.unpack_from(memory, offset)
            if there == key:
                place = offset
                break
            if expiry <= now:
                expiry = 0.0  # as good as empty
            if expiry < oldest:
                place, oldest = offset, expiry
        expiry = now + ttl_s
        memory[place : place + RECORD_SIZE] = _RECORD.pack(key, expiry, _checksum(key, expiry, label), len(label), label)
        return True

    def recall(self, name: bytes, trace_id: bytes, now: float) -> bytes | None:
        """The label of a trace; None when it is not known, or no longer."""
        key = _key(name, trace_id)
        memory = self._memory
        start = key % _BUCKETS * _BUCKET_SIZE
        for offset in range(start, start + _BUCKET_SIZE, RECORD_SIZE):
            if _HEAD.unpack_from(memory, offset)[0] == key:
                _, expiry, checksum, size, text = _RECORD.unpack(memory[offset : offset + RECORD_SIZE])
                label: bytes = text[:size]
                if expiry > now and size <= LONGEST_LABEL and checksum == _checksum(key, expiry, label):
                    return label
        return None


def _key(name: bytes, trace_id: bytes) -> int:
    # Workers are forked by one spawner and so hash alike; nobody outside knows the seed.
    return hash((name, trace_id)) & 0xFFFF_FFFF_FFFF_FFFF or 1


def _checksum(key: int, expiry: float, label: bytes) -> int:
    return crc32(label, crc32(_HEAD.pack(key, expiry)))
