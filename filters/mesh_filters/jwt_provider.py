"""One issuer of tokens (`JwtProvider`): whether a token of it holds, and what the request gets from one that does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FilterContext
from mesh_filters.filter import Stream
from mesh_filters.jwt_places import DEFAULT, Place, remove
from mesh_filters.jwt_source import KeysNeeded, LocalKeys, RemoteKeys, RemoteKeysConfig
from mesh_filters.jwt_token import Status, Token, encode, plain_audience

CLOCK_SKEW_S: Final = 60
METADATA: Final = "envoy.filters.http.jwt_authn"
"""where metadata about tokens stands, whatever the filter is called in the configuration"""
wall: Callable[[], float] = time.time
"""seconds since the epoch; tests put their own in its place"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderConfig:
    """`JwtProvider`."""

    name: str
    issuer: str = ""
    """empty: any"""
    audiences: tuple[str, ...] = ()
    """empty: any"""
    subject: Any = None
    """a `StringMatcher` of the configuration"""
    require_expiration: bool = False
    max_lifetime_s: float | None = None
    """how long it may still hold"""
    keys: str = ""
    """a JWK set; empty: `remote`"""
    remote: RemoteKeysConfig | None = None
    forward: bool = False
    """the token goes on with the request"""
    places: tuple[Place, ...] = ()
    """empty: where RFC 6750 has them"""
    payload_header: str = ""
    pad_payload: bool = False
    payload_metadata: str = ""
    header_metadata: str = ""
    split_claims: tuple[str, ...] = ()
    """claims whose text is a list of words, and becomes one in the metadata"""
    clock_skew_s: int = CLOCK_SKEW_S
    claims_to_headers: tuple[tuple[str, str], ...] = ()
    """(header, claim)"""
    clear_route: bool = False


class Provider:
    """One provider in one worker."""

    __slots__ = ("_audiences", "_subject", "config", "places", "source")

    def __init__(self, config: ProviderConfig, context: FilterContext, stats: Any) -> None:
        self.config = config
        self.places = config.places or DEFAULT
        self.source: LocalKeys | RemoteKeys
        if config.remote is not None:
            self.source = RemoteKeys(config.remote, context, stats)
        else:
            self.source = LocalKeys(config.keys.encode())
        self._audiences = frozenset(map(plain_audience, config.audiences))
        self._subject = context.value_matcher(config.subject) if config.subject is not None else None

    def check(self, token: Token, audiences: frozenset[str] | None = None) -> Status:
        """Whether the token holds. `audiences` count instead of the provider's.

        Raises:
            KeysNeeded: the keys have to be fetched first.
        """
        config = self.config
        if config.issuer and token.issuer != config.issuer:
            return Status.UNKNOWN_ISSUER
        if self._subject is not None and not self._subject(token.subject.encode()):
            return Status.VERIFICATION
        now = wall()
        if now + config.clock_skew_s < token.nbf:
            return Status.NOT_YET_VALID
        if token.exp and now > token.exp + config.clock_skew_s:
            return Status.EXPIRED
        if not token.exp and (config.require_expiration or config.max_lifetime_s is not None):
            return Status.VERIFICATION
        if config.max_lifetime_s is not None and token.exp - now > config.max_lifetime_s:
            return Status.VERIFICATION
        allowed = self._audiences if audiences is None else audiences
        if allowed and not any(plain_audience(one) in allowed for one in token.audiences):
            return Status.AUDIENCE
        return self._prove(token)

    def _prove(self, token: Token) -> Status:
        source = self.source
        keys = source.current()
        if keys is None:
            return Status.FETCH
        status = keys.verify(token)
        if status is Status.NO_KEY and source.may_be_old():
            assert isinstance(source, RemoteKeys)
            raise KeysNeeded(source)
        return status

    def use(self, stream: Stream, request: RequestHeaders, place: Place, token: Token) -> None:
        """The token holds: give the request what it is to have of it."""
        config = self.config
        headers = request.headers
        if config.payload_header:
            text = token.payload_text
            headers.add(config.payload_header.encode(), text + b"=" * (-len(text) % 4) if config.pad_payload else text)
        for header, claim in config.claims_to_headers:
            value = claim_text(token.payload, claim)
            if value is not None:
                headers.add(header.encode(), value)
        if not config.forward:
            remove(request, place)
        if config.payload_metadata or config.header_metadata:
            metadata = stream.dynamic_metadata
            if metadata is None:
                metadata = stream.dynamic_metadata = {}
            mine = dict(metadata.get(METADATA, {}))
            if config.payload_metadata:
                mine[config.payload_metadata] = self._normal(token.payload)
            if config.header_metadata:
                mine[config.header_metadata] = token.header
            metadata[METADATA] = mine
        if config.clear_route and (config.payload_header or config.claims_to_headers):
            stream.clear_route()

    def _normal(self, payload: dict[str, Any]) -> dict[str, Any]:
        split = {name: payload[name].split() for name in self.config.split_claims if isinstance(payload.get(name), str)}
        return {**payload, **split} if split else payload


def claim_text(payload: Mapping[str, Any], path: str) -> bytes | None:
    """A claim, at a path with dots, as the value of a header; lists and objects as base64url JSON. None: there is none."""
    found: Any = payload
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    if isinstance(found, bool):
        return b"true" if found else b"false"
    if isinstance(found, str):
        return found.encode("utf-8", "replace").translate(None, b"\r\n\0")
    if isinstance(found, (int, float)):
        return (b"%d" % found) if found == int(found) else str(found).encode()
    if isinstance(found, (list, Mapping)):
        return encode(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))
    return None
