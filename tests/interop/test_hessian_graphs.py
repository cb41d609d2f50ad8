"""Random object graphs written by Java's hessian-lite are stepped over and read to exactly the right byte.

HESSIAN_GRAPHS sets how many (2,000 without it), HESSIAN_SEED which.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from peer_programs import program, unavailable

from mesh_codecs.hessian2 import Reader, Tables, dumps, skip

PROJECT = Path(__file__).parent / "java" / "hessian-graphs"
COUNT = os.environ.get("HESSIAN_GRAPHS", "2000")
SEED = os.environ.get("HESSIAN_SEED", "1")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    maven, java = program("mvn"), program("java")
    out = tmp_path_factory.mktemp("hessian-graphs")
    goals = ["compile", "dependency:build-classpath", f"-Dmdep.outputFile={out}/classpath.txt"]
    built = subprocess.run([maven, "-q", "-B", "-f", str(PROJECT), f"-Dout={out}", *goals], capture_output=True, text=True)
    if built.returncode:
        unavailable(f"Maven could not build the generator: {built.stdout[-500:]}")
    opens = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.math")]
    classpath = f"{out}/classes:{(out / 'classpath.txt').read_text().strip()}"
    command = [java, *opens, "-cp", classpath, "HessianGraphs", COUNT, SEED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        assert process.stdout is not None
        process.stdout.close()
        process.kill()
        process.wait()


def graphs(stream: IO[bytes]) -> Iterator[tuple[bytes, list[int]]]:
    """Each graph and the offsets after its values."""
    while head := stream.read(4):
        (values,) = struct.unpack(">i", head)
        *ends, size = struct.unpack(f">{values + 1}i", stream.read(4 * values + 4))
        yield stream.read(size), ends


@pytest.mark.slow
def test_graphs_of_hessian_lite(generator: subprocess.Popen[bytes]) -> None:
    assert generator.stdout is not None
    count = size = same = 0
    for data, ends in graphs(generator.stdout):
        count += 1
        size += len(data)
        tables = Tables()
        reader = Reader(data)
        pos = 0
        values: list[object] = []
        for end in ends:
            pos = skip(data, pos, 1, tables)
            values.append(reader.read())
            assert (pos, reader.pos) == (end, end), data.hex()
        assert pos == len(data)
        assert skip(data, 0, len(ends), Tables()) == pos
        assert tables.refs == reader.refs
        again = dumps(*values)
        same += again == data
        assert repr(Reader(again).read()) == repr(values[0])
    assert generator.wait() == 0
    assert count == int(COUNT)
    print(f"{count} graphs, {size} bytes, {same} written again byte for byte")
