"""How many pools an endpoint may have for callers in whose name it is called (`original_src`).

Connections of different callers are never shared, so each caller's address has a pool of its own. It goes with its last
connection; when there are too many, one that nothing is in progress on has to go earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mesh_proxy.context import WorkerContext
    from mesh_proxy.upstream.endpoint import Endpoint

MAX_SOURCES: Final = 1024
"""pools for callers' addresses of one endpoint and worker: about 2 KB each, and a descriptor for each connection"""


def make_room(context: WorkerContext, endpoint: Endpoint, limit: int = MAX_SOURCES) -> bool:
    """See to it that the endpoint may have one pool more; False when it may not."""
    if len(endpoint.pools) < limit and context.descriptors(1.0):
        return True
    own = [pool for pool in endpoint.pools.values() if pool.source is not None]
    unused = next((pool for pool in own if pool.unused), None)
    if unused is not None:
        unused.dismiss()
        return True
    return len(own) < limit
