"""What is taken off a Host before routing (`strip_matching_host_port`, `strip_any_host_port`, `strip_trailing_host_dot`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_proxy.config.model import HttpManagerConfig

_PORT: Final = re.compile(rb":([0-9]{1,5})\Z")


def host_normalizer(config: HttpManagerConfig) -> Callable[[bytes, int], bytes] | None:
    """A function of the Host and the listener's port, or None when nothing is to be stripped."""
    dot, any_port, own_port = config.strip_trailing_host_dot, config.strip_any_host_port, config.strip_matching_host_port
    if not (dot or any_port or own_port):
        return None

    def normalize(host: bytes, local_port: int) -> bytes:
        match = _PORT.search(host)
        port = b"" if match is None else match.group()
        name = host[: len(host) - len(port)]
        if dot and name.endswith(b"."):
            name = name[:-1]
        if port and (any_port or (own_port and int(port[1:]) == local_port)):
            port = b""
        return name + port

    return normalize
