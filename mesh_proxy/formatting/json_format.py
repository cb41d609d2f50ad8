"""JSON log lines: a tree whose leaves are format strings (Envoy: `source/common/formatter/substitution_formatter.cc`).

A leaf that is one operator keeps the operator's type, so that numbers stay numbers and what is missing becomes null; a leaf of
several pieces is a string. The line is a template with the leaves' places left open, compiled once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import Any, Final

from mesh_proxy.formatting.formatter import Formatter
from mesh_proxy.formatting.metadata import json_bytes
from mesh_proxy.formatting.operator import Operator, Value
from mesh_proxy.formatting.parser import parse
from mesh_proxy.stream.info import StreamInfo

JsonFormatter = Callable[[StreamInfo], bytes]

_MISSING: Final = object()


def compile_json(json_format: Mapping[str, Any], *, sort: bool = True, omit_empty: bool = False, path: str = "") -> JsonFormatter:
    """Compile a JSON format; the lines end in a newline.

    Args:
        json_format: nested; leaves are format strings, numbers, booleans or null.
        sort: keys in alphabetical order, not in the given one.
        omit_empty: leave out keys whose value is missing; an operator among other text leaves nothing instead of `-`.
        path: where the format stands in the configuration, for the error's text.

    Raises:
        ValueError: a format is wrong or a leaf has another type.
    """
    if omit_empty:
        root = _dynamic_node(json_format, sort, path)

        def sparse(info: StreamInfo) -> bytes:
            value = root(info)
            return json.dumps({} if value is _MISSING else value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

        return sparse
    template: list[str] = []
    values: list[Value] = []
    _flatten(json_format, sort, path, template, values)
    text = "".join(template) + "\n"

    def dense(info: StreamInfo) -> bytes:
        return (text % tuple([encode(value(info)) for value in values])).encode("utf-8", "replace")

    return dense


def encode(value: Any) -> str:
    """One JSON value."""
    if isinstance(value, str):
        return encode_basestring(value)
    if value is None:
        return "null"
    if type(value) is int:
        return str(value)
    return json_bytes(value).decode()


def _leaf(text: str, path: str, omit_empty: bool) -> Value | str:
    """A leaf's typed value, or its text when that never changes."""
    pieces = parse(text, path)
    if len(pieces) == 1 and isinstance(pieces[0], Operator):
        return pieces[0].value
    formatter = Formatter(pieces, b"" if omit_empty else b"-")
    if formatter.literal is not None:
        return formatter.literal.decode()
    return lambda info: formatter.format(info).decode("utf-8", "replace")


def _items(node: Mapping[str, Any], sort: bool) -> list[tuple[str, Any]]:
    return sorted(node.items()) if sort else list(node.items())


def _flatten(node: Any, sort: bool, path: str, template: list[str], values: list[Value]) -> None:
    """Append a node to the template, and its leaves to the values."""
    if isinstance(node, Mapping):
        for index, (key, child) in enumerate(_items(node, sort)):
            template.append(("," if index else "{") + encode_basestring(key).replace("%", "%%") + ":")
            _flatten(child, sort, f"{path}.{key}", template, values)
        template.append("}" if node else "{}")
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            template.append("," if index else "[")
            _flatten(child, sort, f"{path}[{index}]", template, values)
        template.append("]" if node else "[]")
    elif isinstance(node, str):
        leaf = _leaf(node, path, False)
        if isinstance(leaf, str):
            template.append(encode_basestring(leaf).replace("%", "%%"))
        else:
            template.append("%s")
            values.append(leaf)
    elif node is None or isinstance(node, (bool, int, float)):
        template.append(json.dumps(int(node) if isinstance(node, float) and node.is_integer() else node))
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
        return lambda info: _MISSING if (value := leaf(info)) is None else value
    if node is None or isinstance(node, (bool, int, float)):
        return lambda info: node
    raise ValueError(f"{path}: {type(node).__name__} cannot stand in a JSON format")
