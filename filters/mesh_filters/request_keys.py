"""What a rule of ours concerns (`when`, a condition) and what it counts by (`by`, values of the request).

    {when: "header x-user exists", by: [call, {header: x-user}], …}

`by` may name `call` (service and method of gRPC, Triple and Dubbo, the path without query of HTTP), `service`, `method` (of a
plain HTTP request its own, `GET`), `caller` (the first URI of its certificate, else its address), `cluster` (that the route
chose), or any value of `mesh_filters.values`. A value that the request does not have counts as the empty one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from mesh_filters.definition import FieldError
from mesh_filters.expression import Condition, compile_condition
from mesh_filters.fields import Fields
from mesh_filters.filter import Stream
from mesh_filters.values import Value, value_source
from mesh_filters.view import RequestView

T = TypeVar("T")
MAX_KEYS: Final = 10_000
"""states that a rule keeps, unless it says otherwise"""
_LOOKS: Final = 8
"""states that are looked at for one that may go; if none may there is one more, for requests that are under way anyway"""
_LONGEST_KEY: Final = 256
"""bytes of a value that count; what a caller sends must not fill the memory"""


def _caller(stream: Stream) -> bytes:
    view = RequestView(stream)
    identities = view.source_identities
    return identities[0].encode() if identities else view.source_ip


_WORDS: Final[dict[str, Value]] = {
    "call": lambda stream: stream.request.path.partition(b"?")[0],
    "service": lambda stream: RequestView(stream).service,
    "method": lambda stream: RequestView(stream).method,
    "caller": _caller,
    "cluster": lambda stream: stream.target_cluster().encode(),
}


def check_keys(fields: Fields) -> tuple[str | dict[str, Any], ...]:
    """The `by` of a rule, as it is kept in its configuration.

    Raises:
        FieldError: it is none.
    """
    given = fields.values.get("by", [])
    entries = given if isinstance(given, (list, tuple)) else [given]
    for i, one in enumerate(entries):
        path = f"{fields.at('by')}[{i}]"
        if isinstance(one, str):
            if one not in _WORDS:
                raise FieldError(path, f"must be one of {', '.join(_WORDS)}, or a mapping such as {{header: x-user}}")
        elif isinstance(one, dict):
            value_source(one, path)
        else:
            raise FieldError(path, "must be a word or a mapping")
    return tuple(entries)


def check_condition(fields: Fields) -> str:
    """The `when` of a rule; empty: every request."""
    text = fields.text("when")
    if text:
        compile_condition(text, fields.at("when"))
    return text


def condition_of(text: str) -> Condition | None:
    """The compiled form of a condition that was checked."""
    return compile_condition(text, "when") if text else None


def key_of(by: tuple[str | dict[str, Any], ...]) -> Callable[[Stream], bytes]:
    """A function from a request to what its rule counts by."""
    sources = [_WORDS[one] if isinstance(one, str) else value_source(one, "by") for one in by]
    if not sources:
        return lambda stream: b""
    if len(sources) == 1:
        only = sources[0]
        return lambda stream: (only(stream) or b"")[:_LONGEST_KEY]
    return lambda stream: b"\0".join([(source(stream) or b"")[:_LONGEST_KEY] for source in sources])


class Keyed(Generic[T]):
    """States by key, bounded: the one that was not used for the longest time goes, if it may."""

    __slots__ = ("_make", "_may_go", "_most", "_states")

    def __init__(self, make: Callable[[bytes], T], most: int = MAX_KEYS, may_go: Callable[[T], bool] | None = None) -> None:
        self._make = make
        self._most = most
        self._may_go = may_go
        self._states: OrderedDict[bytes, T] = OrderedDict()

    def of(self, key: bytes) -> T:
        """The state of a key."""
        states = self._states
        state = states.get(key)
        if state is not None:
            states.move_to_end(key)
            return state
        if len(states) >= self._most:
            self._make_room()
        made = states[key] = self._make(key)
        return made

    def _make_room(self) -> None:
        states, may_go = self._states, self._may_go
        for _ in range(_LOOKS):
            oldest = next(iter(states))
            if may_go is None or may_go(states[oldest]):
                del states[oldest]
                return
            states.move_to_end(oldest)  # still in use: looked at again when its turn comes

    def __len__(self) -> int:
        return len(self._states)
