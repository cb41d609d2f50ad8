"""Envoy itself as the judge: `envoy --mode validate` must say yes and no to the same bootstraps."""

import os
import subprocess
from pathlib import Path

import pytest
from bootstraps.bad import BAD, Bad
from bootstraps.dubbo import BAD as DUBBO_BAD
from bootstraps.dubbo import GOOD as DUBBO
from bootstraps.dynamic import BAD as DYNAMIC_BAD
from bootstraps.dynamic import GOOD as DYNAMIC
from bootstraps.good import GOOD, Good
from bootstraps.tls import BAD as TLS_BAD
from bootstraps.tls import GOOD as TLS

pytestmark = pytest.mark.envoy
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def envoy() -> str:
    named = os.environ.get("MESH_PROXY_ENVOY")
    installed = ROOT / ".venv-envoy" / "bin" / "envoy"
    if named is None and not installed.exists():
        pytest.skip("Envoy is not installed: `make envoy` installs it, or MESH_PROXY_ENVOY names a binary")
    return named or str(installed)


def verdict(envoy: str, text: str, folder: Path) -> tuple[bool, str]:
    file = folder / "bootstrap.yaml"
    file.write_text(text)
    done = subprocess.run(
        [envoy, "--mode", "validate", "-c", str(file), "-l", "critical"], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("bad", [*BAD, *DUBBO_BAD, *TLS_BAD, *DYNAMIC_BAD], ids=lambda bad: bad.name)
def test_envoy_refuses_it_too(bad: Bad, envoy: str, tmp_path: Path) -> None:
    accepted, output = verdict(envoy, bad.text, tmp_path)
    assert accepted is not bad.envoy_refuses, output


@pytest.mark.parametrize("good", [*GOOD, *DUBBO, *TLS, *DYNAMIC], ids=lambda good: good.name)
def test_envoy_accepts_it_too(good: Good, envoy: str, tmp_path: Path) -> None:
    accepted, output = verdict(envoy, good.text, tmp_path)
    assert accepted is good.envoy_accepts, output
