"""`mesh-proxy inspect` on running sidecars."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from e2e_support.dynamic import Files, cluster, free_port, listener, running, table

pytestmark = pytest.mark.slow


def inspect(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mesh_proxy", "inspect", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_sidecars_that_agree_and_one_that_does_not(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    listeners = [listener(f"in{i}", port, routes=table(str(i))) for i, port in enumerate(ports)]
    clusters = [cluster("a", 1), cluster("b", 2)]
    first, second = Files(tmp_path / "1"), Files(tmp_path / "2")
    first.move("lds", listeners, "1")
    first.move("cds", clusters, "1")
    second.move("lds", [], "other")
    second.move("cds", clusters[::-1], "other")
    with (
        running("mesh-proxy", tmp_path / "p1", first.bootstrap(), concurrency=1) as one,
        running("mesh-proxy", tmp_path / "p2", second.bootstrap(), concurrency=1) as two,
    ):
        one.wait_ready()
        two.wait_ready()
        addresses = [one.admin_address, two.admin_address]
        code, text = inspect(*addresses)
        assert code == 1, text
        assert "1 of 2 sidecars agree" in text
        assert "Listener in0" in text
        # The same resources: of the bootstrap's kind here, in another order there.
        first.move("lds", [], "2")
        one.wait("listener_manager.lds.update_success", 2)
        code, text = inspect(*addresses)
        assert code == 0, text
        assert "2 of 2 sidecars agree" in text
        expected = tmp_path / "expected.json"
        expected.write_bytes(one.ask("/config_digest")[1])
        assert inspect(*addresses, "--expect", str(expected))[0] == 0
        second.move("cds", [cluster("a", 1), cluster("b", 2, connect_timeout="2s")], "3")
        two.wait("cluster_manager.cluster_modified", 1)
        code, text = inspect(*addresses, "--expect", str(expected), "--json")
        report: Any = json.loads(text)
        assert code == 1
        assert [one["verdict"] for one in report["sidecars"]] == ["agrees", "differs"]
        (difference,) = report["sidecars"][1]["differences"]
        assert difference.startswith("has another Cluster b (")
        nobody = f"127.0.0.1:{free_port()}"
        (tmp_path / "fleet").write_text(f"{addresses[0]}\n# none\n{nobody}  # gone\n")
        code, text = inspect("--from", str(tmp_path / "fleet"))
        assert code == 1
        assert f"{nobody}" in text
        assert "unreachable" in text
        code, text = inspect(*addresses, "--sample", "1", "--seed", "1")
        assert code == 0
        assert "1 of 1 of 2 sidecars agree" in text
        assert inspect()[0] == 2
        assert inspect(*addresses, "--expect", str(tmp_path / "fleet"))[0] == 2
