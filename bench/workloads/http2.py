"""HTTP/2 and gRPC. A point is connections x streams on each."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import generators, programs
from harness.comparison import Bench, Turn, Workload

from workloads import configuration as c

PEERS = Path(__file__).resolve().parent.parent / "peers"
MESSAGE = b"\x0a\x05world"
STREAM_MESSAGES = 1000
"""messages of a streaming call"""


class Http2(Workload):
    """Small `GET`s over HTTP/2, to nginx over HTTP/1.1 or HTTP/2."""

    points = ("1x1", "8x1", "8x16", "32x4")
    rivals = ("nghttpx",)
    paced = "8x16"

    def __init__(self, http2_upstream: bool) -> None:
        self.http2_upstream = http2_upstream
        self.name = "http2" if http2_upstream else "http2-http1"

    def start(self, bench: Bench) -> None:
        self.upstream = bench.nginx(http2=self.http2_upstream)

    def configuration(self, program: str, port: int, admin: int) -> str:
        if program == "nghttpx":
            return c.nghttpx(port, self.upstream, http2=self.http2_upstream)
        cluster = c.cluster("upstream", c.endpoint(self.upstream), http2=self.http2_upstream)
        return c.bootstrap(port, admin, c.http_manager([c.route_all()]), [cluster])

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        return generators.h2load(f"http://127.0.0.1:{port}/", point, seconds, rate=rate)


class Large(Http2):
    """Responses of 1 MiB over HTTP/2 on both sides; a unit is a GB of body."""

    unit = "GB"
    points = ("8x1",)
    paced = ""

    def __init__(self) -> None:
        super().__init__(http2_upstream=True)
        self.name = "http2-large"

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        turn = generators.h2load(f"http://127.0.0.1:{port}/large", point, seconds, rate=rate)
        return Turn(turn.units * (1 << 20) / 1e9, turn.seconds, turn.latencies_us)


class Grpc(Http2):
    """Unary calls of seven bytes with a deadline, answered by a message and trailers of a Go server."""

    name = "grpc"
    unit = "call"
    rivals = ()
    path = "/helloworld.Greeter/SayHello"

    def __init__(self) -> None:
        super().__init__(http2_upstream=True)
        self.name = "grpc"

    def start(self, bench: Bench) -> None:
        program = build("grpc", bench.folder)
        self.upstream = programs.free_port()
        self.body = bench.folder / "message"
        self.body.write_bytes(self.messages())
        bench.run([program, str(self.upstream)], self.upstream)

    def messages(self) -> bytes:
        """The body of a request: framed messages."""
        return b"\0" + len(MESSAGE).to_bytes(4, "big") + MESSAGE

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        headers = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 5S", "user-agent: grpc-bench/1")
        url = f"http://127.0.0.1:{port}{self.path}"
        return generators.h2load(url, point, seconds, headers=headers, body=self.body, rate=rate)


class GrpcStream(Grpc):
    """Calls of a thousand messages each way; a unit is a message."""

    unit = "message"
    points = ("8x1",)
    paced = ""
    path = "/bench.Echo/Stream"

    def __init__(self) -> None:
        super().__init__()
        self.name = "grpc-stream"

    def messages(self) -> bytes:
        return super().messages() * STREAM_MESSAGES

    def load(self, port: int, point: str, seconds: float, rate: float | None = None) -> Turn:
        turn = super().load(port, point, seconds, rate)
        return Turn(turn.units * STREAM_MESSAGES, turn.seconds, turn.latencies_us)


def build(name: str, folder: Path) -> str:
    """A peer of bench/peers, built by Go of its standard library alone. Raises Missing."""
    target = str(folder / f"{name}-peers")
    command = [programs.find("go", "golang"), "build", "-o", target, str(PEERS / f"{name}.go")]
    built = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    if built.returncode:
        raise programs.Missing(f"{name}.go could not be built:\n{built.stderr}")
    return target
