"""The newcomer's run of docker/compose, on a machine that gets no images: its services run as the file says, and its commands
do what docs/container.md promises."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from e2e_support.composed import ROOT, Composed
from netns_support import need_program

pytestmark = pytest.mark.slow
COMPOSE = ROOT / "docker" / "compose" / "compose.yaml"
RUN = re.compile(r"## A newcomer's run\n\n```\n(.*?)```", re.DOTALL)


def commands() -> list[list[str]]:
    """Those that the page tells a newcomer to type."""
    found = RUN.search((ROOT / "docs" / "container.md").read_text())
    assert found is not None
    return [shlex.split(line.partition("#")[0]) for line in found[1].splitlines()]


def test_the_commands_name_what_is_there() -> None:
    composed = [words for words in commands() if words[0] == "docker"]
    assert len(composed) >= 2
    assert {words[words.index("-f") + 1] for words in composed} == {str(COMPOSE.relative_to(ROOT))}
    verbs = {words[4] for words in composed}
    assert verbs == {"up", "logs"}
    header = "\n".join(line for line in COMPOSE.read_text().splitlines() if line.startswith("#"))
    assert all(shlex.join(words) in header for words in composed if words[4] == "up")


def test_a_newcomers_run(tmp_path: Path) -> None:
    need_program("curl")
    one = Composed(COMPOSE, tmp_path)
    try:
        assert one.foreign == {"prometheus", "grafana"}
        sidecar = one.addresses["sidecar"]

        def curl(words: list[str]) -> str:
            asked = [word.replace("127.0.0.1", sidecar) for word in words[1:]]
            return one.outside.run("curl", "--silent", "--show-error", "--max-time", "20", *asked, check=False)

        plain, chosen = [words for words in commands() if words[0] == "curl"]
        one.until("answers", lambda: "v1" in curl(plain) or "v2" in curl(plain))
        assert all("v2" in curl(chosen) for _ in range(5))
        seen = {curl(plain).split()[-1] for _ in range(30)}
        assert {"v1", "v2"} >= seen >= {"v1"}, seen
        # `logs -f application application-sidecar`
        (logs,) = [words for words in commands() if "logs" in words]
        assert logs[-2:] == ["application", "application-sidecar"]
        one.until("the application's calls are answered", lambda: "v1" in one.log("application"))
        one.until("they pass its sidecar", lambda: "GET /intercepted" in one.log("application-sidecar"))
        # What Prometheus would read, at the addresses that it is told.
        for name in ("sidecar", "application"):
            metrics = one.outside.run(
                "curl", "--silent", "--max-time", "20", f"http://{one.addresses[name]}:15020/stats/prometheus"
            )
            assert "envoy_listener_downstream_cx_total" in metrics, name
    except AssertionError:
        print({name: one.log(name)[-2000:] for name in one.processes})
        raise
    finally:
        one.close()
