"""grpcio on both sides of the sidecar: all kinds of calls, deadlines, cancellation, metadata, compression, errors."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e_support import Sidecar, until
from e2e_support.nginx import Nginx
from interop_support.grpc_config import in_front_of_grpc
from interop_support.grpc_python import Caller, Server, Service

pytestmark = pytest.mark.slow

WAIT_S = 30.0


@dataclass
class Stage:
    server: Server
    caller: Caller
    sidecar: Sidecar

    @property
    def service(self) -> Service:
        return self.server.service

    def call(self, name: str, *arguments: object, **options: object) -> object:
        return self.caller.method(name)(*arguments, timeout=options.pop("timeout", WAIT_S), **options)

    def received(self) -> int:
        """Bytes that the sidecar got from callers so far."""
        return self.sidecar.stats().get("http.in.downstream_cx_rx_bytes_total", 0)

    def sent(self) -> int:
        return self.sidecar.stats().get("http.in.downstream_cx_tx_bytes_total", 0)


@contextmanager
def on_stage() -> Iterator[Stage]:
    server = Server()
    sidecar = Sidecar(in_front_of_grpc(server.port))
    try:
        sidecar.start()
        caller = Caller(sidecar.port("in"))
        try:
            yield Stage(server, caller, sidecar)
        finally:
            caller.close()
    finally:
        sidecar.stop(keep=True)
        log = sidecar.log()
        sidecar.remove()
        server.close()
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with on_stage() as one:
        yield one


def error_of(call: Callable[[], object]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_every_kind_of_call(stage: Stage) -> None:
    assert stage.call("unary_echo", b"hello") == b"hello"
    assert list(stage.call("out_count", b"1000")) == [b"%d" % i for i in range(1000)]  # type: ignore[call-overload]
    assert stage.call("in_sum", iter([b"x" * 1000] * 300)) == b"300000"
    assert list(stage.call("both_echo", iter([b"%d" % i for i in range(500)]))) == [b"%d" % i for i in range(500)]  # type: ignore[call-overload]
    assert list(stage.call("both_half", iter([b""] * 100))) == [b"100"]  # type: ignore[call-overload]
    assert list(stage.call("both_echo", iter([]))) == []  # type: ignore[call-overload]


def test_streams_are_not_held_back(stage: Stage) -> None:
    """Each message is sent only when the one before has come back."""
    turns: queue.Queue[bytes | None] = queue.Queue()
    answers = stage.call("both_echo", iter(turns.get, None))
    for i in range(200):
        turns.put(b"%d" % i)
        assert next(answers) == b"%d" % i  # type: ignore[call-overload]
    turns.put(None)
    assert list(answers) == []  # type: ignore[call-overload]


def test_metadata(stage: Stage) -> None:
    binary = bytes(range(256)) * 4
    answer, call = stage.caller.method("unary_echo").with_call(
        b"", timeout=WAIT_S, metadata=(("x-one", "1"), ("x-two", "a"), ("x-two", "b"), ("x-raw-bin", binary))
    )
    assert answer == b""
    seen = stage.service.metadata
    assert ("x-one", "1") in seen
    assert [value for key, value in seen if key == "x-two"] in (["a", "b"], ["a,b"])
    assert ("x-raw-bin", binary) in seen
    assert ("x-initial-bin", b"\x00\xff") in call.initial_metadata()
    assert ("x-trailing-bin", bytes(range(256))) in call.trailing_metadata()
    assert ("x-trailing", "t") in call.trailing_metadata()


def test_deadlines(stage: Stage) -> None:
    stage.call("unary_echo", b"", timeout=17.0)
    assert 1 < stage.service.deadline < 18, "grpcio rounds up"
    error = error_of(lambda: stage.call("unary_wait", b"", timeout=2.0, metadata=(("x-call", "late"),)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert stage.service.ends["late"].wait(WAIT_S), "the server learns of it"


def test_cancellation_by_the_caller(stage: Stage) -> None:
    stream = stage.call("out_forever", b"x" * 100, metadata=(("x-call", "stream"),))
    assert next(stream) == b"x" * 100  # type: ignore[call-overload]
    stream.cancel()  # type: ignore[attr-defined]
    assert stage.service.ends["stream"].wait(WAIT_S)
    turns: queue.Queue[bytes | None] = queue.Queue()
    both = stage.call("both_echo", iter(turns.get, None), metadata=(("x-call", "both"),))
    turns.put(b"1")
    assert next(both) == b"1"  # type: ignore[call-overload]
    both.cancel()  # type: ignore[attr-defined]
    turns.put(None)
    assert stage.service.ends["both"].wait(WAIT_S)
    assert stage.call("unary_echo", b"the connection goes on") == b"the connection goes on"


def test_cancellation_by_the_server(stage: Stage) -> None:
    stream = stage.call("out_cancel", b"")
    assert next(stream) == b"one"  # type: ignore[call-overload]
    assert error_of(lambda: next(stream)).code() is grpc.StatusCode.CANCELLED  # type: ignore[call-overload]


def test_a_reader_that_is_slow(stage: Stage) -> None:
    """A stream without an end, of which only a little is read: neither side runs away with it."""
    stream = stage.call("out_forever", bytes(10_000), metadata=(("x-call", "slow"),))
    for _ in range(20):
        next(stream)  # type: ignore[call-overload]
    assert stage.call("unary_echo", b"others go on") == b"others go on"
    stream.cancel()  # type: ignore[attr-defined]
    assert stage.service.ends["slow"].wait(WAIT_S)


def test_errors(stage: Stage) -> None:
    text = "not there: \t\n% é 你好 \x7f"
    error = error_of(lambda: stage.call("unary_fail", text.encode()))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == text
    assert ("grpc-status-details-bin", b"\x08\x05\x12\x01x") in error.trailing_metadata()
    assert error_of(lambda: stage.call("unary_nothing", b"")).code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_server_that_is_gone() -> None:
    with on_stage() as stage:
        assert stage.call("unary_echo", b"") == b""
        stage.server.close()

        def unavailable() -> bool:
            error = error_of(lambda: stage.call("unary_echo", b""))
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            return "upstream connect error" in str(error.details())

        until("the sidecar says that nobody is there", unavailable, WAIT_S)


@pytest.mark.parametrize("size", [1, 65_536, 5_000_000, 40_000_000])
def test_big_messages(stage: Stage, size: int) -> None:
    message = bytes(range(256)) * (size // 256 + 1)
    assert stage.call("unary_echo", message) == message
    assert len(stage.call("unary_zeros", b"%d" % size)) == size  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_client_compressed_unary(stage: Stage, method: grpc.Compression) -> None:
    before = stage.received()
    assert stage.call("unary_echo", bytes(1_000_000), compression=method) == bytes(1_000_000)
    assert 0 < stage.received() - before < 100_000, "nobody unpacked it on the way"


@pytest.mark.parametrize("name", [b"gzip", b"deflate"])
def test_server_compressed_unary(stage: Stage, name: bytes) -> None:
    before = stage.sent()
    assert stage.call("unary_squeezed", name) == bytes(1_000_000)
    assert 0 < stage.sent() - before < 100_000


def test_client_compressed_streaming(stage: Stage) -> None:
    before = stage.received()
    assert stage.call("in_sum", iter([bytes(100_000)] * 20), compression=grpc.Compression.Gzip) == b"2000000"
    assert 0 < stage.received() - before < 200_000


def test_server_compressed_streaming(stage: Stage) -> None:
    before = stage.sent()
    assert [len(one) for one in stage.call("out_squeezed", b"20")] == [100_000] * 20  # type: ignore[attr-defined]
    assert 0 < stage.sent() - before < 200_000


def test_many_calls_at_once(stage: Stage) -> None:
    """A thousand large calls in flight from eight threads (grpc's concurrent_large_unary)."""
    message = bytes(20_000)
    wrong: list[object] = []

    def run() -> None:
        calls = [stage.caller.method("unary_echo").future(message, timeout=4 * WAIT_S) for _ in range(125)]
        for call in calls:
            if call.exception() is not None or call.result() != message:
                wrong.append(call.exception())

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


GRPC_FRONT = """
server {{ listen 127.0.0.1:{port} http2;
  location / {{ grpc_pass grpc://127.0.0.1:{target}; grpc_read_timeout 30s; grpc_send_timeout 30s; }} }}
"""


def test_nginx_in_front(stage: Stage, tmp_path: Path) -> None:
    """caller -> nginx (`grpc_pass`) -> sidecar -> server."""
    nginx = Nginx(tmp_path / "nginx", GRPC_FRONT, target=stage.sidecar.port("in"))
    caller = Caller(nginx.port)
    try:
        assert [caller.method("unary_echo")(b"%d" % i, timeout=WAIT_S) for i in range(100)] == [b"%d" % i for i in range(100)]
        assert list(caller.method("out_count")(b"1000", timeout=WAIT_S)) == [b"%d" % i for i in range(1000)]
        assert caller.method("in_sum")(iter([b"x" * 1000] * 300), timeout=WAIT_S) == b"300000"
        error = error_of(lambda: caller.method("unary_fail")(b"", timeout=WAIT_S))
        assert error.code() == error_of(lambda: stage.call("unary_fail", b"")).code() != grpc.StatusCode.UNKNOWN
    finally:
        caller.close()
        nginx.stop()
