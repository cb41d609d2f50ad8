"""A message in a file, whose name says how it is written: Envoy's rule for bootstraps and for what a path config source names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from mesh_proxy.config.errors import ConfigError
from mesh_proxy.config.json_proto import Parser
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.twins import Twins
from mesh_proxy.config.yaml_text import parse_yaml


def read_message(
    path: str, message: Any, problems: Problems, *, allow_unknown_fields: bool = False, twins: Twins | None = None
) -> None:
    """Fill `message` from a file: `.pb`, `.pb_text`, `.yaml`, `.json`, and any other name as JSON or YAML. Of a bootstrap's
    clusters only those are filled that `twins` do not know.

    Raises:
        ConfigError: the file cannot be read, or not as what its name says. What is wrong with its fields is noted in `problems`.
    """
    kind = message.DESCRIPTOR.name
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("", f"cannot read {path}: {error.strerror}") from None
    suffix = Path(path).suffix.lower()
    if suffix == ".pb":
        try:
            message.MergeFromString(data)
        except DecodeError:
            raise ConfigError("", f"{path} is not a serialized {kind}") from None
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError("", f"{path} is not UTF-8 text (byte {error.start})") from None
    if suffix in (".pb_text", ".pbtxt"):
        try:
            text_format.Parse(text, message)
        except text_format.ParseError as error:
            raise ConfigError("", f"{path} is not a {kind} in text format: {_place(error)}") from None
        return
    if suffix in (".yaml", ".yml"):
        value = parse_yaml(text, problems.warn, path)
    else:
        try:
            value = json.loads(text)
        except ValueError as error:
            if suffix == ".json":
                raise ConfigError("", f"{path} is not valid JSON: {error}") from None
            value = parse_yaml(text, problems.warn, path)
    fill(value, message, problems, path, allow_unknown_fields=allow_unknown_fields, twins=twins)


def _place(error: text_format.ParseError) -> str:
    """Where; the message of the parser shows the whole line, in which a secret may stand."""
    if error.GetLine() is None:
        return "it cannot be parsed"
    return f"line {error.GetLine()}, column {error.GetColumn()}"


def fill(
    value: Any,
    message: Any,
    problems: Problems,
    source: str,
    *,
    allow_unknown_fields: bool = False,
    twins: Twins | None = None,
) -> None:
    """Fill `message` from plain values; `source` is how an error names where they came from."""
    if not isinstance(value, dict):
        raise ConfigError("", f"{source} does not hold a mapping of configuration fields")
    Parser(problems, allow_unknown_fields=allow_unknown_fields, twins=twins).fill(message, value, "")
