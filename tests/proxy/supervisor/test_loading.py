"""The configuration is read by a child that takes protobuf with it when it goes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.model.bootstrap import BootstrapConfig, NodeConfig
from mesh_proxy.supervisor.loading import LoadError, Loading

pytestmark = pytest.mark.slow


def loaded(load: Callable[[], BootstrapConfig]) -> BootstrapConfig:
    loading = Loading(load)
    try:
        return asyncio.run(loading.result())
    finally:
        assert loading.close() == 0, "reaped already"


def test_a_configuration_comes_back() -> None:
    big = BootstrapConfig(node=NodeConfig(id="n", metadata={"x": "y" * 3_000_000}))
    assert loaded(lambda: big) == big


def test_a_fault_of_the_configuration_keeps_its_problems() -> None:
    def load() -> BootstrapConfig:
        raise ConfigError("a.b", "is wrong", [("c", "is too")])

    with pytest.raises(ConfigError) as caught:
        loaded(load)
    assert caught.value.problems == (("a.b", "is wrong"), ("c", "is too"))


def test_any_other_fault_is_one_line() -> None:
    def load() -> BootstrapConfig:
        raise RuntimeError("surprise")

    with pytest.raises(LoadError, match=r"^cannot load the configuration: RuntimeError: surprise$"):
        loaded(load)


def test_a_child_that_dies() -> None:
    def load() -> BootstrapConfig:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError

    with pytest.raises(LoadError, match="ended with -15"):
        loaded(load)


def test_closing_ends_a_child_that_still_loads() -> None:
    def load() -> BootstrapConfig:
        signal.pause()
        raise AssertionError

    loading = Loading(load)
    assert os.waitstatus_to_exitcode(loading.close()) == -signal.SIGKILL
