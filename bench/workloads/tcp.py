"""Bytes that the proxy does not look at."""

from __future__ import annotations

from workloads import configuration as c
from workloads.http1 import Large


class TcpBulk(Large):
    """Responses of 1 MiB through the TCP proxy; a unit is a GB."""

    name = "tcp-bulk"
    rivals = ()

    def configuration(self, program: str, port: int, admin: int) -> str:
        return c.bootstrap(port, admin, c.tcp_proxy(), [c.cluster("upstream", c.endpoint(self.upstream))])
