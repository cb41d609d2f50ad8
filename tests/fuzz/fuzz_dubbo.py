"""Fuzz targets for the Dubbo codecs: frame, skip, read, fastjson2, java. `fuzz_harness.py` says how to run them.

What must hold for every input: no exception but the documented one, the same result for every cutting and every time, the two
walks agree on where a value ends, an edit means what it says, and memory stays in proportion to the input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "codecs"), str(ROOT / "tests"), str(ROOT / "tests" / "fuzz")]

from dubbo_vectors import CALL, GENERIC_BODY, IDS, recorded_bodies  # noqa: E402
from fuzz_harness import Program, bound_memory, cuts  # noqa: E402
from hessian_vectors import REJECTED, VECTORS  # noqa: E402

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo, build_frame  # noqa: E402
from mesh_codecs.errors import LocalProtocolError, RemoteProtocolError  # noqa: E402
from mesh_codecs.events import ConnectionFailed  # noqa: E402
from mesh_codecs.fastjson2 import jsonb  # noqa: E402
from mesh_codecs.hessian2 import Reader, Tables, skip  # noqa: E402
from mesh_codecs.java_serialization import ObjectReader  # noqa: E402

MAX_BODY = 4096


def events(pieces: list[bytes]) -> list[object]:
    """What a codec makes of the pieces, in a form that can be compared."""
    codec = DubboCodec(HeadMemo(), MAX_BODY)
    found: list[object] = []
    for event in [e for piece in pieces for e in codec.receive_data(piece)] + codec.receive_eof():
        if isinstance(event, DubboMessage):
            found.append((event.frame, event.flags, event.status, event.request_id))
        elif isinstance(event, ConnectionFailed):
            found.append(event.error.code)
        else:
            found.append(repr(event))
    return found


def look(message: DubboMessage) -> list[str]:
    """Everything that a message can be asked."""
    seen: list[str] = []
    for view in ("head", "real_method", "attachments", "group", "threw", "event_kind"):
        try:
            seen.append(repr(getattr(message, view)))
        except RemoteProtocolError as error:
            seen.append(error.code)
    try:
        seen.append(repr(message.arguments()))
    except (RemoteProtocolError, LocalProtocolError) as error:
        seen.append(error.code)
    try:
        message.edit_attachments({b"a": b"b", b"group": None, b"path": b"p" * 40})
    except (RemoteProtocolError, LocalProtocolError) as error:
        seen.append(error.code)
    else:
        assert (message.attachment(b"a"), message.attachment(b"group"), message.attachment(b"path")) == (b"b", None, b"p" * 40)
    return seen


def fuzz_frame(data: bytes) -> None:
    whole, stepped, single = map(events, cuts(data))
    assert whole == stepped == single
    bound_memory(lambda data: events([data]), data)
    for flags, status in ((0xC2, 0), (0x02, 20)):
        frame = build_frame(flags, status, 1, data)
        first, second = (look(DubboMessage(frame, flags, status, 1, HeadMemo())) for _ in range(2))
        assert first == second


def documented(run: Callable[[bytes], object]) -> Callable[[bytes], None]:
    """The exception that says what is wrong with the input is none."""

    def checked(data: bytes) -> None:
        try:
            run(data)
        except RemoteProtocolError:
            pass

    return checked


def fuzz_skip(data: bytes) -> None:
    bound_memory(documented(lambda data: skip(data, 0, 1, Tables())), data)
    tables = Tables()
    try:
        end = skip(data, 0, 1, tables)
    except RemoteProtocolError:
        return
    assert 0 < end <= len(data)
    assert skip(data[:end], 0, 1, Tables()) == end
    if end > 1:
        try:
            skip(data[: end - 1], 0, 1, Tables())
        except RemoteProtocolError:
            pass
        else:
            raise AssertionError("a value cut short was taken for whole")


def fuzz_read(data: bytes) -> None:
    bound_memory(documented(lambda data: Reader(data).read()), data)
    tables, reader = Tables(), Reader(data)
    try:
        end: int | None = skip(data, 0, 1, tables)
    except RemoteProtocolError:
        end = None
    try:
        reader.read()
        found: int | None = reader.pos
    except RemoteProtocolError:
        found = None
    assert found == end
    if end is not None:
        assert (tables.refs, tables.classes) == (reader.refs, [len(c.fields) for c in reader.classes])


def _bodies(data: bytes, serializations: tuple[str, ...]) -> None:
    for serialization in serializations:
        for flags, status in ((0xC0 | IDS[serialization], 0), (IDS[serialization], 20)):
            frame = build_frame(flags, status, 1, data)
            bound_memory(lambda frame, flags=flags, status=status: look(DubboMessage(frame, flags, status, 1, HeadMemo())), frame)
            first, second = (look(DubboMessage(frame, flags, status, 1, HeadMemo())) for _ in range(2))
            assert first == second


def fuzz_fastjson2(data: bytes) -> None:
    _bodies(data, ("fastjson2",))
    bound_memory(documented(jsonb.read), data)
    try:
        end: int | None = jsonb.skip(data, 0)
    except RemoteProtocolError:
        end = None
    try:
        found = jsonb.read(data)[1]
    except RemoteProtocolError:
        return
    assert found == end


def fuzz_java(data: bytes) -> None:
    _bodies(data, ("java", "compactedjava", "nativejava"))
    bound_memory(documented(lambda data: ObjectReader(data, 0, False).value()), data)
    for compact in (False, True):
        walker = ObjectReader(data, 0, compact)
        try:
            walker.value()
        except RemoteProtocolError:
            continue
        assert 0 < walker.pos <= len(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frame": fuzz_frame,
    "skip": fuzz_skip,
    "read": fuzz_read,
    "fastjson2": fuzz_fastjson2,
    "java": fuzz_java,
}


def seeds(target: str) -> list[bytes]:
    """Good and bad inputs to start from."""
    bodies = recorded_bodies()
    if target in ("skip", "read"):
        return [v.data for v in VECTORS if len(v.data) < 2000] + [bytes.fromhex(h) for h in REJECTED]
    if target == "frame":
        wire = [build_frame(0xC0 | IDS[s], 0, 5, b) for (s, _), b in bodies.items()]
        return [CALL, CALL * 3, GENERIC_BODY, *wire, *(b for (s, _), b in bodies.items() if s == "hessian2")]
    chosen = {"fastjson2": ("fastjson2",), "java": ("java", "compactedjava", "nativejava")}[target]
    return [b for (s, _), b in bodies.items() if s in chosen] + [b[4:] for (s, _), b in bodies.items() if s in chosen]


PROGRAM = Program(TARGETS, seeds, b"\x00\x01NZHMCQOUVWX\x60\x70\x78\x7f\x80\x90\xa4\xa5\xa6\xff")

if __name__ == "__main__":
    sys.exit(PROGRAM.main(sys.argv[1:]))
