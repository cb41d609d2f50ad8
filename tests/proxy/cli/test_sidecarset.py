"""OpenKruise's table of versions."""

from __future__ import annotations

import http.server
import json
import threading
from pathlib import Path

import pytest

from mesh_proxy.cli import migrate
from mesh_proxy.cli.main import main
from mesh_proxy.cli.sidecarset import Role, role_of


@pytest.mark.parametrize(
    ("version", "other", "role"),
    [
        (None, None, Role.UNTOLD),
        ("7", "0", Role.ALONE),
        ("7", "", Role.ALONE),
        ("7", None, Role.ALONE),
        ("8", "7", Role.NEWER),
        ("7", "8", Role.OLDER),
        ("7", "7", Role.OLDER),
        ("0", "7", Role.EMPTY),
        ("", "7", Role.EMPTY),
    ],
)
def test_roles(version: str | None, other: str | None, role: Role) -> None:
    pairs = {"SIDECARSET_VERSION": version, "SIDECARSET_VERSION_ALT": other}
    assert role_of({name: value for name, value in pairs.items() if value is not None}) is role
    assert role.idle == (role in (Role.OLDER, Role.EMPTY))


def test_versions_that_are_no_numbers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SIDECARSET_VERSION", "seven")
    for command in (["-c", "x"], ["migrate"]):
        assert main(command) == 1
        assert "SIDECARSET_VERSION" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("info", "code", "said"),
    [
        ({"sidecarset_version": "2", "state": "LIVE", "predecessor_connections": None}, 0, "version 2 serves alone"),
        ({"sidecarset_version": "2", "state": "LIVE", "predecessor_connections": 3}, 0, "3 connections are left in the old"),
        ({"sidecarset_version": "2", "state": "INITIALIZING", "predecessor_connections": None}, 1, "it is INITIALIZING"),
        ({"sidecarset_version": "1", "state": "LIVE", "predecessor_connections": None}, 1, "version 1 still serves, not 2"),
        ({"state": "LIVE"}, 1, "version ? still serves, not 2"),
        ([], 1, "it does not answer"),
        (None, 1, "it does not answer"),
    ],
)
def test_what_the_hook_makes_of_the_answer(
    info: object, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(migrate, "POLL_S", 0.001)
    monkeypatch.setenv("SIDECARSET_VERSION", "2")
    monkeypatch.setenv("SIDECARSET_VERSION_ALT", "1")

    class Admin(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(info).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = tmp_path / "admin"
        if info is not None:
            address.write_text(f"127.0.0.1:{server.server_port}\n")
        try:
            assert main(["migrate", "--admin-address-path", str(address), "--timeout", "0.05"]) == code
        finally:
            server.shutdown()
            thread.join()
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
