"""Files, pipes and the writer thread (`mesh_proxy.access_log.sinks`, `sink` and `output`)."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh_proxy.access_log import SinkSet, output, sink
from mesh_proxy.access_log.output import Output
from mesh_proxy.stats.registry import StatRegistry

WAIT_S = 20.0
"""for what happens at once on an idle machine"""


class Fifo:
    """A named pipe with its reading end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            ready, _, _ = select.select([self.fd], [], [], WAIT_S)
            assert ready, f"only {len(data)} of {size} bytes came"
            data += os.read(self.fd, size - len(data))
        return data

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Fifo]:
    made = Fifo(tmp_path / "fifo")
    yield made
    made.close()


Make = Callable[..., SinkSet]


@pytest.fixture
def make() -> Iterator[Make]:
    """Sink sets that flush when told to, unless another interval is given."""
    opened: list[SinkSet] = []

    def make(interval_s: float = 3600.0) -> SinkSet:
        opened.append(SinkSet(StatRegistry(), flush_interval_s=interval_s))
        return opened[-1]

    yield make
    for each in opened:
        each.close(WAIT_S)


def test_lines_wait_until_flushed(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    all_sinks = make()
    sink = all_sinks.get(str(path))
    assert all_sinks.get(str(path)) is sink
    sink.write(b"one\n")
    sink.write(b"two\n")
    assert all_sinks.flush(WAIT_S)
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    sink.write(b"three\n")
    assert all_sinks.flush(WAIT_S)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    stats = all_sinks.stats
    assert (stats.write_buffered, stats.write_completed, stats.write_failed, stats.flushed_by_timer) == (3, 2, 0, 0)
    assert repr(sink) == f"<Sink {path} waiting=0>"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_nothing_is_started_before_the_first_line(make: Make, tmp_path: Path) -> None:
    all_sinks = make()
    all_sinks.get(str(tmp_path / "log"))
    all_sinks.reopen()
    assert all_sinks.flush(WAIT_S)
    assert all_sinks._thread is None
    assert not (tmp_path / "log").exists()


def test_the_interval_flushes(make: Make, fifo: Fifo) -> None:
    all_sinks = make(0.01)
    for number in range(3):
        all_sinks.get(fifo.path).write(b"%d\n" % number)
        assert fifo.read(2) == b"%d\n" % number
    assert all_sinks.flush(WAIT_S)
    assert all_sinks.stats.flushed_by_timer == 3


def test_a_full_buffer_flushes_at_once(make: Make, fifo: Fifo) -> None:
    all_sinks = make()
    line = b"x" * 999 + b"\n"
    for _ in range(66):
        all_sinks.get(fifo.path).write(line)
    assert fifo.read(65_000) == line * 65
    assert all_sinks.stats.flushed_by_timer == 0


def test_standard_streams_have_a_short_interval(make: Make) -> None:
    all_sinks = make(10.0)
    assert all_sinks.get("/dev/stdout").interval_s == 1.0
    assert all_sinks.get("/dev/stderr").interval_s == 1.0
    assert all_sinks.get("/tmp/x").interval_s == 10.0
    assert make(0.1).get("/dev/stdout").interval_s == 0.1


def test_a_reader_that_stands_still_costs_lines_and_nothing_else(make: Make, fifo: Fifo, tmp_path: Path) -> None:
    all_sinks = make()
    sink, other = all_sinks.get(fifo.path), all_sinks.get(str(tmp_path / "other"))
    count = 3000
    lines = [b"%06d" % number + b"y" * 992 + b"\n" for number in range(count)]
    for line in lines:
        sink.write(line)
    dropped = all_sinks.access_stats.dropped_buffer_full
    taken = count - dropped
    assert dropped > 1000
    other.write(b"still written\n")
    assert not all_sinks.flush(0.05)  # the pipe is blocked …
    assert (tmp_path / "other").read_bytes() == b"still written\n"  # … and the file is not
    received = fifo.read(taken * 999).splitlines(keepends=True)
    assert received == lines[:taken]
    assert all_sinks.flush(WAIT_S)
    sink.write(lines[0])
    assert all_sinks.flush(WAIT_S)
    assert fifo.read(999) == lines[0]


def test_closing_does_not_wait_for_a_reader_that_stands_still(make: Make, fifo: Fifo) -> None:
    all_sinks = make()
    for _ in range(200):
        all_sinks.get(fifo.path).write(b"z" * 999 + b"\n")
    all_sinks.close(0.05)
    assert all_sinks._thread is None
    assert 0 < all_sinks.access_stats.dropped_write_failed < 200


def test_a_full_disk_costs_lines_and_a_counter(make: Make) -> None:
    all_sinks = make()
    for _ in range(3):
        all_sinks.get("/dev/full").write(b"line\n")
    assert all_sinks.flush(WAIT_S)
    assert all_sinks.stats.write_failed == 1
    assert all_sinks.stats.write_completed == 0
    assert all_sinks.access_stats.dropped_write_failed == 3
    all_sinks.get("/dev/full").write(b"line\n")
    assert all_sinks.flush(WAIT_S)
    assert all_sinks.access_stats.dropped_write_failed == 4


def test_a_file_that_cannot_be_opened_is_tried_again(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "log"
    all_sinks = make()
    sink = all_sinks.get(str(path))
    sink.write(b"lost\n")
    assert all_sinks.flush(WAIT_S)
    assert (all_sinks.stats.write_failed, all_sinks.access_stats.dropped_write_failed) == (1, 1)
    path.parent.mkdir()
    sink.write(b"kept\n")
    assert all_sinks.flush(WAIT_S)
    assert path.read_bytes() == b"kept\n"


def test_reopening_after_a_rotation(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "log"
    all_sinks = make()
    sink = all_sinks.get(str(path))
    sink.write(b"old\n")
    assert all_sinks.flush(WAIT_S)
    path.rename(tmp_path / "log.1")
    sink.write(b"still old\n")
    assert all_sinks.flush(WAIT_S)
    all_sinks.reopen()
    assert all_sinks.flush(WAIT_S)
    sink.write(b"new\n")
    assert all_sinks.flush(WAIT_S)
    assert (tmp_path / "log.1").read_bytes() == b"old\nstill old\n"
    assert path.read_bytes() == b"new\n"


def test_a_file_that_cannot_be_reopened_stays(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "a" / "log"
    path.parent.mkdir()
    all_sinks = make()
    all_sinks.get(str(path)).write(b"1\n")
    assert all_sinks.flush(WAIT_S)
    path.parent.rename(tmp_path / "b")
    all_sinks.reopen()
    all_sinks.get(str(path)).write(b"2\n")
    assert all_sinks.flush(WAIT_S)
    assert all_sinks.stats.reopen_failed == 1
    assert (tmp_path / "b" / "log").read_bytes() == b"1\n2\n"


def test_many_lines_from_the_loop_while_the_writer_works(make: Make, tmp_path: Path) -> None:
    """No line is lost or doubled between the two threads."""
    path = tmp_path / "log"
    all_sinks = make(0.0)
    sink = all_sinks.get(str(path))
    lines = [b"%d\n" % number for number in range(50_000)]
    for line in lines:
        sink.write(line)
    all_sinks.close(WAIT_S)
    assert path.read_bytes() == b"".join(lines)


def test_writing_after_the_end_is_harmless(make: Make, tmp_path: Path) -> None:
    all_sinks = make()
    all_sinks.close()
    all_sinks.get(str(tmp_path / "log")).write(b"x\n")
    assert not (tmp_path / "log").exists()


# Output


def test_a_line_that_a_full_disk_tore_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Output(str(tmp_path / "log"))
    room = [6]
    real_write = os.write

    def write(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(fd, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(output.os, "write", write)
    with pytest.raises(OSError, match="No space"):
        target.write([b"one\n", b"two\n"])
    assert target.give_up() == 2
    assert not target.blocked
    room[0] = 100
    target.write([b"three\n"])
    monkeypatch.undo()
    target.write([b"four\n"])
    target.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntw\nthree\nfour\n"


def test_a_pipe_gets_whole_lines_in_portions() -> None:
    lines = [b"a" * 3000 + b"\n", b"b" * 1000 + b"\n", b"c" * 200 + b"\n", b"d" * 9000 + b"\n", b"e\n"]
    portions = output._portions(lines)
    assert b"".join(portions) == b"".join(lines)
    assert [len(portion) for portion in portions] == [4002, 201, 9001, 2]
    assert output._portions([]) == []


def test_a_pipe_without_a_reader_is_an_error(fifo: Fifo) -> None:
    target = Output(fifo.path)
    reader = os.dup(fifo.fd)
    os.close(fifo.fd)
    target.write([b"x\n"])
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        target.write([b"y\n", b"z\n"])
    assert target.give_up() == 2
    target.close()
    fifo.fd = os.open("/dev/null", os.O_RDONLY)


# Real processes

PRELUDE = """
import os, sys
from mesh_proxy.access_log import SinkSet
from mesh_proxy.stats.registry import StatRegistry
sinks = SinkSet(StatRegistry(), flush_interval_s=3600)
"""


def run(code: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PRELUDE + code, *arguments]
    return subprocess.run(command, check=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
def test_standard_output_as_a_pipe_and_as_a_file(tmp_path: Path) -> None:
    code = """
os.write(2, b"before\\n")
sinks.get("/dev/stdout").write(b"out\\n")
sinks.flush(20)
os.write(2, b"after\\n")
sinks.close(20)
assert os.get_blocking(1)
"""
    piped = run(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (piped.stdout, piped.stderr) == (b"out\n", b"before\nafter\n")
    path = tmp_path / "both"
    with path.open("wb") as file:
        run(code, stdout=file, stderr=file)
    assert path.read_bytes() == b"before\nout\nafter\n"


@pytest.mark.slow
def test_standard_output_as_a_socket() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        run("sinks.get('/dev/stdout').write(b'out\\n'); sinks.close(20)", stdout=theirs.fileno())
        assert ours.recv(100) == b"out\n"


@pytest.mark.slow
def test_a_forked_child_writes_its_own_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = """
sink = sinks.get(sys.argv[1])
sink.write(b"flushed by the parent\\n")
sinks.flush(20)
sink.write(b"waiting in the parent\\n")
child = os.fork()
sink.write(b"child\\n" if child == 0 else b"parent\\n")
if child == 0:
    sinks.close(20)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
sinks.close(20)
"""
    run(code, str(path))
    assert sorted(path.read_bytes().splitlines()) == [b"child", b"flushed by the parent", b"parent", b"waiting in the parent"]


@pytest.mark.slow
def test_several_processes_share_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    code = """
sink = sinks.get(sys.argv[1])
for number in range(2000):
    sink.write(sys.argv[2].encode() * 200 + b"%04d\\n" % number)
    if number % 50 == 0:
        sinks.flush(20)
sinks.close(20)
"""
    threads = [threading.Thread(target=run, args=(code, str(path), letter)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = path.read_bytes().splitlines()
    for letter in b"abc":
        assert [line for line in lines if line[0] == letter] == [
            bytes([letter]) * 200 + b"%04d" % number for number in range(2000)
        ]


def test_constants_are_sane() -> None:
    assert sink.FLUSH_BYTES < sink.BUFFER_BYTES
    assert output.PORTION_BYTES <= select.PIPE_BUF
