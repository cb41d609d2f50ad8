"""Values of a request by a description in the configuration: headers, cookies, query, claims, expressions, shares.

{header: user-id}                     request header, or attachment of a Dubbo call
{cookie: tag} {query: tag}
{baggage: tag} {tracestate: tag}      member of the W3C header
{jwt: realm.tag}                      claim that jwt_authn has found
{metadata: [filter, key, key]}        what another filter has left
{argument: 0} {argument: 0.user.id}   argument of a Dubbo call that is a text, number or boolean; or a field of an object
{path: true} {method: true} {authority: true} {source_ip: true}
{protocol: true}                      dubbo, triple, grpc or http
{service: true} {group: true} {version: true}   of a call, by the same names for Dubbo (attachments) and Triple (tri-service-…)
{source: namespace} {source_label: version}     of the caller (`mesh_filters.source`)
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from mesh_filters.definition import FieldError
from mesh_filters.filter import Stream
from mesh_filters.source import HEADER_PARTS, check_part, source_label, source_part
from mesh_filters.view import RequestView

Value = Callable[[Stream], bytes | None]
"""None: the request does not have it"""
JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
NAMED: Final = (
    "header",
    "attachment",
    "cookie",
    "query",
    "baggage",
    "tracestate",
    "jwt",
    "metadata",
    "argument",
    "source",
    "source_label",
)
PLAIN: Final = ("path", "method", "authority", "source_ip", "protocol", "service", "group", "version")


class Reads(enum.Enum):
    """What a value comes of, for filters that keep what they found in a head (`Filter.learn`)."""

    HEAD = "head"
    """nothing but the head: equal heads have the same"""
    REST = "rest"
    """nothing of the head"""
    BOTH = "both"
    """a mixture, or a part of the head in which equal heads differ"""


def reads(config: Mapping[str, Any]) -> Reads:
    """What a description that was checked reads."""
    kind, given = next(iter(config.items()))
    if kind in ("jwt", "metadata", "argument", "source_ip") or (kind == "source" and given not in HEADER_PARTS):
        return Reads.REST
    if kind in ("header", "attachment") and str(given).lower() == "x-request-id":
        return Reads.BOTH  # each request may get its own from us
    return Reads.HEAD


def reads_of_all(kinds: Iterable[Reads]) -> Reads:
    """What comes of several values; a constant is as good as the head."""
    found = set(kinds) or {Reads.HEAD}
    return found.pop() if len(found) == 1 else Reads.BOTH


def value_source(config: Mapping[str, Any], path: str) -> Value:
    """Compile one description.

    Raises:
        FieldError: it is none.
    """
    kinds = [key for key in config if key in NAMED or key in PLAIN]
    if len(kinds) != 1 or len(config) != 1:
        raise FieldError(path, f"needs exactly one of {', '.join((*NAMED, *PLAIN))}")
    kind = kinds[0]
    given = config[kind]
    if kind in PLAIN:
        return _PLAIN[kind]
    if kind == "metadata":
        if not isinstance(given, (list, tuple)) or len(given) < 2:
            raise FieldError(f"{path}.metadata", "must be a list: the filter and then keys")
        return _metadata(str(given[0]), [str(key) for key in given[1:]])
    if kind == "argument":
        index, *fields = str(given).split(".")
        if not index.isdigit() or len(index) > 3 or not all(fields):
            raise FieldError(f"{path}.argument", "must be a number from 0, with or without names of fields: 0.user.id")
        return lambda stream: stream.argument(int(index), fields)
    if not isinstance(given, str) or not given:
        raise FieldError(f"{path}.{kind}", "must be a name")
    if kind == "jwt":
        return _metadata(JWT_FILTER, given.split("."))
    if kind == "source":
        part = check_part(given, f"{path}.source")
        return lambda stream: source_part(stream, part)
    if kind == "source_label":
        return lambda stream: source_label(stream, given)
    name = given.encode()
    if kind in ("header", "attachment"):
        return _header(name.lower())
    if kind == "cookie":
        return lambda stream: cookie(stream.request.headers.get_all(b"cookie"), name)
    if kind == "query":
        return lambda stream: query(stream.request.path, name)
    if kind == "baggage":
        return lambda stream: baggage_member(stream.request.headers.get_joined(b"baggage"), name)
    return lambda stream: tracestate_member(stream.request.headers.get_joined(b"tracestate"), name)


def _header(name: bytes) -> Value:
    def value(stream: Stream) -> bytes | None:
        headers: Any = stream.request.headers  # those of Dubbo have a property `first`
        found: bytes | None = headers.first.get(name)
        return found

    return value


def remote_ip(stream: Stream) -> bytes:
    """The trusted address of the client, without its port; empty for a unix socket."""
    address = stream.remote_address
    return address[1 : address.find(b"]")] if address.startswith(b"[") else address.rpartition(b":")[0]


_PLAIN: Final[Mapping[str, Value]] = {
    "path": lambda stream: stream.request.path,
    "method": lambda stream: stream.request.method,
    "authority": lambda stream: stream.request.authority,
    "source_ip": lambda stream: stream.connection.remote_ip or None,
    "protocol": lambda stream: RequestView(stream).kind.encode(),
    "service": lambda stream: RequestView(stream).service or None,
    "group": lambda stream: RequestView(stream).group or None,
    "version": lambda stream: RequestView(stream).version or None,
}


def _metadata(filter_name: str, keys: list[str]) -> Value:
    def value(stream: Stream) -> bytes | None:
        found: Any = (stream.dynamic_metadata or {}).get(filter_name)
        if filter_name == JWT_FILTER and isinstance(found, Mapping) and keys[0] not in found and len(found) == 1:
            found = next(iter(found.values()))  # the payload stands under the name of its provider
        for key in keys:
            if not isinstance(found, Mapping):
                return None
            found = found.get(key)
        if found is None or isinstance(found, (Mapping, list, tuple)):
            return None
        return (str(found).lower() if isinstance(found, bool) else str(found)).encode()

    return value


def cookie(headers: list[bytes], name: bytes) -> bytes | None:
    """The first cookie of a name."""
    for header in headers:
        for pair in header.split(b";"):
            key, _, value = pair.strip().partition(b"=")
            if key == name:
                return value.strip(b'"')
    return None


def query(path: bytes, name: bytes) -> bytes | None:
    """The first query parameter of a name, decoded."""
    for pair in path.partition(b"?")[2].split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return unquote_to_bytes(value.replace(b"+", b" "))
    return None


def baggage_member(header: bytes | None, name: bytes) -> bytes | None:
    """A member of W3C Baggage, decoded, without its properties."""
    for member in header.split(b",") if header else ():
        key, _, value = member.partition(b"=")
        if key.strip() == name:
            return unquote_to_bytes(value.partition(b";")[0].strip())
    return None


def with_baggage(header: bytes | None, name: bytes, value: bytes) -> bytes:
    """The header with a member set (W3C Baggage, 3.3: percent-encoded)."""
    from urllib.parse import quote_from_bytes

    kept = [one for one in (header or b"").split(b",") if one.strip() and one.partition(b"=")[0].strip() != name]
    return b",".join([*kept, b"%b=%b" % (name, quote_from_bytes(value, safe="!#$&'()*+-./:<=>?@[]^_`{|}~").encode())])


def tracestate_member(header: bytes | None, name: bytes) -> bytes | None:
    """A member of W3C tracestate."""
    for member in header.split(b",") if header else ():
        key, _, value = member.strip().partition(b"=")
        if key == name:
            return value
    return None


TRACESTATE_MEMBERS: Final = 32
"""more are not allowed (W3C Trace Context, 3.3.1.1)"""


def with_tracestate(header: bytes | None, name: bytes, value: bytes) -> bytes:
    """The header with a member at its front, where the one goes that was changed last."""
    kept = [one.strip() for one in (header or b"").split(b",") if one.strip() and one.partition(b"=")[0].strip() != name]
    return b",".join([b"%b=%b" % (name, value), *kept][:TRACESTATE_MEMBERS])
