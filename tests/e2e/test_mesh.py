"""A label given at the entry holds over three hops of HTTP, gRPC and Dubbo, through services that pass on nothing but their
trace id: every request lands where the rule says, also with 1,000 at once and while sidecars are replaced."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest
from e2e_support import until
from e2e_support.mesh import Callers, entry, sidecar_a, sidecar_b, sidecar_c
from e2e_support.mesh_apps import Apps
from e2e_support.upgrades import Upgrades

pytestmark = pytest.mark.slow

Chain = Callable[..., Upgrades]

NONE = b"a-base b-base c-base"
GRAY = b"a-gray b-base c-gray"
BLUE = b"a-base b-blue c-base"


def test_three_hops(chain: Chain) -> None:
    with Apps() as apps:
        app = apps.ports

        def sidecar(config: object) -> Upgrades:
            return chain(config, concurrency=2, start=False)

        c = {name: sidecar(sidecar_c(app[f"c-{name}"])) for name in ("base", "gray")}
        c_ports = {name: one.port("in") for name, one in c.items()}
        b = {name: sidecar(sidecar_b(app[f"b-{name}"], c_ports)) for name in ("base", "blue")}
        b_ports = {name: one.port("in") for name, one in b.items()}
        a = {name: sidecar(sidecar_a(app[f"a-{name}"], {"base": b_ports["base"]})) for name in ("base", "gray")}
        door = sidecar(entry({name: one.port("in") for name, one in a.items()}))
        mesh = [door, *a.values(), *b.values(), *c.values()]
        for one in mesh:
            one.launch()
        for one in mesh:
            one.newest.wait_live(one.live_line)
        apps.tell(calls={f"{kind}-{name}": one.port("out") for kind, all_ in (("a", a), ("b", b)) for name, one in all_.items()})

        rule = {"none": {NONE}, "gray": {GRAY}, "blue": {NONE}}
        with Callers(door.port("out"), rule) as callers:
            apps.tell(hold=1000)
            callers.burst(1000)
            assert not callers.wrong
            assert callers.done == {NONE: 900, GRAY: 100}

            # A's sidecars learn of a blue B; one sidecar of each service is replaced meanwhile.
            callers.rule = {**rule, "blue": {NONE, BLUE}}
            callers.begin(60)
            for one, name in ((a["base"], "base"), (a["gray"], "gray")):
                config = json.loads(one.config_file.read_text())
                more = sidecar_a(app[f"a-{name}"], b_ports)["static_resources"]["clusters"][1]
                config["static_resources"]["clusters"][1] = more
                one.config_file.write_text(json.dumps(config))
            a["base"].upgrade(concurrency=1)
            first = a["gray"].newest
            os.kill(first.pid, signal.SIGHUP)
            until("A gray's second generation", lambda: a["gray"].settled({"server.hot_restart_generation": 2}), 60)
            first.wait_log("staying as the guardian")
            b["base"].upgrade()
            callers.rule = {**rule, "blue": {BLUE}}
            callers.wait_for(callers.total + 1000)
            callers.end()
            print(callers.done, callers.wrong)
            assert not callers.wrong
            assert callers.done[BLUE] > 50

        stats = {name: one.stats() for name, one in (("a", a["gray"]), ("b", b["base"]))}
        assert stats["a"]["http.out.traffic_label.restored"] > 100
        assert stats["b"]["dubbo.out.traffic_label.restored"] > 50
        description = "protocol=grpc&service=mesh.B&method=Go&listener=out&header.x-mesh-tag=gray&format=text"
        told = a["gray"].admin(f"/route_explain?{description}").body.decode()
        assert f"1 of 2 endpoints: 127.0.0.1:{b_ports['base']}" in told
