"""What `/route_explain` is asked: the description of a request that nobody sends."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PROTOCOLS: Final = ("http", "grpc", "triple", "dubbo")
MOST_FIELDS: Final = 256
"""headers or attachments of one description"""


class BadQuestion(ValueError):
    """The description cannot be understood; the text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One described request. Texts are as they would stand on the wire, in Latin-1."""

    listener: str = ""
    """name; empty: the first that has a filter chain for the connection and the protocol"""
    protocol: str = "http"
    authority: str = ""
    """empty: the service, or `localhost`"""
    method: str = ""
    """of HTTP (default GET), or of the service"""
    path: str = ""
    """of HTTP; default `/`"""
    service: str = ""
    """interface of a gRPC, Triple or Dubbo call"""
    group: str = ""
    version: str = ""
    parameter_types: str = ""
    """of a Dubbo call, as descriptors: `Ljava/lang/String;`"""
    headers: tuple[tuple[str, str], ...] = ()
    """headers, or attachments of a Dubbo call"""
    source_address: str = "127.0.0.1"
    source_port: int = 40000
    source_identity: str = ""
    """URI name of the caller's certificate"""
    destination_address: str = ""
    """where the connection was going; empty: the listener's address"""
    destination_port: int = 0
    server_name: str = ""

    @property
    def request_path(self) -> str:
        """What stands in the request line, or its counterpart."""
        if self.protocol == "http" or self.path:
            return self.path or "/"
        return f"/{self.service}/{self.method}"


_TEXTS: Final = (
    "listener",
    "protocol",
    "authority",
    "method",
    "path",
    "service",
    "group",
    "version",
    "parameter_types",
    "server_name",
)
_NESTED: Final = {"source": ("address", "port", "identity"), "destination": ("address", "port")}
_PREFIXES: Final = ("header.", "attachment.", "source.", "destination.")


def from_json(given: Any) -> Question:
    """From the body of a POST.

    Raises:
        BadQuestion: it is none.
    """
    if not isinstance(given, Mapping):
        raise BadQuestion("the description must be an object")
    if unknown := set(given) - {*_TEXTS, "headers", "attachments", *_NESTED}:
        raise BadQuestion(f"{min(unknown)}: unknown field")
    values: dict[str, Any] = {}
    for name in _TEXTS:
        if name in given:
            values[name] = _text(given[name], name)
    for name, keys in _NESTED.items():
        inner = given.get(name, {})
        if not isinstance(inner, Mapping) or set(inner) - set(keys):
            raise BadQuestion(f"{name}: may have {', '.join(keys)}")
        for key, value in inner.items():
            values[f"{name}_{key}"] = _port(value, f"{name}.port") if key == "port" else _text(value, f"{name}.{key}")
    fields = [*_fields(given.get("headers", {}), "headers"), *_fields(given.get("attachments", {}), "attachments")]
    if len(fields) > MOST_FIELDS:
        raise BadQuestion(f"headers: more than {MOST_FIELDS}")
    return _checked(Question(**values, headers=tuple(fields)))


def from_query(query: Mapping[str, str]) -> Question:
    """From the query of a GET: `?protocol=grpc&service=demo.Greeter&method=hello&header.x-tag=gray&source.address=10.0.0.9`."""
    nested: dict[str, Any] = {}
    for name, value in query.items():
        prefix = next((one for one in _PREFIXES if name.startswith(one)), None)
        if prefix is None:
            nested[name] = value
        else:
            group = {"header.": "headers", "attachment.": "attachments"}.get(prefix, prefix[:-1])
            nested.setdefault(group, {})[name[len(prefix) :]] = value
    return from_json(nested)


def _checked(question: Question) -> Question:
    if question.protocol not in PROTOCOLS:
        raise BadQuestion(f"protocol: must be one of {', '.join(PROTOCOLS)}")
    for name in ("source", "destination"):
        try:
            ipaddress.ip_address(getattr(question, f"{name}_address") or "127.0.0.1")
        except ValueError:
            raise BadQuestion(f"{name}.address: must be an IP address") from None
    if question.protocol == "dubbo" and not (question.service and question.method):
        raise BadQuestion("service: a Dubbo call needs service and method")
    if question.protocol in ("grpc", "triple") and not question.path and not (question.service and question.method):
        raise BadQuestion("service: a call needs service and method, or a path")
    return question


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise BadQuestion(f"{path}: must be a text")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise BadQuestion(f"{path}: is not Latin-1") from None
    if "\r" in value or "\n" in value or "\0" in value:
        raise BadQuestion(f"{path}: has an end of line in it")
    return value


def _port(value: Any, path: str) -> int:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 65536:
        raise BadQuestion(f"{path}: must be a port")
    return value


def _fields(given: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(given, Mapping):
        given = list(given.items())
    if not isinstance(given, list):
        raise BadQuestion(f"{path}: must be an object, or a list of pairs")
    found = []
    for one in given:
        if not isinstance(one, (list, tuple)) or len(one) != 2:
            raise BadQuestion(f"{path}: must be an object, or a list of pairs")
        found.append((_text(one[0], path), _text(one[1], f"{path}.{one[0]}")))
    return found
