"""Where a label comes from (`sources` of `traffic_label`): what is said of a request, and whether it holds for others like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FieldError, FilterContext
from mesh_filters.expression import compile_condition, condition_reads
from mesh_filters.filter import Stream
from mesh_filters.label_traces import Traces
from mesh_filters.values import Reads, Value, reads, value_source

Fact = Callable[[Stream], bool]


def kind_of(source: Mapping[str, Any]) -> str:
    """`header`, `trace`, `constant`, …"""
    return next((key for key in source if key not in ("value", "hash", "salt")), "")


def check_source(source: Any, path: str) -> None:
    """Raises FieldError unless it can be compiled."""
    if not isinstance(source, Mapping):
        raise FieldError(path, "must be a mapping")
    kind = kind_of(source)
    allowed = {"expression": {"value"}, "percentage": {"value", "hash", "salt"}}.get(kind, set())
    if unknown := set(source) - {kind} - allowed:
        raise FieldError(f"{path}.{min(unknown)}", "unknown field")
    if kind in ("expression", "percentage") and not source.get("value"):
        raise FieldError(f"{path}.value", "is required")
    if kind == "expression":
        compile_condition(str(source["expression"]), f"{path}.expression")
    elif kind == "percentage":
        share = source["percentage"]
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 100:
            raise FieldError(f"{path}.percentage", "must be between 0 and 100")
        if "hash" in source:
            value_source(source["hash"], f"{path}.hash")
    elif kind not in ("trace", "constant", "own_label"):
        value_source(source, path)


def label_source(config: Mapping[str, Any], path: str, key: bytes, context: FilterContext, traces: Traces) -> Value:
    """Compile one source of the label `key`."""
    kind = kind_of(config)
    if kind == "trace":
        return lambda stream: traces.restore(stream, key)
    if kind == "constant":
        constant = str(config["constant"]).encode()
        return lambda stream: constant
    if kind == "own_label":
        labels = context.node_metadata.get("LABELS")
        own = labels.get(config["own_label"]) if isinstance(labels, Mapping) else context.node_metadata.get(config["own_label"])
        found = None if own is None else str(own).encode()
        return lambda stream: found
    if kind == "expression":
        value = str(config["value"]).encode()
        condition = compile_condition(str(config["expression"]), f"{path}.expression")
        return lambda stream: value if condition(stream) else None
    if kind == "percentage":
        return _share(config, path, context.random)
    return value_source(config, path)


def _share(config: Mapping[str, Any], path: str, random: Callable[[], float]) -> Value:
    """A share of the users: who is in it stays in it, also when the share grows."""
    limit = float(config["percentage"]) * 100
    value = str(config["value"]).encode()
    salt = str(config.get("salt", "")).encode()
    if "hash" not in config:
        return lambda stream: value if random() * 10_000 < limit else None
    source = value_source(config["hash"], f"{path}.hash")

    def find(stream: Stream) -> bytes | None:
        user = source(stream)
        if user is None:
            return None
        bucket = int.from_bytes(blake2b(salt + user, digest_size=8).digest(), "big") % 10_000
        return value if bucket < limit else None

    return find


def label_fact(
    config: Mapping[str, Any], find: Value, key: bytes, traces: Traces
) -> Callable[[RequestHeaders, bytes | None], Fact | None] | None:
    """Makes a test that a source still says the same of a request with an equal head; None = it must."""
    kind = kind_of(config)
    if kind == "trace":

        def recalls(event: RequestHeaders, value: bytes | None) -> Fact:
            ids = traces.ids(event)
            return lambda stream: traces.recall(stream, key, ids) == value

        return recalls
    if kind in ("constant", "own_label"):
        what = Reads.HEAD
    elif kind == "expression":
        what = condition_reads(str(config["expression"]))
    elif kind == "percentage":
        what = reads(config["hash"]) if "hash" in config else Reads.BOTH
    else:
        what = reads(config)
    if what is Reads.HEAD:
        return None
    if what is Reads.REST:
        return lambda event, value: lambda stream: (find(stream) or None) == value
    return lambda event, value: None
