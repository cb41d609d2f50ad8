"""The canonical digest of a resource: the same for the same content, however and in whatever order that was written down.

A message becomes plain values: its set fields by their proto names, maps by key, an `Any` by the message inside it. JSON of
that with sorted keys is hashed. Protobuf's own serialization will not do: it promises no order across versions, and what is
packed into an `Any` keeps the order of the text it was made from. What Envoy's protos mark as sensitive enters as a keyed hash;
the key is the name of the resource, so that two sidecars with the same secret agree, and one password under two names cannot be
seen to be one.

Of the bootstrap only what is no resource of its own counts: listeners, clusters and secrets have digests of theirs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from udpa.annotations import sensitive_pb2

from mesh_proxy.config import extensions

_F = FieldDescriptor
_BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"


def digest(message: Message, name: str) -> str:
    """SHA-256 in hexadecimal."""
    kind = message.DESCRIPTOR.full_name
    values = values_of(message, name)
    if kind == _BOOTSTRAP:
        values.pop("static_resources", None)
    return hashlib.sha256(canonical(kind, values).encode()).hexdigest()


def values_of(message: Message, name: str) -> dict[str, Any]:
    """The plain values that enter."""
    return _values(message, f"{message.DESCRIPTOR.full_name}/{name}".encode(), False)


def has_secrets(message: Message) -> bool:
    """Something in it is sensitive, so that its digest depends on its name."""
    return values_of(message, "") != values_of(message, "another")


def canonical(kind: str, values: dict[str, Any]) -> str:
    """The text that is hashed."""
    return json.dumps([kind, values], sort_keys=True, separators=(",", ":"))


def keyed_hash(key: bytes, value: bytes) -> str:
    """What stands for a secret."""
    return hmac.new(key, value, hashlib.sha256).hexdigest()


def _values(message: Message, key: bytes, hidden: bool) -> dict[str, Any]:
    if message.DESCRIPTOR.full_name == "google.protobuf.Any":
        return _packed(message, key, hidden)
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        inside = hidden or bool(field.GetOptions().Extensions[sensitive_pb2.sensitive])
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            of = entry.fields_by_name["value"]
            found[field.name] = {str(name): _value(of, value[name], key, inside) for name in value}
        elif field.is_repeated:
            found[field.name] = [_value(field, one, key, inside) for one in value]
        else:
            found[field.name] = _value(field, value, key, inside)
    return found


def _value(field: Any, value: Any, key: bytes, hidden: bool) -> Any:
    if field.message_type is not None:
        return _values(value, key, hidden)
    if hidden:
        return keyed_hash(key, value if isinstance(value, bytes) else str(value).encode())
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if field.cpp_type in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
        return repr(float(value))
    return value


def _packed(message: Any, key: bytes, hidden: bool) -> dict[str, Any]:
    name = extensions.type_name(message.type_url)
    inner = extensions.new_message(message.type_url) if message.type_url else None
    if inner is not None:
        try:
            inner.MergeFromString(message.value)
        except DecodeError:
            inner = None
    if inner is None:
        raw = keyed_hash(key, message.value) if hidden else base64.b64encode(message.value).decode()
        return {"@type": name, "/raw": raw}
    return {"@type": name, "/value": _values(inner, key, hidden)}
