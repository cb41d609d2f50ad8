"""Plain values (from YAML or JSON) into protobuf messages, by protobuf's JSON mapping, with the path of every fault.

`google.protobuf.json_format` stops at the first fault and hides where an `Any` was; so the walk over message fields is ours,
and only the well-known types (Duration, Struct, wrappers, …) are left to it. Like Envoy's C++ parser, both the proto name
and the lowerCamel name of a field are known, null means "not set", and numbers, booleans and enum numbers may be given as text.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from udpa.annotations import sensitive_pb2

from mesh_proxy.config import extensions
from mesh_proxy.config.errors import join
from mesh_proxy.config.problems import Problems
from mesh_proxy.config.twins import CLUSTERS, MANY, Twins

_F = FieldDescriptor
_INTEGER_RANGE = {
    _F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    _F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _F.CPPTYPE_UINT32: (0, 2**32 - 1),
    _F.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_WRAPPED = {
    "BoolValue": _F.CPPTYPE_BOOL,
    "BytesValue": _F.CPPTYPE_STRING,
    "DoubleValue": _F.CPPTYPE_DOUBLE,
    "FloatValue": _F.CPPTYPE_FLOAT,
    "Int32Value": _F.CPPTYPE_INT32,
    "Int64Value": _F.CPPTYPE_INT64,
    "StringValue": _F.CPPTYPE_STRING,
    "UInt32Value": _F.CPPTYPE_UINT32,
    "UInt64Value": _F.CPPTYPE_UINT64,
}
_BOOLEANS = {"true": True, "t": True, "yes": True, "y": True, "1": True} | dict.fromkeys(("false", "f", "no", "n", "0"), False)
_WELL_KNOWN = {
    "google.protobuf.Duration": "a duration such as 1.5s",
    "google.protobuf.Timestamp": "a time such as 2030-01-02T03:04:05Z",
    "google.protobuf.FieldMask": "field names, separated by commas",
    "google.protobuf.Struct": "a mapping",
    "google.protobuf.ListValue": "a list",
    "google.protobuf.Value": "any value",
}


_SHOWN = re.compile(r", not (?!a mapping|a list|null).*", re.DOTALL)
"""the part of a message that shows a value"""


class Fault(Exception):
    """A scalar that does not fit; the caller knows the path."""


class Parser:
    """Fills messages; faults and oddities go to `problems`, the good rest is filled in all the same."""

    def __init__(self, problems: Problems, *, allow_unknown_fields: bool = False, twins: Twins | None = None) -> None:
        self._problems = problems
        self._allow_unknown = allow_unknown_fields
        self._twins = twins
        self._fields: dict[str, dict[str, Any]] = {}
        self._in_secret = False

    def fill(self, message: Message, value: Any, path: str) -> None:
        """Set in `message` what `value` says."""
        descriptor = message.DESCRIPTOR
        full_name = descriptor.full_name
        if full_name.startswith("google.protobuf.") and self._fill_well_known(message, full_name, value, path):
            return
        if not isinstance(value, dict):
            self._problems.add(path, f"must be a mapping, not {kind_of(value)}")
            return
        fields = self._fields.get(full_name) or self._names(descriptor)
        chosen: dict[str, str] = {}
        seen: dict[str, str] = {}
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                self._unknown(descriptor, key, path)
                continue
            if item is None and not _takes_null(field):
                continue
            name = field.name
            inner = join(path, name)
            if name in seen:
                self._problems.add(inner, f"given twice, as {seen[name]} and {key}")
                continue
            seen[name] = key
            if field.containing_oneof is not None:
                other = chosen.setdefault(field.containing_oneof.name, name)
                if other != name:
                    self._problems.add(inner, f"cannot be given together with {other}")
                    continue
            self._set(message, field, item, inner)

    def _names(self, descriptor: Any) -> dict[str, Any]:
        names = {f.json_name: f for f in descriptor.fields} | {f.name: f for f in descriptor.fields}
        self._fields[descriptor.full_name] = names
        return names

    def _unknown(self, descriptor: Any, key: str, path: str) -> None:
        where = join(path, key)
        if self._allow_unknown:
            self._problems.warn(where, f"unknown field of {descriptor.full_name}, ignored")
            self._problems.unknown_fields += 1
        else:
            self._problems.add(where, f"unknown field of {descriptor.full_name}")

    def _set(self, message: Message, field: Any, value: Any, path: str) -> None:
        if field.GetOptions().Extensions[sensitive_pb2.sensitive] and not self._in_secret:
            self._set_secret(message, field, value, path)
        elif field.is_repeated:
            entry = field.message_type
            if entry is not None and entry.GetOptions().map_entry:
                self._fill_map(message, field, value, path)
            else:
                self._fill_list(message, field, value, path)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self.fill(inner, value, path)
        else:
            try:
                setattr(message, field.name, _scalar(field, value))
            except Fault as fault:
                self._problems.add(path, str(fault))

    def _set_secret(self, message: Message, field: Any, value: Any, path: str) -> None:
        """What is wrong inside is said without showing what stands there."""
        outside, self._problems = self._problems, Problems()
        self._in_secret = True
        try:
            self._set(message, field, value, path)
        finally:
            inside, self._problems = self._problems, outside
            self._in_secret = False
        for notes, note in ((inside.found, outside.add), (inside.warnings, outside.warn)):
            for where, why in notes:
                note(path if why.startswith("unknown field") else where, _SHOWN.sub(", not what stands there", why))
        outside.unknown_fields += inside.unknown_fields

    def _fill_list(self, message: Message, field: Any, value: Any, path: str) -> None:
        if not isinstance(value, list):
            self._problems.add(path, f"must be a list, not {kind_of(value)}")
            return
        target = getattr(message, field.name)
        if self._twins is not None and len(value) >= MANY and field.full_name == CLUSTERS:
            self._fill_clusters(target, value, path, self._twins)
            return
        for i, item in enumerate(value):
            inner = f"{path}[{i}]"
            if field.message_type is not None:
                self.fill(target.add(), item, inner)
            else:
                try:
                    target.append(_scalar(field, item))
                except Fault as fault:
                    self._problems.add(inner, str(fault))

    def _fill_clusters(self, target: Any, value: list[Any], path: str, twins: Twins) -> None:
        """A cluster that is like an earlier one stays empty but for its name."""
        for i, item in enumerate(value):
            message = target.add()
            if twins.note(i, item):
                message.name = item["name"]
                continue
            before = self._problems.remarks
            self.fill(message, item, f"{path}[{i}]")
            if self._problems.remarks == before:
                twins.begin(i, item)

    def _fill_map(self, message: Message, field: Any, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self._problems.add(path, f"must be a mapping, not {kind_of(value)}")
            return
        target = getattr(message, field.name)
        key_field, value_field = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for key, item in value.items():
            inner = f"{path}[{key}]"
            try:
                plain_key = _scalar(key_field, _map_key(key_field, key))
                if value_field.message_type is not None:
                    self.fill(target[plain_key], item, inner)
                else:
                    target[plain_key] = _scalar(value_field, item)
            except Fault as fault:
                self._problems.add(inner, str(fault))

    def _fill_well_known(self, message: Any, full_name: str, value: Any, path: str) -> bool:
        """Fill a message of `google.protobuf`; False if it is an ordinary one (Empty)."""
        if full_name == "google.protobuf.Any":
            self._fill_any(message, value, path)
            return True
        wrapped = _WRAPPED.get(full_name.rpartition(".")[2])
        if wrapped is not None:
            try:
                message.value = _scalar(message.DESCRIPTOR.fields_by_name["value"], value)
            except Fault as fault:
                self._problems.add(path, str(fault))
            return True
        wanted = _WELL_KNOWN.get(full_name)
        if wanted is None:
            return False
        try:
            json_format.ParseDict(value, message)
        except (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError):
            self._problems.add(path, f"must be {wanted}, not {value!r}")
        return True

    def _fill_any(self, message: Any, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self._problems.add(path, f"must be a mapping with @type, not {kind_of(value)}")
            return
        if not value:
            return
        url = value.get("@type")
        if not isinstance(url, str) or not url:
            self._problems.add(path, "needs @type, the type url of the configuration")
            return
        inner = extensions.new_message(url)
        if inner is None:
            self._problems.add(path, f"unknown or unsupported type {url}")
            return
        rest = {key: item for key, item in value.items() if key != "@type"}
        if inner.DESCRIPTOR.full_name.startswith("google.protobuf.") and inner.DESCRIPTOR.fields:
            rest = rest.get("value", rest)
        before = len(self._problems.found)
        self.fill(inner, rest, path)
        if len(self._problems.found) == before:
            message.type_url = url
            message.value = inner.SerializeToString(deterministic=True)


def kind_of(value: Any) -> str:
    """What a plain value is, in words for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…'"


