"""JSON Schema, the part that tests/data/schemas uses: no library is needed to check a manifest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "data" / "schemas"
KNOWN = {
    *("$comment", "$ref", "additionalProperties", "anyOf", "definitions", "enum", "items", "pattern", "patternProperties"),
    *("properties", "required", "type", "uniqueItems"),
}
_TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}


def faults(value: Any, name: str) -> list[str]:
    """What a schema has against a value, with the path of each fault."""
    root = json.loads((FOLDER / f"{name}.json").read_text())
    return _faults(value, root, root, "")


def _faults(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str) -> list[str]:
    assert schema.keys() <= KNOWN, f"this checker knows nothing of {schema.keys() - KNOWN}"
    if "$ref" in schema:
        return _faults(value, root["definitions"][schema["$ref"].removeprefix("#/definitions/")], root, path)
    if "anyOf" in schema:
        tried = [_faults(value, one, root, path) for one in schema["anyOf"]]
        return [] if [] in tried else [f"{path}: fits no alternative: {tried}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{path}: {value!r} is none of {schema['enum']}"]
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{path}: must be of the type {kind}"]
    found: list[str] = []
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        found.append(f"{path}: {value!r} does not match {schema['pattern']}")
    if isinstance(value, list):
        if schema.get("uniqueItems") and len({json.dumps(one) for one in value}) != len(value):
            found.append(f"{path}: has equal entries")
        for i, one in enumerate(value):
            found += _faults(one, schema.get("items", {}), root, f"{path}[{i}]")
    if isinstance(value, dict):
        found += [f"{path}: lacks {name}" for name in schema.get("required", ()) if name not in value]
        for key, one in value.items():
            inner = _schema_of(key, schema)
            if inner is None:
                found.append(f"{path}.{key}: unknown field")
            else:
                found += _faults(one, inner, root, f"{path}.{key}")
    return found


def _schema_of(key: str, schema: dict[str, Any]) -> dict[str, Any] | None:
    properties: dict[str, Any] = schema.get("properties", {})
    if key in properties:
        found: dict[str, Any] = properties[key]
        return found
    for pattern, one in schema.get("patternProperties", {}).items():
        if re.search(pattern, key):
            inner: dict[str, Any] = one
            return inner
    other = schema.get("additionalProperties", True)
    if other is False:
        return None
    return other if isinstance(other, dict) else {}
