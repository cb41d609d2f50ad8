"""JSON log lines: a tree whose leaves are format strings (Envoy: `source/common/formatter/substitution_formatter.cc`).

A leaf that is one operator keeps the operator's type, so that numbers stay numbers and what is missing becomes null; a leaf of
several pieces is a string. The line is a template with the leaves' places left open, compiled once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any, Final

from mesh_proxy.formatting.line import Formatter, Part
from mesh_proxy.formatting.operator import EACH, SAME, UNKNOWN, Operator, Value, string_operator
from mesh_proxy.formatting.parser import parse
from mesh_proxy.stream.info import StreamInfo

_MISSING: Final = object()


class SparseJson:
    """A JSON format without the keys whose values are missing: the object is put together for each line."""

    __slots__ = ("_root", "answerable")

    clock: None = None
    plannable = False

    def __init__(self, root: Value, *, answerable: bool) -> None:
        self._root = root
        self.answerable = answerable
        """see `Formatter`"""

    def format(self, info: StreamInfo) -> bytes:
        """The line of one stream."""
        value = self._root(info)
        return json.dumps({} if value is _MISSING else value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def compile_json(
    json_format: Mapping[str, Any], *, sort: bool = True, omit_empty: bool = False, path: str = ""
) -> Formatter | SparseJson:
    """Compile a JSON format; the lines end in a newline.

    Args:
        json_format: nested; leaves are format strings, numbers, booleans or null.
        sort: keys in alphabetical order, not in the given one.
        omit_empty: leave out keys whose value is missing; an operator among other text leaves nothing instead of `-`.
        path: where the format stands in the configuration, for the error's text.

    Raises:
        ValueError: a format is wrong or a leaf has another type.
    """
    pieces: list[str | Operator] = []
    _flatten(json_format, sort, path, pieces)
    if omit_empty:
        answerable = all([isinstance(piece, str) or piece.place != UNKNOWN for piece in pieces])
        return SparseJson(_dynamic_node(json_format, sort, path), answerable=answerable)
    parts: list[bytes | Part] = []
    literal = ""
    for piece in [*pieces, "\n"]:
        if isinstance(piece, str):
            literal += piece
        else:
            parts += [literal.encode("utf-8", "replace"), Part(piece, True)]
            literal = ""
    return Formatter([*parts, literal.encode("utf-8", "replace")])


def _leaf(text: str, path: str, omit_empty: bool) -> Operator | str:
    """A leaf's operator, or its text when that never changes."""
    pieces = parse(text, path)
    if len(pieces) == 1 and isinstance(pieces[0], Operator):
        return pieces[0]
    formatter = Formatter(
        [piece if isinstance(piece, bytes) else Part(piece, False) for piece in pieces], b"" if omit_empty else b"-"
    )
    if formatter.literal is not None:
        return formatter.literal.decode()
    if not formatter.answerable:
        return string_operator(formatter.format)
    same = all(isinstance(piece, bytes) or piece.place == SAME for piece in pieces)
    return string_operator(formatter.format, None, SAME if same else EACH)


def _items(node: Mapping[str, Any], sort: bool) -> list[tuple[str, Any]]:
    return sorted(node.items()) if sort else list(node.items())


def _flatten(node: Any, sort: bool, path: str, pieces: list[str | Operator]) -> None:
    """Append a node: its text, and its leaves."""
    if isinstance(node, Mapping):
        for index, (key, child) in enumerate(_items(node, sort)):
            pieces.append(("," if index else "{") + encode_basestring(key) + ":")
            _flatten(child, sort, f"{path}.{key}", pieces)
        pieces.append("}" if node else "{}")
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            pieces.append("," if index else "[")
            _flatten(child, sort, f"{path}[{index}]", pieces)
        pieces.append("]" if node else "[]")
    elif isinstance(node, str):
        leaf = _leaf(node, path, False)
        pieces.append(encode_basestring(leaf) if isinstance(leaf, str) else leaf)
    elif node is None or isinstance(node, (bool, int, float)):
        pieces.append(json.dumps(int(node) if isinstance(node, float) and node.is_integer() else node))
    else:
        raise ValueError(f"{path}: {type(node).__name__} cannot stand in a JSON format")


def _dynamic_node(node: Any, sort: bool, path: str) -> Callable[[StreamInfo], Any]:
    """A function that builds the node's value, `_MISSING` when it has none."""
    if isinstance(node, Mapping):
        children = [(key, _dynamic_node(child, sort, f"{path}.{key}")) for key, child in _items(node, sort)]

        def build(info: StreamInfo) -> Any:
            return {key: value for key, child in children if (value := child(info)) is not _MISSING}

        return build
    if isinstance(node, (list, tuple)):
        parts = [_dynamic_node(child, sort, f"{path}[{index}]") for index, child in enumerate(node)]
        return lambda info: [value for part in parts if (value := part(info)) is not _MISSING]
    if isinstance(node, str):
        leaf = _leaf(node, path, True)
        if isinstance(leaf, str):
            return lambda info: leaf
        value_of = leaf.value
        return lambda info: _MISSING if (value := value_of(info)) is None else value
    if node is None or isinstance(node, (bool, int, float)):
        return lambda info: node
    raise ValueError(f"{path}: {type(node).__name__} cannot stand in a JSON format")
