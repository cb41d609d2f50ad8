"""DNS messages, as much as a stub resolver needs: questions for addresses, and their answers (RFC 1035, 3596, 6891).

Sans-IO. Names are lower-case text without the final dot.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

TYPE_A: Final = 1
TYPE_CNAME: Final = 5
TYPE_AAAA: Final = 28
_TYPE_OPT: Final = 41
_CLASS_IN: Final = 1

NOERROR: Final = 0
FORMERR: Final = 1
NXDOMAIN: Final = 3
NOTIMP: Final = 4

UDP_PAYLOAD: Final = 1232
"""bytes that we take in one datagram: fits every path without fragments (DNS flag day 2020)"""
_MAX_POINTERS: Final = 64
_RESPONSE: Final = 0x8000
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_HEADER: Final = struct.Struct(">HHHHHH")
_QUESTION_TAIL: Final = struct.Struct(">HH")
_RECORD_HEAD: Final = struct.Struct(">HHIH")


class BadMessage(Exception):
    """Not a DNS message, or not one that can be meant for us."""


class BadName(ValueError):
    """No DNS name: a label is empty or too long, or all of it is."""


@dataclass(frozen=True, slots=True)
class Response:
    """What an answer says."""

    message_id: int
    name: str
    """of the question"""
    record_type: int
    """of the question"""
    code: int
    """RCODE"""
    truncated: bool
    addresses: tuple[str, ...]
    """of the name or of what it is an alias for, in the order of the answer, each once"""
    ttl_s: int
    """the smallest of the records that led to the addresses; 0 without any"""


def encode_name(name: str) -> bytes:
    """Labels on the wire. Raises BadName."""
    try:
        plain = name.encode("ascii") if name.isascii() else name.encode("idna")
    except UnicodeError as error:
        raise BadName(f"{name!r}: {error}") from error
    out = bytearray()
    for label in plain.removesuffix(b".").split(b"."):
        if not 0 < len(label) < 64:
            raise BadName(f"{name!r}: empty or too long label")
        out.append(len(label))
        out += label
    out.append(0)
    if len(out) > 255:
        raise BadName(f"{name!r}: too long")
    return bytes(out)


def encode_query(message_id: int, name: str, record_type: int, *, edns: bool = True) -> bytes:
    """A question that asks for recursion. Raises BadName."""
    out = _HEADER.pack(message_id, _RECURSION_DESIRED, 1, 0, 0, 1 if edns else 0)
    out += encode_name(name) + _QUESTION_TAIL.pack(record_type, _CLASS_IN)
    if edns:
        out += b"\0" + _RECORD_HEAD.pack(_TYPE_OPT, UDP_PAYLOAD, 0, 0)
    return out


def decode_response(data: bytes) -> Response:
    """Raises BadMessage for anything that is no well-formed answer to one question."""
    try:
        return _decode(data)
    except (IndexError, struct.error) as error:
        raise BadMessage("cut short") from error


def _decode(data: bytes) -> Response:
    message_id, flags, questions, answers, _, _ = _HEADER.unpack_from(data)
    if not flags & _RESPONSE or questions != 1:
        raise BadMessage("no answer to a question")
    name, position = _read_name(data, _HEADER.size)
    record_type, record_class = _QUESTION_TAIL.unpack_from(data, position)
    position += _QUESTION_TAIL.size
    if record_class != _CLASS_IN:
        raise BadMessage("wrong class")
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[str, int]]] = {}
    truncated = bool(flags & _TRUNCATED)
    for _ in range(0 if truncated else answers):  # what is cut will be asked for again, as a whole
        owner, position = _read_name(data, position)
        kind, record_class, ttl, size = _RECORD_HEAD.unpack_from(data, position)
        position += _RECORD_HEAD.size
        content = data[position : position + size]
        if len(content) != size:
            raise BadMessage("cut short")
        ttl = 0 if ttl >= 1 << 31 else ttl  # RFC 2181, 8
        if record_class == _CLASS_IN and kind == TYPE_CNAME:
            aliases.setdefault(owner, (_read_name(data, position)[0], ttl))
        elif record_class == _CLASS_IN and kind == record_type and kind in (TYPE_A, TYPE_AAAA):
            if size != (4 if kind == TYPE_A else 16):
                raise BadMessage("wrong address size")
            found.setdefault(owner, []).append((str(ipaddress.ip_address(content)), ttl))
        position += size
    ttls: list[int] = []
    seen = {name}
    owner = name
    while owner not in found and owner in aliases:
        owner, ttl = aliases[owner]
        ttls.append(ttl)
        if owner in seen:
            raise BadMessage("aliases in a circle")
        seen.add(owner)
    records = found.get(owner, [])
    ttls += [ttl for _, ttl in records]
    return Response(
        message_id=message_id,
        name=name,
        record_type=record_type,
        code=flags & 0x0F,
        truncated=truncated,
        addresses=tuple(dict.fromkeys(address for address, _ in records)),
        ttl_s=min(ttls) if records else 0,
    )


def _read_name(data: bytes, position: int) -> tuple[str, int]:
    """The name and the position behind it."""
    labels: list[bytes] = []
    after = -1
    for _ in range(_MAX_POINTERS + 128):
        length = data[position]
        if length == 0:
            text = b".".join(labels)
            if len(text) > 254:
                raise BadMessage("name too long")
            return text.decode("latin-1").lower(), after if after >= 0 else position + 1
        if length >= 0xC0:
            if after < 0:
                after = position + 2
            position = (length & 0x3F) << 8 | data[position + 1]
        elif length < 64:
            label = data[position + 1 : position + 1 + length]
            if len(label) != length:
                raise BadMessage("cut short")
            labels.append(label)
            position += 1 + length
        else:
            raise BadMessage("unknown label type")
    raise BadMessage("name without an end")
