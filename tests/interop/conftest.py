"""Peers that are built once and always stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from e2e_support import Sidecar
from e2e_support.upgrades import Chain, chains
from interop_support.dubbo_go import GoPeers
from interop_support.dubbo_java import Consumer, JavaPeers, Provider
from interop_support.grpc_go import build_programs
from parity.proxy import StartError

Start = Callable[..., Sidecar]


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> GoPeers:
    return GoPeers(tmp_path_factory.mktemp("dubbo-go-peers"))


class Peer(Protocol):
    """What is stopped at the end."""

    def kill(self) -> None: ...


Stopped = TypeVar("Stopped", bound=Peer)


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> JavaPeers:
    return JavaPeers(tmp_path_factory.mktemp("dubbo-peers"))


class Cast:
    """The peers and sidecars of one test."""

    def __init__(self, java: JavaPeers) -> None:
        self._java = java
        self._peers: list[Peer] = []
        self._sidecars: list[Sidecar] = []

    def provider(self, version: str, **options: object) -> Provider:
        one = self._java.provider(version, **options)
        self._peers.append(one)
        return one

    def consumer(self, version: str, **options: object) -> Consumer:
        one = self._java.consumer(version, **options)
        self._peers.append(one)
        return one

    def keep(self, peer: Stopped) -> Stopped:
        """It is stopped at the end."""
        self._peers.append(peer)
        return peer

    def sidecar(self, config: dict[str, Any], **options: Any) -> Sidecar:
        for _ in range(3):
            one = Sidecar(config, **options)
            try:
                one.start()
            except StartError as error:
                one.stop()
                if "Address already in use" not in str(error):
                    raise
            else:
                self._sidecars.append(one)
                return one
        raise AssertionError("three times a port was taken by somebody else")

    def close(self) -> None:
        for peer in self._peers:
            peer.kill()
        logs = []
        for sidecar in self._sidecars:
            sidecar.stop(keep=True)
            logs.append(sidecar.log())
            sidecar.remove()
        for log in logs:
            print(log[-4000:])
            assert "Traceback" not in log


@pytest.fixture
def cast(java: JavaPeers) -> Iterator[Cast]:
    """`cast.provider("v33")`, `cast.consumer("v27")`, `cast.sidecar(config)`."""
    one = Cast(java)
    try:
        yield one
    finally:
        one.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(config)`: a running sidecar, without peers of its own."""
    sidecars: list[Sidecar] = []

    def start(config: dict[str, Any], **options: Any) -> Sidecar:
        one = Sidecar(config, **options)
        sidecars.append(one)
        one.start()
        return one

    yield start
    for sidecar in sidecars:
        sidecar.stop(keep=True)
        log = sidecar.log()
        sidecar.remove()
        print(log[-4000:])
        assert "Traceback" not in log


@pytest.fixture(scope="session")
def grpc_go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where grpc-go's programs are."""
    return build_programs(tmp_path_factory.mktemp("grpc-go"))


@pytest.fixture
def chain() -> Iterator[Chain]:
    """See `chains`."""
    with chains() as begin:
        yield begin
