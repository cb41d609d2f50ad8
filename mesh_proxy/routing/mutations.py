"""Headers that routes, virtual hosts and route tables add and remove (Envoy: `source/common/router/header_parser.cc`).

Within one level the removals come first, then all new values are computed from what is left, then overwriting is done before
appending. The levels are applied one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mesh_codecs.headers import Headers
from mesh_proxy.config.model.common import HeaderMutationConfig, HeaderValueOptionConfig
from mesh_proxy.formatting import compile_format
from mesh_proxy.stream.info import StreamInfo

_APPEND: Final = "APPEND_IF_EXISTS_OR_ADD"
_ADD: Final = "ADD_IF_ABSENT"
_OVERWRITE: Final = "OVERWRITE_IF_EXISTS_OR_ADD"
_REPLACE: Final = "OVERWRITE_IF_EXISTS"
_ACTIONS: Final = frozenset((_APPEND, _ADD, _OVERWRITE, _REPLACE))

UNSAFE: Final = bytes(range(32)).replace(b"\t", b"") + b"\x7f"
"""what a formatted value may carry into a header only by way of metadata or certificates; it is dropped"""


def _check_name(name: str, path: str) -> bytes:
    if not name or name.startswith(":") or name == "host":
        raise ValueError(f"{path}: {name!r} may not be changed: pseudo headers and host have their own fields")
    return name.encode()


class _Addition:
    """One header to add."""

    __slots__ = ("action", "format", "keep_empty", "literal", "name")

    def __init__(self, config: HeaderValueOptionConfig, path: str) -> None:
        self.name = _check_name(config.name, path)
        if config.action not in _ACTIONS:
            raise ValueError(f"{path}: unknown append_action {config.action!r}")
        self.action = config.action
        self.keep_empty = config.keep_empty
        formatter = compile_format(config.value, path, omit_empty=True)
        self.literal = formatter.literal
        self.format: Callable[[StreamInfo], bytes] = formatter.format


class HeaderMutation:
    """One level's additions and removals, compiled."""

    __slots__ = ("_add", "_remove")

    def __init__(self, config: HeaderMutationConfig, path: str) -> None:
        self._remove = tuple(_check_name(name, f"{path}_to_remove") for name in config.remove)
        self._add = tuple(_Addition(option, f"{path}_to_add[{index}]") for index, option in enumerate(config.add))

    def apply(self, headers: Headers, info: StreamInfo) -> None:
        """Change a header block in place."""
        for name in self._remove:
            headers.remove(name)
        first = headers.first
        to_set: list[tuple[bytes, bytes]] = []
        to_add: list[tuple[bytes, bytes]] = []
        for option in self._add:
            value = option.literal
            if value is None:
                value = option.format(info)
                if not value.isascii() or not value.isalnum():
                    value = value.translate(None, UNSAFE)
            if not value and not option.keep_empty:
                continue
            action, name = option.action, option.name
            if action == _APPEND or (action == _ADD and name not in first):
                to_add.append((name, value))
            elif action == _OVERWRITE or (action == _REPLACE and name in first):
                to_set.append((name, value))
        for name, value in to_set:
            headers.set(name, value)
        for name, value in to_add:
            headers.add(name, value)


def compile_mutations(levels: list[tuple[str, HeaderMutationConfig]]) -> tuple[HeaderMutation, ...]:
    """The levels that do anything, in the order given; each with its place in the configuration for errors.

    Raises:
        ValueError: a header may not be changed, or a value's format is wrong.
    """
    return tuple(HeaderMutation(config, path) for path, config in levels if config)
