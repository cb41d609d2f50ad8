"""YAML text as Envoy reads it, which is not quite YAML 1.1.

libyaml composes the nodes; which scalar is a number or a boolean is decided here, because Envoy (through yaml-cpp) knows
`y` and `on` as true and `010` as eight, leaves fractions and huge numbers as text, and knows no dates, sexagesimal numbers
or merge keys. Of two equal keys the last one wins, as in Envoy, and the caller gets a warning. An entry whose key is tagged
`!ignore` is dropped: the place for anchors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from mesh_proxy.config.errors import ConfigError, join

_Loader: type[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_BOOLEANS = {
    form: value
    for word, value in {
        "y": True,
        "yes": True,
        "true": True,
        "on": True,
        "n": False,
        "no": False,
        "false": False,
        "off": False,
    }.items()
    for form in (word, word.upper(), word.capitalize())
}
_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[-+]?(?:0[0-7]*|0[xX][0-9a-fA-F]+|[1-9][0-9]*)").fullmatch
_EXACT = 2**53
"""Envoy keeps whole numbers beyond this as text"""
_DEEPEST = 200
"""levels of nesting; no protobuf goes deeper than 100"""


def parse_yaml(text: str, warn: Callable[[str, str], None], source: str = "") -> Any:
    """The plain value (dict, list, str, int, float, bool, None) of the first document in `text`.

    `source` names the file in messages; `warn` takes the path and the text of what is odd but allowed.
    """
    if text.startswith(("{", " ", "\n")):
        try:
            return _parse_json(text)
        except (ValueError, RecursionError):
            pass  # something that only YAML allows, or that YAML must complain about
    try:
        loader = _Loader(text)
        try:
            root = loader.get_node() if loader.check_node() else None
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(source, f"not valid YAML: {_one_line(error)}") from None
    return None if root is None else _value(root, "", warn, 0)


def _parse_json(text: str) -> Any:
    """The value of a text that is JSON too, ten times as fast: the same as YAML makes of it, or ValueError."""
    if not text.isascii() or "\x7f" in text or "\\ud" in text or "\\uD" in text:
        raise ValueError  # which YAML may fold or refuse
    value = _decode(text)
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return value
    raise ValueError


def _unequal(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping without equal keys, of which there is more to say."""
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError
    return mapping


def _integer(text: str) -> int | str:
    number = int(text)
    return text if abs(number) > _EXACT else number


def _no_number(text: str) -> Any:
    raise ValueError(text)


_decode = json.JSONDecoder(object_pairs_hook=_unequal, parse_float=str, parse_int=_integer, parse_constant=_no_number).decode


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        context = f"{error.context}, " if error.context else ""
        return f"line {mark.line + 1}, column {mark.column + 1}: {context}{error.problem}"
    return " ".join(str(error).split())


def _value(node: yaml.Node, path: str, warn: Callable[[str, str], None], depth: int) -> Any:
    if depth > _DEEPEST:
        raise ConfigError(path, "nested too deeply")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, f"{path}[{i}]", warn, depth + 1) for i, item in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(path, f"line {key_node.start_mark.line + 1}: a key must be a plain word")
        key = key_node.value
        if key_node.tag == "!ignore":
            continue
        inner = join(path, key)
        if key in mapping:
            warn(inner, f"given twice, the last one (line {key_node.start_mark.line + 1}) wins")
        mapping[key] = _value(value_node, inner, warn, depth + 1)
    return mapping


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if node.style:
        return text  # quoted or a block: always a string
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER(text):
        digits = text.lstrip("+-")
        number = int(digits, 8 if len(digits) > 1 and digits.isdigit() and digits[0] == "0" else 0)
        return text if number > _EXACT else -number if text[0] == "-" else number
    return text
