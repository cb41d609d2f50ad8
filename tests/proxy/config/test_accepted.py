"""What is accepted, and to which field of the dataclasses each proto field goes."""

from typing import Any

import pytest
from bootstraps import everything_on
from bootstraps.dubbo import GOOD as DUBBO
from bootstraps.dubbo import OURS as DUBBO_OURS
from bootstraps.dynamic import GOOD as DYNAMIC
from bootstraps.good import GOOD, ISTIO, Good
from bootstraps.tls import GOOD as TLS

from mesh_proxy.config.loader import load_bootstrap


def at(config: Any, place: str) -> Any:
    for step in place.split("."):
        config = config[int(step)] if step.isdigit() else getattr(config, step)
    return config


@pytest.mark.parametrize("good", [*GOOD, *DUBBO, *DUBBO_OURS, *TLS, *DYNAMIC, *ISTIO], ids=lambda good: good.name)
def test_fields_arrive(good: Good, monkeypatch: pytest.MonkeyPatch) -> None:
    everything_on(monkeypatch)
    config = load_bootstrap(None, good.text)
    assert {place: at(config, place) for place in good.expect} == dict(good.expect)
    assert tuple(path for path, text in config.warnings if not text.startswith("given twice")) == good.warnings


def test_a_key_given_twice_is_warned_of() -> None:
    config = load_bootstrap(None, "static_resources: {clusters: [{name: a, name: b}]}")
    assert config.clusters[0].name == "b"
    assert config.warnings == (("clusters[0].name", "given twice, the last one (line 1) wins"),)
