"""What `h2specd` starts for each of its cases: one request through the proxy to the address that the case names.

    python h2specd_call.py PROXY_PORT http://127.0.0.1:PORT/

The proxy sends it to the address in `x-envoy-original-dst-host`. Each case then judges what it sees on its own connection; this
one reads the proxy's answer, or waits as long as there is none.
"""

from __future__ import annotations

import socket
import sys
from urllib.parse import urlsplit

WAIT_S = 12.0
"""longer than h2specd waits for what a case expects"""


def call(proxy_port: int, url: str) -> None:
    address = urlsplit(url).netloc
    request = f"GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nx-envoy-original-dst-host: {address}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", proxy_port), timeout=WAIT_S) as connection:
        connection.sendall(request)
        try:
            while connection.recv(65536):
                pass
        except TimeoutError:
            pass


if __name__ == "__main__":
    call(int(sys.argv[1]), sys.argv[2])
