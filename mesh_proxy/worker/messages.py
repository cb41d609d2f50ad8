"""What supervisor and worker say to each other over their socket pair.

Each message is one pickled dataclass. Both ends are processes that we forked, on a socket pair that nobody else can open, so
pickle is safe here; it must not be used on any socket with a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh_proxy.config.model.bootstrap import WorkerSnapshot
from mesh_proxy.explain.question import Question
from mesh_proxy.listener.mover import MovingState
from mesh_proxy.worker.interface import SocketKey

# From the supervisor.


@dataclass(frozen=True, slots=True)
class Sockets:
    """Listening sockets, one file descriptor per key; they belong to the next Apply."""

    keys: tuple[SocketKey, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Make this version live; answered by Applied or Rejected."""

    snapshot: WorkerSnapshot


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Ask peers to go away; see DataPlaneApi.start_drain."""

    inbound_only: bool = False
    graceful: bool = True


@dataclass(frozen=True, slots=True)
class StopListening:
    """See DataPlaneApi.stop_listening."""

    inbound_only: bool = False


@dataclass(frozen=True, slots=True)
class DrainAndExit:
    """Stop accepting, drain, exit with code 0; connections that are left at the deadline are cut."""

    deadline_s: float


@dataclass(frozen=True, slots=True)
class ShareSockets:
    """See DataPlaneApi.share_sockets."""

    shared: bool


@dataclass(frozen=True, slots=True)
class HandOver:
    """See DataPlaneApi.hand_over. Answered by HandedOver when no connection is left, or when the deadline has cut the rest."""

    passed: frozenset[tuple[str, str]]
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The new process has taken an Offer, or not."""

    number: int
    adopted: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Go on with a connection of the process before us; with its descriptor. Answered by Adopted."""

    number: int
    listener: str
    moved: MovingState


@dataclass(frozen=True, slots=True)
class Late:
    """Bytes that are owed to the caller of a connection that has moved; none at the end. From the old worker, to the new one."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class NothingOwed:
    """The process before us is gone: nothing more will come for connections that were adopted."""


@dataclass(frozen=True, slots=True)
class Resume:
    """See DataPlaneApi.resume."""


@dataclass(frozen=True, slots=True)
class Intercepted:
    """How many connections were redirected to us; answered by InterceptedCount with the same id."""

    request_id: int
    action: str = ""
    """`drain`: ask them to leave; `cut`: end them; empty: only count"""


@dataclass(frozen=True, slots=True)
class Exit:
    """Exit at once."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? Answered by Pong."""

    sequence: int


@dataclass(frozen=True, slots=True)
class SetHealthCheck:
    """`/healthcheck/fail` and `/healthcheck/ok`."""

    failed: bool


@dataclass(frozen=True, slots=True)
class ReopenLogs:
    """Close and open again every log file."""


@dataclass(frozen=True, slots=True)
class UseTraces:
    """See DataPlaneApi.use_traces; with the descriptor."""


@dataclass(frozen=True, slots=True)
class SetLogLevels:
    """New level by component."""

    levels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DescribeClusters:
    """Answered by Clusters with the same id."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Explain:
    """See DataPlaneApi.explain. Answered by Explained with the same id."""

    request_id: int
    question: Question


@dataclass(frozen=True, slots=True)
class Sync:
    """Everything before it has been acted on; answered by Done with the same id."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Write all counts into the page now if they are few; answered by Done with the same id."""

    request_id: int


@dataclass(frozen=True, slots=True)
class ResetCounters:
    """Set every counter to zero."""


@dataclass(frozen=True, slots=True)
class FreeRegions:
    """The supervisor has taken over the last values of these regions: the worker may use the space again."""

    offsets: tuple[int, ...]


# From the worker.


@dataclass(frozen=True, slots=True)
class Applied:
    """This version is live."""

    version: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """This version cannot be served; the one before it still is."""

    version: int
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class ListeningStopped:
    """The data plane has given up its listening sockets (the inbound ones, if that was asked)."""

    inbound_only: bool


@dataclass(frozen=True, slots=True)
class HandedOver:
    """No connection is left here, or the deadline has come."""

    moved: int
    """connections that the new process took"""
    drained: int
    """connections that ended by themselves meanwhile"""
    cut: int
    """connections that are still there"""


@dataclass(frozen=True, slots=True)
class Offer:
    """A connection that may go to the new process; with its descriptor. Answered by Settled."""

    number: int
    listener: str
    moved: MovingState


@dataclass(frozen=True, slots=True)
class Adopted:
    """The answer to Adopt."""

    number: int
    adopted: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Pong:
    """The worker's loop turns."""

    sequence: int
    active_connections: int


@dataclass(frozen=True, slots=True)
class Clusters:
    """DataPlaneApi.describe_clusters of this worker."""

    request_id: int
    clusters: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer to Explain."""

    request_id: int
    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InterceptedCount:
    """Redirected connections of this worker, before anything was done to them."""

    request_id: int
    connections: int


@dataclass(frozen=True, slots=True)
class Done:
    """The question with this id is dealt with."""

    request_id: int


@dataclass(frozen=True, slots=True)
class GroupShape:
    """The class tables of a StatGroup, sent once per class, so that the supervisor need not import the class."""

    shape_id: int
    name: str
    """class name, e.g. `ClusterStats`"""
    counters: tuple[str, ...]
    gauges: tuple[str, ...]
    histograms: tuple[str, ...]
    shared: tuple[int, ...]
    """indices into counters + gauges of those that are the same in every worker"""
    codes: str
    code_detail: bool
    code_tables: tuple[str, ...]
    """attributes that are dicts from response code to count: `codes`, `retry_codes`"""


@dataclass(frozen=True, slots=True)
class Region:
    """Where a group's values stand in the page. A second Region for the same group replaces the first."""

    shape_id: int
    prefix: str
    offset: int
    code_slots: int
    """room for this many (code, count) pairs in each code table"""


@dataclass(frozen=True, slots=True)
class Layout:
    """What changed in the page since the last Layout. Values are in the page before this is sent."""

    shapes: tuple[GroupShape, ...] = ()
    regions: tuple[Region, ...] = ()
    removed: tuple[int, ...] = ()
    """offsets of regions whose group is gone; answered by FreeRegions"""
