"""Rules in the kernel: every set of options that Istio tests, on both back-ends, written, read back, changed and taken away."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_support import Namespace, need_namespaces, need_program

from mesh_proxy.interception.apply import Interception
from mesh_proxy.interception.settings import Settings

pytestmark = pytest.mark.slow
RULES = Path(__file__).parents[1] / "proxy" / "interception" / "test_rules.py"


def cases() -> dict[str, Settings]:
    """Those of test_rules, with groups that every machine has."""
    spec = importlib.util.spec_from_file_location("rules_of_istio", RULES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for name, (options, _) in module.CASES.items():
        mine = {
            key: value.replace("java,", "15,").replace("ftp", "20") if isinstance(value, str) else value
            for key, value in options.items()
        }
        found[name] = Settings(**mine)
    return found


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    need_namespaces()
    one = Namespace()
    try:
        yield one
    finally:
        one.close()


def state() -> dict[str, Any]:
    """All rules and chains, of both back-ends and IP versions."""
    from mesh_proxy.interception.backend import Backend

    found = {}
    for version in (4, 6):
        for kind in ("nft", "legacy"):
            lines = Backend(kind, version).save().splitlines()
            found[f"{version} {kind}"] = [line for line in lines if line.startswith("-A") or "ISTIO" in line]
    return found


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_written_read_back_and_taken_away(namespace: Namespace, kind: str) -> None:
    need_program(f"iptables-{kind}")
    with namespace.inside():
        clean = state()
        for name, settings in cases().items():
            one = Interception(settings, kind)
            assert one.apply(), name
            assert not one.apply(), name
            assert one.check() == []
            assert one.show()
            assert one.clean(), name
            assert state() == clean, name
            assert not one.clean(), name


@pytest.mark.parametrize("kind", ["nft", "legacy"])
def test_other_rules_are_left_alone(namespace: Namespace, kind: str) -> None:
    """What is there from somebody else stays, before and behind ours; old rules of ours do not."""
    need_program(f"iptables-{kind}")
    foreign = ["-A OUTPUT -d 10.9.9.9/32 -p tcp -j RETURN", "-A OUTPUT -d 10.9.9.8/32 -p tcp -j RETURN"]
    with namespace.inside():
        namespace.run(f"iptables-{kind}-restore", "--noflush", text=f"*nat\n{foreign[0]}\nCOMMIT\n")
        first = Interception(Settings(inbound_ports_include="80", spare_open_connections=True), kind)
        assert first.apply()
        namespace.run(f"iptables-{kind}-restore", "--noflush", text=f"*nat\n{foreign[1]}\nCOMMIT\n")
        second = Interception(Settings(inbound_ports_include="*", inbound_interception_mode="TPROXY", drop_invalid=True), kind)
        assert "IPv4: nat: chain ISTIO_INBOUND holds other rules" in second.check()
        assert second.apply()
        assert second.check() == []
        assert second.release()
        assert not second.release()
        rules = state()[f"4 {kind}"]
        assert [line for line in rules if not line.startswith((":", "-A ISTIO"))] == foreign
        assert "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001" in rules, "connection tracking goes on"
        assert second.apply()
        assert second.clean()
        assert state()[f"4 {kind}"] == foreign


def test_the_back_end_that_holds_rules_is_taken(namespace: Namespace) -> None:
    need_program("iptables-legacy")
    need_program("iptables-nft")
    with namespace.inside():
        Interception(Settings(), "legacy").apply()
        assert not Interception(Settings()).apply()
        assert Interception(Settings()).clean()
        assert Interception(Settings()).apply()
        assert Interception(Settings()).show().startswith("# IPv4, nft\n")
