"""Real process trees under traffic: the sidecar to start, configurations for it, load on it, upstreams that misbehave."""

from .config import at, forward, http_listener, one_listener, static_cluster, tcp_listener
from .load import Load, Outcome
from .peers import Peer, drain, head_of, read_answer, receive_until
from .sidecar import Sidecar, until

__all__ = [
    "Load",
    "Outcome",
    "Peer",
    "Sidecar",
    "at",
    "drain",
    "forward",
    "head_of",
    "http_listener",
    "one_listener",
    "read_answer",
    "receive_until",
    "static_cluster",
    "tcp_listener",
    "until",
]
