"""Which address of this host stands for it (Envoy: Network::Utility::getLocalAddress)."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Final

SIOCGIFADDR: Final = 0x8915


def local_ip(version: str) -> bytes:
    """The first address of an interface that is not loopback; the loopback address when there is none.

    `version` is `v4` or `v6`.
    """
    if version == "v6":
        return _first_v6() or b"::1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:
                continue
            address = ipaddress.IPv4Address(answer[20:24])
            if not address.is_loopback:
                return str(address).encode()
    return b"127.0.0.1"


def _first_v6() -> bytes:
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return b""
    for line in lines:
        address = ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))
        if not address.is_loopback and not address.is_link_local:
            return str(address).encode()
    return b""
