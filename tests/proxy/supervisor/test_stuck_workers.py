"""A worker that answers but never takes a configuration does not hold up updates for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parity.proxy import free_port

from .conftest import ProxyProcess, socket_address, tcp_listener

pytestmark = pytest.mark.slow
Start = Callable[..., ProxyProcess]
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


class Updates:
    """Listeners in a watched file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lds.json"
        self.stuck = directory / "stuck"
        self.ports = {name: free_port() for name in ("first", "stuck", "second")}
        self.bootstrap: dict[str, Any] = {
            "admin": {"address": socket_address(0)},
            "dynamic_resources": {"lds_config": {"path_config_source": {"path": str(self.path)}}},
            "static_resources": {"clusters": [{"name": "back", "load_assignment": {"cluster_name": "back"}}]},
        }

    def move(self, *names: str) -> None:
        listeners = [{"@type": LISTENER, **tcp_listener(name, socket_address(self.ports[name]))} for name in names]
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"version_info": "+".join(names), "resources": listeners}))
        fresh.rename(self.path)

    def start(self, start_proxy: Start, deadline: str) -> ProxyProcess:
        self.move("first")
        environment = {"ECHO_STUCK": str(self.stuck), "ECHO_APPLY_DEADLINE": deadline}
        return start_proxy(None, "--concurrency", "2", config=self.bootstrap, env=environment).wait_live()


def test_a_worker_that_does_not_take_a_version_is_replaced(start_proxy: Start, tmp_path: Path) -> None:
    updates = Updates(tmp_path)
    proxy = updates.start(start_proxy, "10")
    updates.stuck.write_text("once")
    updates.move("first", "stuck")
    proxy.until("taken", lambda: proxy.stat("listener_manager.lds.update_success") == 2, 60)
    assert "has not taken version 2 for" in proxy.log
    assert proxy.stat("supervisor.apply_timeouts") == 1
    assert proxy.stat("supervisor.worker_restarts") == 1
    assert proxy.stat("listener_manager.lds.update_rejected") == 0
    proxy.connect_to_worker(("127.0.0.1", updates.ports["stuck"]), 1)


def test_a_version_that_a_worker_never_takes_is_given_up(start_proxy: Start, tmp_path: Path) -> None:
    updates = Updates(tmp_path)
    proxy = updates.start(start_proxy, "10")
    updates.stuck.write_text("for ever")
    kept = proxy.connect_to_worker(("127.0.0.1", updates.ports["first"]), 0)
    updates.move("first", "stuck")
    proxy.until("refused", lambda: proxy.stat("listener_manager.lds.update_rejected") == 1, 60)
    assert "was not taken within" in proxy.admin("/config_digest")[1]
    assert "was not taken within" in proxy.log
    assert kept.ask("still there") == "still there", "the other worker serves on"
    updates.move("first", "second")
    proxy.until("the next one is taken", lambda: proxy.stat("listener_manager.lds.update_success") == 2, 60)
    proxy.connect_to_worker(("127.0.0.1", updates.ports["second"]), 1)
    assert proxy.admin("/config_digest")[1].count("was not taken") == 0
