"""The name under which processes meet: found, taken, left behind by the dead, never stolen."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mesh_hotrestart import RendezvousError, connect, listen, path_inode, socket_name, unlink


@pytest.fixture(params=["path", "abstract"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "meet") if request.param == "path" else f"@mesh-test-{os.getpid()}-{tmp_path.name}"


def test_names_are_envoys_path_and_base_id() -> None:
    assert socket_name("@envoy_domain_socket", 0) == "@envoy_domain_socket_0"
    assert socket_name("/run/mesh", 7) == "/run/mesh_7"


def test_found_only_while_somebody_listens(name: str) -> None:
    assert connect(name) is None
    with listen(name, 0o600) as serving:
        found = connect(name)
        assert found is not None
        found.close()
        with pytest.raises(RendezvousError, match=r"Address already in use \(another mesh-proxy\? see --base-id\)"):
            listen(name, 0o600)
        assert serving.fileno() >= 0
    assert connect(name) is None
    listen(name, 0o600).close()


def test_a_path_has_its_mode_and_goes_with_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "meet"
    with listen(str(path), 0o640):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        inode = path_inode(str(path))
        assert inode == path.stat().st_ino
        unlink(str(path), 0)
        unlink(str(path), inode + 1)
        assert path.exists(), "somebody else's"
        unlink(str(path), inode)
        assert not path.exists()
    unlink(str(path), inode)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(RendezvousError):
        listen(str(path), 0o600)
    assert path.read_text() == "precious"
    assert connect(str(path)) is None


def test_a_name_that_is_bound_and_does_not_listen_is_not_taken(tmp_path: Path) -> None:
    name = f"@mesh-test-{os.getpid()}-bound"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("\0" + name[1:])
        assert connect(name) is None
        with pytest.raises(RendezvousError):
            listen(name, 0o600)


def test_a_directory_that_does_not_exist() -> None:
    with pytest.raises(RendezvousError, match="cannot listen on /nonexistent/meet"):
        listen("/nonexistent/meet", 0o600)
    assert path_inode("@abstract") == 0
