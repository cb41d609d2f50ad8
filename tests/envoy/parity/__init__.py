"""Side by side with Envoy: the same configuration and the same traffic into both, the same answers out of both."""

from .case import Case, Client, Observation, Pair, Suite, req, under_test
from .config import bootstrap, cluster, file_log, hcm, http, http2_cluster, listener, tcp_proxy
from .patience import LATE, taken
from .proxy import Side, StartError, envoy_binary
from .upstream import Received, Reply
from .wire import Response

__all__ = [
    "LATE",
    "Case",
    "Client",
    "Observation",
    "Pair",
    "Received",
    "Reply",
    "Response",
    "Side",
    "StartError",
    "Suite",
    "bootstrap",
    "cluster",
    "envoy_binary",
    "file_log",
    "hcm",
    "http",
    "http2_cluster",
    "listener",
    "req",
    "taken",
    "tcp_proxy",
    "under_test",
]
