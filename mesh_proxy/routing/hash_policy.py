"""The hash of a request by a route's hash policies: what RING_HASH and MAGLEV choose by.

Envoy's counterpart is source/common/http/hash_policy.cc. Each policy that finds something gives a 64-bit hash; they are combined
by rotation and exclusive or, so that two equal ones do not cancel each other out.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh_codecs.events import RequestHeaders
from mesh_proxy.config.model import HashPolicyConfig
from mesh_proxy.routing.matchers import query_parameters
from mesh_proxy.upstream.xxhash64 import xxhash64

RequestHash = Callable[[RequestHeaders, bytes], int | None]
"""takes the request and the client's address (`ip:port`); None: no policy found anything"""
Part = Callable[[RequestHeaders, bytes], bytes | None]

_MASK = 0xFFFFFFFFFFFFFFFF


def compile_hash_policies(configs: tuple[HashPolicyConfig, ...]) -> RequestHash | None:
    """One function for all policies of a route; None when there are none."""
    parts = [(_compile(config), config.terminal) for config in configs]
    if not parts:
        return None

    def request_hash(request: RequestHeaders, client: bytes) -> int | None:
        value: int | None = None
        for part, terminal in parts:
            found = part(request, client)
            if found is not None:
                old = 0 if value is None else (value << 1 | value >> 63) & _MASK
                value = old ^ xxhash64(found)
            if terminal and value is not None:
                break
        return value

    return request_hash


def _compile(config: HashPolicyConfig) -> Part:
    name = config.name.encode()
    if config.kind == "header":
        return _header(name)
    if config.kind == "cookie":
        return lambda request, _: cookie(request, name)
    if config.kind == "source_ip":
        return lambda _, client: client_ip(client)
    if config.kind == "query_parameter":
        return lambda request, _: query_parameters(request.path).get(name)
    return lambda request, _: None  # filter_state: nothing here sets any


def _header(name: bytes) -> Part:
    if name == b":path":
        return lambda request, _: request.path
    if name == b":method":
        return lambda request, _: request.method
    if name in (b":authority", b"host"):
        return lambda request, _: request.authority

    def values(request: RequestHeaders, _: bytes) -> bytes | None:
        found = request.headers.get_all(name)
        return b"".join(sorted(found)) if found else None

    return values


def cookie(request: RequestHeaders, name: bytes) -> bytes | None:
    """The value of a cookie, without quotes around it."""
    for line in request.headers.get_all(b"cookie"):
        for pair in line.split(b";"):
            key, equals, value = pair.strip(b" \t").partition(b"=")
            if equals and key == name:
                return value[1:-1] if len(value) > 1 and value[:1] == value[-1:] == b'"' else value
    return None


def client_ip(address: bytes) -> bytes | None:
    """`ip:port` or `[ip]:port` without port and brackets; None for a unix socket."""
    if address.startswith(b"["):
        return address[1:].partition(b"]")[0]
    ip, colon, _ = address.rpartition(b":")
    return ip if colon else None
