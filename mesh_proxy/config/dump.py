"""Resources as canonical proto JSON for `/config_dump`, kept small, with secrets out of sight.

Envoy prints proto field names and indents by one blank; so do we. What Envoy's protos mark as sensitive (`udpa.annotations`:
private keys, passwords, …) reads `[redacted]`, as does everything inside a sensitive message.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from udpa.annotations import sensitive_pb2

from mesh_proxy.config import extensions
from mesh_proxy.config.digest import digest
from mesh_proxy.config.resource import ResourceDump

_F = FieldDescriptor
REDACTED = "[redacted]"
_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:[^\"\\]|\\.)*")
"""a private key where none belongs, up to the end of its JSON string"""


def dump(message: Message, name: str, *, version: str = "") -> ResourceDump:
    """Keep what is to be shown of a resource; the message itself can go."""
    return ResourceDump(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        name=name,
        version=version,
        digest=digest(message, name),
        compressed=zlib.compress(to_json(message).encode(), 6),
    )


def to_json(message: Message) -> str:
    """Redacted canonical JSON in one line."""
    text = json.dumps(shown(message), separators=(",", ":"))
    return _KEY.sub(REDACTED, text) if "PRIVATE KEY-----" in text else text


def shown(message: Message) -> dict[str, Any]:
    """The same as plain values."""
    copy = type(message)()
    copy.CopyFrom(message)
    redact(copy)
    found: dict[str, Any] = json_format.MessageToDict(copy, preserving_proto_field_name=True)
    return found


def redact(message: Message, *, everything: bool = False) -> None:
    """Replace in place the text of sensitive fields; `everything` if a field around it is sensitive."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Any":
        _redact_any(message, everything)
        return
    for field, value in message.ListFields():
        hidden = everything or bool(field.GetOptions().Extensions[sensitive_pb2.sensitive])
        if field.message_type is not None:
            _redact_messages(field, value, hidden)
        elif hidden:
            _redact_scalar(message, field, value)


def _redact_messages(field: Any, value: Any, hidden: bool) -> None:
    if not field.is_repeated:
        redact(value, everything=hidden)
    elif not field.message_type.GetOptions().map_entry:
        for item in value:
            redact(item, everything=hidden)
    else:
        entry = field.message_type.fields_by_name["value"]
        for key in list(value):
            if entry.message_type is not None:
                redact(value[key], everything=hidden)
            elif hidden and entry.cpp_type == _F.CPPTYPE_STRING:
                value[key] = REDACTED if entry.type == _F.TYPE_STRING else REDACTED.encode()


def _redact_scalar(message: Message, field: Any, value: Any) -> None:
    if field.cpp_type != _F.CPPTYPE_STRING:
        message.ClearField(field.name)
        return
    hidden = REDACTED if field.type == _F.TYPE_STRING else REDACTED.encode()
    if field.is_repeated:
        value[:] = [hidden] * len(value)
    else:
        setattr(message, field.name, hidden)


def _redact_any(message: Any, everything: bool) -> None:
    inner = extensions.new_message(message.type_url) if message.type_url else None
    if inner is None:
        if everything:
            message.Clear()
        return
    inner.MergeFromString(message.value)
    redact(inner, everything=everything)
    message.value = inner.SerializeToString(deterministic=True)
