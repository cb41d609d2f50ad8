"""Trace id → traffic label, for all workers of a sidecar: what the inbound side learns, the outbound side of any worker knows.

A fixed table in shared memory: a head, and buckets of four places, each place one record of 64 bytes with its own checksum. The
key is a 64-bit hash of label name and trace id, with a secret of the table. A place is taken by its own key, else by what has
expired, else by what would expire next in its bucket: the table is bounded, and the oldest of a bucket goes first.

The memory has a descriptor. The supervisor makes it, passes it to every worker and, at a hot upgrade, to the process that takes
over: a request that came in before an upgrade may go on after it.

There is no lock. A record is written by one copy of 64 bytes; what a race may cost:

* Two workers that write into the same place at the same moment: one of the two records is lost, or both are and the checksum
  says so. That request then has no restored label, as if its time to live were over.
* A reader that meets a record while it is written sees a wrong checksum and finds nothing.

Time is CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b
from typing import Any, Final
from zlib import crc32

PLACES: Final = 65_536
"""traces at a time; pages that nobody writes take no memory"""
_WAYS: Final = 4
_RECORD: Final = struct.Struct("=QdIB43s")
"""key, expiry in monotonic seconds, checksum, length of the label, label"""
RECORD_SIZE: Final = 64
LONGEST_LABEL: Final = 43
_KEYS: Final = struct.Struct("=Q56xQ56xQ56xQ56x")
"""the keys of a bucket"""
_USED_AT: Final = 48
"""in the head: a byte that is not zero when anything was ever remembered"""
_BUCKETS: Final = PLACES // _WAYS
_BUCKET_SIZE: Final = _WAYS * RECORD_SIZE
_HEAD: Final = struct.Struct("=Qd")
_MAGIC: Final = b"mesh-traces 2\0\0\0"
_SECRET: Final = 32
_START: Final = 64
"""where the places begin: after magic and secret"""
TABLE_SIZE: Final = _START + PLACES * RECORD_SIZE
MOST_NAMES: Final = 64
"""labels whose half-made hashes are kept"""
assert _RECORD.size == RECORD_SIZE
assert _KEYS.size == _BUCKET_SIZE


def make_table() -> int:
    """An empty table; its descriptor."""
    descriptor = os.memfd_create("mesh-proxy-traces", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, TABLE_SIZE)
    os.pwrite(descriptor, _MAGIC + os.urandom(_SECRET), 0)
    return descriptor


def is_table(descriptor: int) -> bool:
    """Whether another process's descriptor is a table that we understand."""
    try:
        return os.fstat(descriptor).st_size == TABLE_SIZE and os.pread(descriptor, len(_MAGIC), 0) == _MAGIC
    except OSError:
        return False


class TraceMemory:
    """The table as one worker sees it. Without a descriptor it is the worker's own."""

    __slots__ = ("_memory", "_names", "_secret")

    def __init__(self, descriptor: int | None = None) -> None:
        self._memory: Any
        if descriptor is None:
            self._memory = memoryview(mmap.mmap(-1, TABLE_SIZE))  # unlike a bytearray: pages that nobody writes take no memory
            self._secret = os.urandom(_SECRET)
        else:
            self._memory = memoryview(mmap.mmap(descriptor, TABLE_SIZE))
            self._secret = bytes(self._memory[len(_MAGIC) : len(_MAGIC) + _SECRET])
        self._names: dict[bytes, Any] = {}

    def _key(self, name: bytes, trace_id: bytes) -> int:
        begun = self._names.get(name)
        if begun is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            begun = self._names[name] = blake2b(b"%d,%b" % (len(name), name), digest_size=8, key=self._secret)
        hashed = begun.copy()
        hashed.update(trace_id)
        return int.from_bytes(hashed.digest(), "little") or 1

    def remember(self, name: bytes, trace_id: bytes, label: bytes, now: float, ttl_s: float) -> bool:
        """Keep a label for so many seconds. False when it is too long."""
        if len(label) > LONGEST_LABEL:
            return False
        key = self._key(name, trace_id)
        memory = self._memory
        start = _START + key % _BUCKETS * _BUCKET_SIZE
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
        memory[_USED_AT] = 1
        memory[place : place + RECORD_SIZE] = _RECORD.pack(key, expiry, _checksum(key, expiry, label), len(label), label)
        return True

    def recall(self, name: bytes, trace_id: bytes, now: float) -> bytes | None:
        """The label of a trace; None when it is not known, or no longer."""
        memory = self._memory
        if not memory[_USED_AT]:
            return None  # nobody remembers anything
        key = self._key(name, trace_id)
        start = _START + key % _BUCKETS * _BUCKET_SIZE
        if key not in _KEYS.unpack_from(memory, start):
            return None
        for offset in range(start, start + _BUCKET_SIZE, RECORD_SIZE):
            if _HEAD.unpack_from(memory, offset)[0] == key:
                _, expiry, checksum, size, text = _RECORD.unpack(memory[offset : offset + RECORD_SIZE])
                label: bytes = text[:size]
                if expiry > now and size <= LONGEST_LABEL and checksum == _checksum(key, expiry, label):
                    return label
        return None


def _checksum(key: int, expiry: float, label: bytes) -> int:
    return crc32(label, crc32(_HEAD.pack(key, expiry)))
