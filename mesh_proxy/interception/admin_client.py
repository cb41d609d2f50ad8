"""One request to an admin interface, by TCP or by a unix socket."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Final

DEFAULT_ADMIN: Final = "127.0.0.1:15000"


class AdminError(RuntimeError):
    """It does not answer."""


def ask(admin: str, method: str, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """(status, body). `admin` is `HOST:PORT`, a path or `@NAME`. Raises AdminError."""
    try:
        connection: http.client.HTTPConnection
        if admin.startswith(("/", "@")):
            connection = _UnixConnection(admin, timeout_s)
        else:
            host, _, port = admin.rpartition(":")
            connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout_s)
        try:
            connection.request(method, path, headers={"host": "localhost", "content-length": "0"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AdminError(f"{admin}: {error or type(error).__name__}") from None


def address(admin: str, path: str) -> str:
    """The one given, else what a file says (`--admin-address-path`), else the usual one. Raises AdminError."""
    if admin or not path:
        return admin or DEFAULT_ADMIN
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise AdminError(f"{path}: {error.strerror}") from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("\0" + self._path[1:] if self._path.startswith("@") else self._path)
