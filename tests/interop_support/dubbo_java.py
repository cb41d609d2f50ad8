"""Apache Dubbo in Java: providers and consumers of three versions, from tests/interop/java/dubbo-peers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from peer_programs import program

from .tools import Program, build

PROJECT = Path(__file__).parent.parent / "interop" / "java" / "dubbo-peers"
VERSIONS = ("v27", "v32", "v33")
LOOPBACK = "2130706433"
"""127.0.0.1: Dubbo takes the usual spelling for a mistake, and uses another address of the machine instead"""
OPENED = ("lang", "lang.reflect", "math", "util", "util.concurrent", "time", "io", "net", "text")
"""packages of java.base whose private parts Dubbo and its serializations look into"""


class JavaPeers:
    """What Maven made, and processes of it."""

    def __init__(self, out: Path) -> None:
        self.inside: Callable[..., list[str]] | None = None
        """makes a command that runs somewhere else, such as in a network namespace"""
        self._out = out
        self._java = program("java")
        self._count = 0
        maven = program("mvn")
        build(
            [maven, "-q", "-B", "-f", str(PROJECT), f"-Dout={out}", "compile", "dependency:build-classpath"],
            "the Dubbo peers (by Maven)",
        )

    def start(self, version: str, main: str, *arguments: str) -> Program:
        home = self._out / version
        opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
        command = [
            self._java,
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            *opens,
            "-Djava.net.preferIPv4Stack=true",
            # Dubbo 3.3 does not tell netty 4.2 whom it calls, so that no name could ever be right.
            "-Dio.netty.handler.ssl.defaultEndpointVerificationAlgorithm=NONE",
            f"-Djava.util.logging.config.file={home}/classes/logging.properties",
            # Classes of exceptions and of generic calls need not be on a list.
            "-Ddubbo.application.serialize-check-status=DISABLE",
            # Consumers of 3.x ask a registry for services, not for applications.
            "-Ddubbo.application.service-discovery.migration=FORCE_INTERFACE",
            f"-Duser.home={self._out}",
            "-cp",
            f"{home}/classes:{(home / 'classpath.txt').read_text().strip()}",
            f"peers.{main}",
            *arguments,
        ]
        self._count += 1
        if self.inside is not None:
            command = self.inside(*command)
        return Program(command, self._out / f"{self._count}-{version}-{main}.log")

    def provider(self, version: str, **options: object) -> Provider:
        words = [f"{name}={value}" for name, value in options.items()]
        return Provider(self.start(version, "Provider", *words))

    def consumer(self, version: str, **options: object) -> Consumer:
        words = [f"{name}={value}" for name, value in options.items()]
        return Consumer(self.start(version, "Consumer", *words))


class Provider:
    """A provider of all services; `port` waits until it serves."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._port = 0

    @property
    def port(self) -> int:
        while not self._port:
            word, _, number = self.program.line().partition(" ")
            if word == "port":
                self._port = int(number)
        return self._port

    def ask_to_stop(self) -> None:
        """It ends as Dubbo ends gracefully: says READONLY, waits for its consumers, closes."""
        self.program.end_input()

    def kill(self) -> None:
        self.program.kill()


Results = list[tuple[str, str]]
"""What a run printed: the cases in order and their results"""


class Consumer:
    """A consumer for many runs."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._runs = 0

    def run(
        self,
        scenarios: str,
        ports: int | tuple[int, ...],
        protocol: str = "dubbo",
        *,
        provider_tags: tuple[str, ...] = (),
        host: str = LOOPBACK,
        **options: object,
    ) -> Results:
        """Makes the calls of the scenarios to the service at the port; at several ports, Dubbo's own cluster chooses.
        `provider_tags` are those of the providers at these ports, as a registry would tell them."""
        self._runs += 1
        mine = f"run{self._runs}"
        at = ports if isinstance(ports, tuple) else (ports,)
        marks = [f"?dubbo.tag={tag}" if tag else "" for tag in provider_tags] or [""] * len(at)
        url = ";".join(f"{protocol}://{host}:{port}{mark}" for port, mark in zip(at, marks, strict=True))
        words = [f"{name}={value}" for name, value in options.items()]
        self.program.tell(" ".join([mine, scenarios, f"url={url}", *words]))
        return self.program.results(mine)

    def kill(self) -> None:
        self.program.kill()