def _takes_null(field: Any) -> bool:
    return field.message_type is not None and field.message_type.full_name == "google.protobuf.Value" and not field.is_repeated


def _map_key(field: Any, key: str) -> Any:
    if field.cpp_type == _F.CPPTYPE_BOOL:
        if key not in ("true", "false"):
            raise Fault(f"key must be true or false, not {key!r}")
        return key == "true"
    return key


def _scalar(field: Any, value: Any) -> Any:
    kind = field.cpp_type
    if kind == _F.CPPTYPE_STRING:
        if field.type == _F.TYPE_BYTES:
            return _bytes(value)
        if isinstance(value, str):
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    raise Fault("is not valid text (a lone surrogate)") from None
            return value
        hint = "; put it in quotes" if isinstance(value, int | float) else ""
        raise Fault(f"must be a string, not {kind_of(value)}{hint}")
    if kind == _F.CPPTYPE_BOOL:
        if value is True or value is False:
            return value
        if isinstance(value, str) and value.lower() in _BOOLEANS:
            return _BOOLEANS[value.lower()]
        raise Fault(f"must be true or false, not {kind_of(value)}")
    if kind == _F.CPPTYPE_ENUM:
        return _enum(field.enum_type, value)
    if kind in _INTEGER_RANGE:
        return _integer(kind, value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Fault(f"must be a number, not {kind_of(value)}")
    try:
        return float(value)
    except ValueError:
        raise Fault(f"must be a number, not {kind_of(value)}") from None


def _integer(kind: int, value: Any) -> int:
    number = value
    if isinstance(value, str):
        try:
            number = int(value) if value.strip() == value and "_" not in value else None
        except ValueError:
            number = None
    if isinstance(value, str) and number is None:
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, float):
        number = int(value) if value == value and abs(value) < 2**63 and value == int(value) else None
    if isinstance(number, bool) or not isinstance(number, int):
        raise Fault(f"must be a whole number, not {kind_of(value)}")
    low, high = _INTEGER_RANGE[kind]
    if not low <= number <= high:
        raise Fault(f"must be between {low} and {high}, not {number}")
    return number


def _enum(descriptor: Any, value: Any) -> int:
    if isinstance(value, str) and value in descriptor.values_by_name:
        return int(descriptor.values_by_name[value].number)
    if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) in descriptor.values_by_number:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value in descriptor.values_by_number:
        return value
    names = ", ".join(v.name for v in descriptor.values if not v.GetOptions().deprecated)
    raise Fault(f"must be one of {names}, not {kind_of(value)}")


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise Fault(f"must be base64 text, not {kind_of(value)}")
    text = value.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Fault("is not valid base64") from None
