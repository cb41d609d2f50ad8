"""The pair of proxies of a module: Envoy and ours, started once with the module's `SUITE`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from parity import Pair, StartError, Suite, envoy_binary


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if envoy_binary() is None:
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    suite: Suite = request.module.SUITE
    pair = Pair(suite)
    try:
        pair.start()
    except StartError as error:
        if suite.optional and error.refused:
            pytest.skip(suite.optional)
        pytest.fail(str(error), pytrace=False)
    try:
        yield pair
    finally:
        pair.stop()
