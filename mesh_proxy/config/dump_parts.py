"""Dumps that are put together when somebody asks: the bootstrap from its listeners and clusters, twins from a pattern."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message

from mesh_proxy.config.digest import canonical, digest, values_of
from mesh_proxy.config.dump import shown
from mesh_proxy.config.resource import BootstrapDump, DumpPattern, ResourceDump, Text, TwinDump

_MARK: Final = secrets.token_hex(16)
"""stands in no configuration"""
_GAP: Final = re.compile(rf'"{_MARK}(\d+)"')
"""what `_gap` is in JSON"""


def bootstrap_dump(
    frame: Message, listeners: Sequence[ResourceDump | TwinDump], clusters: Sequence[ResourceDump | TwinDump]
) -> BootstrapDump:
    """`frame` is the bootstrap without its static listeners and clusters."""
    values = shown(frame)
    lists = [("listeners", tuple(listeners)), ("clusters", tuple(clusters))]
    present = [(name, inner) for name, inner in lists if inner]
    if present:
        gaps = {name: _gap(i) for i, (name, _) in enumerate(present)}
        values["static_resources"] = gaps | values.get("static_resources", {})
    text = _text(json.dumps(values, separators=(",", ":")), len(present))
    return BootstrapDump(
        type_url=f"type.googleapis.com/{frame.DESCRIPTOR.full_name}",
        digest=digest(frame, ""),
        frame=text.parts,
        lists=tuple(present[i][1] for i in text.order),
    )


def dump_pattern(message: Message) -> DumpPattern:
    """What the dumps of a cluster's twins have in common with its own."""
    kind = message.DESCRIPTOR.full_name
    for_people, for_digests = shown(message), values_of(message, "")
    count = _open_gaps(for_people)
    _open_gaps(for_digests)
    return DumpPattern(
        type_url=f"type.googleapis.com/{kind}",
        shown=_text(json.dumps(for_people, separators=(",", ":")), count),
        digested=_text(canonical(kind, for_digests), count),
    )


def _gap(place: int) -> str:
    return f"{_MARK}{place}"


def _open_gaps(cluster: dict[str, Any]) -> int:
    """Put gaps where twins differ, in the order of their values (`mesh_proxy.config.model.twin`); how many."""
    cluster["name"] = _gap(0)
    count = 1
    assignment = cluster.get("load_assignment")
    if assignment is None:
        return count
    assignment["cluster_name"] = _gap(1)
    count = 2
    for locality in assignment.get("endpoints", ()):
        for one in locality.get("lb_endpoints", ()):
            address = one["endpoint"]["address"]["socket_address"]
            address["address"], address["port_value"] = _gap(count), _gap(count + 1)
            count += 2
    return count


def _text(text: str, count: int) -> Text:
    parts = _GAP.split(text)
    assert len(parts) == 2 * count + 1, parts
    return Text(parts=tuple(parts[::2]), order=tuple(int(place) for place in parts[1::2]))
