"""A gRPC service in Python over grpcio, without generated code: messages are plain bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
SERVICE = "mesh.Test"


class Service(grpc.GenericRpcHandler):
    """Methods of `mesh.Test`; what servers saw of the end of calls is in `ends`."""

    def __init__(self) -> None:
        self.ends: dict[str, threading.Event] = {}
        self.metadata: list[tuple[str, str | bytes]] = []
        self.deadline = 0.0
        """seconds that the last call was given"""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        kinds: dict[str, Callable[..., grpc.RpcMethodHandler]] = {
            "unary": grpc.unary_unary_rpc_method_handler,
            "out": grpc.unary_stream_rpc_method_handler,
            "in": grpc.stream_unary_rpc_method_handler,
            "both": grpc.stream_stream_rpc_method_handler,
        }
        kind, _, rest = name.partition("_")
        method = getattr(self, name, None)
        if kind not in kinds or method is None or not rest:
            return None
        return kinds[kind](method)

    def _watch(self, context: grpc.ServicerContext) -> None:
        """Note when the call ends, under the name that the caller gave it."""
        name = dict(context.invocation_metadata()).get("x-call")
        if name is not None:
            context.add_callback(self.ends.setdefault(str(name), threading.Event()).set)

    def unary_echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata = [(key, value) for key, value in context.invocation_metadata()]
        self.deadline = context.time_remaining() or 0.0
        context.send_initial_metadata((("x-initial", "i"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "t"), ("x-trailing-bin", bytes(range(256)))))
        return message

    def unary_zeros(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        return bytes(int(message))

    def unary_squeezed(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_compression(grpc.Compression.Deflate if message == b"deflate" else grpc.Compression.Gzip)
        return bytes(1_000_000)

    def unary_fail(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05\x12\x01x"),))
        context.abort(grpc.StatusCode.NOT_FOUND, message.decode())

    def unary_wait(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._watch(context)
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(60)
        return b""

    def out_count(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for i in range(int(message)):
            yield b"%d" % i

    def out_squeezed(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.set_compression(grpc.Compression.Gzip)
        for _ in range(int(message)):
            yield bytes(100_000)

    def out_cancel(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"one"
        context.cancel()  # type: ignore[attr-defined]
        time.sleep(0)

    def out_forever(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._watch(context)
        while context.is_active():
            yield message

    def in_sum(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return b"%d" % sum(len(message) for message in messages)

    def both_echo(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._watch(context)
        yield from messages

    def both_half(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answers only when the caller has said everything."""
        count = sum(1 for _ in messages)
        yield b"%d" % count


class Server:
    """A running server."""

    def __init__(self, threads: int = 16) -> None:
        self.service = Service()
        self._pool = ThreadPoolExecutor(threads)
        self._server = grpc.server(self._pool, handlers=[self.service], options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self._pool.shutdown()


class Caller:
    """A channel to a port of the loopback."""

    def __init__(self, port: int, **options: Any) -> None:
        given = [*UNLIMITED, ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[*given, *options.items()])

    def method(self, name: str) -> Any:
        kind = name.partition("_")[0]
        make = {
            "unary": self.channel.unary_unary,
            "out": self.channel.unary_stream,
            "in": self.channel.stream_unary,
            "both": self.channel.stream_stream,
        }[kind]
        return make(f"/{SERVICE}/{name}")

    def close(self) -> None:
        self.channel.close()
