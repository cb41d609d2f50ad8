"""What a service of `ext_authz` has said about a request, and the changes of the message that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from mesh_codecs.events import RequestHeaders

_FIXED: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
"""headers of the message itself, which no service may change: the message would no longer be what they say"""


@dataclass(slots=True)
class Verdict:
    """What the service said. Header names are lower-case."""

    allowed: bool
    status: int = 403
    body: bytes = b""
    headers: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """(action, name, value) for the request; actions are `set`, `add`, `append` (to one that is there), `absent`, `replace`"""
    remove: list[bytes] = field(default_factory=list)
    response_headers: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """for the response of the upstream, or for the denial"""
    parameters: list[tuple[str, str]] = field(default_factory=list)
    remove_parameters: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


def change(headers: Any, action: str, name: bytes, value: bytes) -> None:
    """One change of headers."""
    if name in _FIXED:
        return
    if action == "add":
        headers.add(name, value)
    elif action == "set":
        headers.set(name, value)
    elif action == "append":
        before = headers.get_joined(name)
        if before is not None:
            headers.set(name, before + b"," + value)
    elif (action == "absent") is (name not in headers):  # `absent` sets what is not there, `replace` what is
        headers.set(name, value)


def apply(request: RequestHeaders, verdict: Verdict) -> bool:
    """Change the request as the service says. False: nothing is to be changed."""
    for action, name, value in verdict.headers:
        if name.startswith(b":") or name == b"host":
            _set_pseudo(request, name, value)
        else:
            change(request.headers, action, name, value)
    for name in verdict.remove:
        if not name.startswith(b":") and name != b"host" and name not in _FIXED:
            request.headers.remove(name)
    if verdict.parameters or verdict.remove_parameters:
        request.path = _with_parameters(request.path, verdict)
    return bool(verdict.headers or verdict.remove or verdict.parameters or verdict.remove_parameters)


def _set_pseudo(request: RequestHeaders, name: bytes, value: bytes) -> None:
    if name in (b":authority", b"host"):
        request.authority = value
    elif name == b":path" and value.startswith(b"/"):
        request.path = value
    elif name == b":method" and value:
        request.method = value


def _with_parameters(path: bytes, verdict: Verdict) -> bytes:
    """Parameters set and removed, the others as they are, in the order of their names as Envoy has them."""
    plain, _, query = path.partition(b"?")
    found: dict[str, str] = {}
    for pair in query.split(b"&") if query else ():
        name, _, value = pair.partition(b"=")
        found.setdefault(unquote(name.decode("latin-1")), unquote(value.decode("latin-1")))
    found.update(verdict.parameters)
    for gone in verdict.remove_parameters:
        found.pop(gone, None)
    if not found:
        return plain
    return plain + b"?" + "&".join(f"{quote(key)}={quote(found[key])}" for key in sorted(found)).encode()


_BAD: Final = frozenset(b"\r\n\0")


def valid(verdict: Verdict) -> bool:
    """Nothing in it but what may stand in headers (`validate_mutations`)."""
    for _, name, value in (*verdict.headers, *verdict.response_headers):
        if not name or not _BAD.isdisjoint(name) or not _BAD.isdisjoint(value) or b" " in name:
            return False
    return all(name and _BAD.isdisjoint(name) for name in verdict.remove)
