"""nginx as a peer, and programs that may be missing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from parity.proxy import free_port
from peer_programs import program

from e2e_support.peers import connect
from e2e_support.sidecar import until

LARGE = os.urandom(5 << 20)
"""what every nginx serves as /large"""

NGINX = """
daemon off;
master_process off;
pid {dir}/pid;
error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 100000;
  client_max_body_size 100m;
  {servers}
}}
"""


class Nginx:
    """One nginx process with one server."""

    def __init__(self, directory: Path, server: str, **values: object) -> None:
        directory.mkdir()
        self.dir = directory
        self.port = free_port()
        (directory / "large").write_bytes(LARGE)
        text = server.format(dir=directory, port=self.port, **values)
        (directory / "nginx.conf").write_text(NGINX.format(dir=directory, servers=text))
        command = [
            program("nginx"),
            "-p",
            str(directory),
            "-c",
            str(directory / "nginx.conf"),
            "-e",
            str(directory / "error.log"),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until("nginx listens", self.listens)

    def listens(self) -> bool:
        assert self.process.poll() is None, (self.dir / "error.log").read_text()
        with contextlib.suppress(OSError), connect(self.port):
            return True
        return False

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
