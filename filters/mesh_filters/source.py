"""Who sends a request, as far as it can be told: by the caller's certificate, or by what sidecars say of themselves in headers.

{source: identity}            URI name of the certificate (SPIFFE: spiffe://<trust domain>/ns/<namespace>/sa/<service account>)
{source: trust_domain}        its parts
{source: namespace}
{source: service_account}
{source: cluster}             x-envoy-downstream-service-cluster: `node.cluster` of the sidecar before us
{source: node}                x-envoy-downstream-service-node
{source_label: version}       label of the caller's workload, from Istio's x-envoy-peer-metadata (a base64 protobuf Struct)

Names from a certificate are as good as its validation. Headers are what anybody may write: let an edge strip them
(`use_remote_address` does so with Envoy's), or trust callers by `trust` of the label filter.
"""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Iterator
from typing import Any, Final

from mesh_filters.definition import FieldError
from mesh_filters.filter import Stream

PARTS: Final = ("identity", "trust_domain", "namespace", "service_account", "cluster", "node")
_SPIFFE: Final = re.compile(r"spiffe://(?P<trust_domain>[^/]+)(?:/ns/(?P<namespace>[^/]+)/sa/(?P<service_account>[^/]+))?")
HEADER_PARTS: Final = {"cluster": b"x-envoy-downstream-service-cluster", "node": b"x-envoy-downstream-service-node"}
PEER_METADATA: Final = b"x-envoy-peer-metadata"
LONGEST_METADATA: Final = 16_384
"""bytes of the header; Istio's are about one thousand"""
REMEMBERED: Final = 256
"""callers whose metadata are known: headers that come again and again are decoded once"""
_known: dict[bytes, dict[str, str]] = {}


def identities_of(stream: Stream) -> tuple[str, ...]:
    """URI names of the caller's certificate."""
    names = getattr(stream.connection.tls, "peer_uri_san", None) or ()
    if isinstance(names, (str, bytes)):
        names = (names,)
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


def source_part(stream: Stream, part: str) -> bytes | None:
    """One of PARTS."""
    header = HEADER_PARTS.get(part)
    if header is not None:
        headers: Any = stream.request.headers  # those of Dubbo have a property `first`
        value: bytes | None = headers.first.get(header)
        return value
    for name in identities_of(stream):
        if part == "identity":
            return name.encode("latin-1", "replace")
        found = _SPIFFE.fullmatch(name)
        if found is not None and found[part]:
            return found[part].encode("latin-1", "replace")
    return None


def check_part(part: object, path: str) -> str:
    """One of PARTS, or FieldError."""
    if part not in PARTS:
        raise FieldError(path, f"must be one of {', '.join(PARTS)}")
    return str(part)


def source_label(stream: Stream, name: str) -> bytes | None:
    """A label of the caller's workload."""
    headers: Any = stream.request.headers
    header: bytes | None = headers.first.get(PEER_METADATA)
    if header is None:
        return None
    labels = _known.get(header)
    if labels is None:
        labels = labels_in(header)
        if len(_known) >= REMEMBERED:
            _known.clear()
        _known[header] = labels
    found = labels.get(name)
    return found.encode("latin-1", "replace") if found is not None else None


def labels_in(header: bytes) -> dict[str, str]:
    """The texts in `LABELS` of a Struct in base64; none when it is no such thing."""
    if len(header) > LONGEST_METADATA:
        return {}
    found: dict[str, str] = {}
    try:
        whole = a2b_base64(header + b"==", strict_mode=False)
        for key, value in _entries(whole):
            if key == "LABELS":
                for number, inner in _fields(value):
                    if number == 5 and isinstance(inner, bytes):  # Value.struct_value
                        for name, label in _entries(inner):
                            texts = [text for kind, text in _fields(label) if kind == 3 and isinstance(text, bytes)]
                            found.update((name, text.decode()) for text in texts)
    except (Base64Error, ValueError, IndexError):
        return {}
    return found


def _entries(struct: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and `Value` message of each field of a `google.protobuf.Struct`."""
    for number, entry in _fields(struct):
        if number == 1 and isinstance(entry, bytes):
            parts = dict(_fields(entry))
            key, value = parts.get(1, b""), parts.get(2, b"")
            if isinstance(key, bytes) and isinstance(value, bytes):
                yield key.decode(), value


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and value of each field of a protobuf message; ValueError or IndexError when it is none."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("no field of a Struct")
        end = position + size
        if end > len(message):
            raise ValueError("cut")
        yield tag >> 3, message[position:end]
        position = end


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number without end")
