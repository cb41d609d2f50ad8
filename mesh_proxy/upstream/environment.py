"""What all clusters of a worker share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

from mesh_proxy.stats.registry import StatRegistry
from mesh_proxy.upstream.balancers import Random
from mesh_proxy.upstream.endpoint import Endpoint


class Environment:
    """One per cluster manager."""

    __slots__ = ("loop", "on_endpoint_removed", "random", "registry", "runtime")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: StatRegistry,
        runtime: Mapping[str, Any],
        on_endpoint_removed: Callable[[Endpoint], None],
        uniform: Random = random.random,
    ) -> None:
        self.loop = loop
        self.registry = registry
        self.runtime = runtime
        self.on_endpoint_removed = on_endpoint_removed
        self.random = uniform
        """uniform in [0, 1)"""
