"""Hot upgrades of mesh-proxy and hot restarts of Envoy under the same eight kinds of load, side by side.

    python bench/hot_upgrade.py [--upgrades N]

Both get the same configuration, the same callers and so many upgrades; Envoy drains for 3 s and its old process ends after 8 s.
What counts is what callers notice: requests that fail, and connections that must be made anew.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "envoy")]

from e2e_support.backends import Backends  # noqa: E402
from e2e_support.gate import LISTENERS, configuration  # noqa: E402
from e2e_support.mixed_load import MixedLoad  # noqa: E402
from e2e_support.upgrades import Upgrades  # noqa: E402
from parity.proxy import envoy_binary  # noqa: E402

REQUESTS = 3000
"""between two upgrades"""
EACH = 20
"""of every kind"""
NO_ENVOY = 77


class EnvoyUpgrades(Upgrades):
    """The same with Envoy."""

    live_line = "starting main dispatch loop"

    def __init__(self, config: dict[str, Any], **options: Any) -> None:
        super().__init__(config, **options)
        self._base_id = random.randrange(1000, 100_000)

    def command(self, *, concurrency: int = 0, **_: Any) -> list[str]:
        binary = envoy_binary()
        assert binary is not None
        flags = ["--restart-epoch", str(len(self.generations)), "--base-id", str(self._base_id)]
        flags += ["--drain-time-s", "3", "--parent-shutdown-time-s", "8", "--drain-strategy", "immediate"]
        return [binary, "-c", str(self.config_file), "--concurrency", str(concurrency or 2), "-l", "info", *flags]


def measure(proxy: Upgrades, upgrades: int) -> MixedLoad:
    """Load, upgrades, and what the callers saw."""
    try:
        proxy.start()
        with MixedLoad({name: proxy.port(name) for name in LISTENERS}) as load:
            load.wait_for(REQUESTS, EACH)
            for _ in range(upgrades):
                before = proxy.newest
                proxy.launch().wait_live(proxy.live_line)
                load.wait_for(REQUESTS, EACH)
                before.wait_exit()
            load.wait_for(REQUESTS, EACH)
            load.stop()
        return load
    finally:
        proxy.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=3)
    given = parser.parse_args()
    if envoy_binary() is None or not os.path.exists(envoy_binary() or ""):
        print("no Envoy here: `make envoy`, or name one by MESH_PROXY_ENVOY", file=sys.stderr)
        return NO_ENVOY
    for kind in (Upgrades, EnvoyUpgrades):
        with Backends() as backends:
            load = measure(kind(configuration(backends.ports), concurrency=2), given.upgrades)
        name = "mesh-proxy" if kind is Upgrades else "Envoy"
        print(f"\n{name}: {given.upgrades} upgrades, {load.done} requests\n{load.report()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
