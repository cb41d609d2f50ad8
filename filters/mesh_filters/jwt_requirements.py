"""Which tokens a request must have (`JwtRequirement`): a tree of providers with `any`, `all` and what may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mesh_codecs.events import RequestHeaders
from mesh_filters.jwt_places import Place, find
from mesh_filters.jwt_provider import Provider
from mesh_filters.jwt_token import Status, Token, TokenError, plain_audience

Proof = tuple[Provider, Place, Token]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementConfig:
    """`JwtRequirement`; an empty one is satisfied by anything."""

    kind: str = ""
    """the name of its field in Envoy's message"""
    provider: str = ""
    audiences: tuple[str, ...] = ()
    children: tuple[RequirementConfig, ...] = ()


class Search:
    """One look at one request."""

    __slots__ = ("_parse", "proofs", "request")

    def __init__(self, request: RequestHeaders, parse: Callable[[bytes], Token]) -> None:
        self.request = request
        self._parse = parse
        self.proofs: list[Proof] = []
        """tokens that hold"""

    def token(self, raw: bytes) -> Token:
        """Taken apart; raises TokenError."""
        return self._parse(raw)


Check = Callable[[Search], Status]


class Requirements:
    """Compiles requirements against the providers of a filter."""

    __slots__ = ("_by_issuer", "providers")

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self.providers = providers
        self._by_issuer: dict[str, Provider] = {}
        for provider in providers.values():
            self._by_issuer.setdefault(provider.config.issuer, provider)

    def compile(self, config: RequirementConfig | None) -> Check | None:
        """None: nothing is required."""
        if config is None or not config.kind:
            return None
        if config.kind == "provider_name":
            return self._of_provider(config)
        if config.kind == "provider_and_audiences":
            return self._of_provider(config)
        if config.kind == "requires_all":
            return _all_of([self.compile(child) for child in config.children])
        if config.kind == "requires_any":
            return self._any_of(config)
        return self._lenient(list(self.providers.values()), failed_too=config.kind == "allow_missing_or_failed")

    def _of_provider(self, config: RequirementConfig) -> Check:
        provider = self.providers[config.provider]
        audiences = frozenset(map(plain_audience, config.audiences)) if config.kind == "provider_and_audiences" else None

        def check(search: Search) -> Status:
            return _each(search, provider.places, lambda token, place: (provider, provider.check(token, audiences)))

        return check

    def _any_of(self, config: RequirementConfig) -> Check:
        kinds = {child.kind for child in config.children}
        lenient = kinds & {"allow_missing", "allow_missing_or_failed"}
        checks = [self.compile(child) for child in config.children if child.kind not in lenient]
        if lenient:
            named = self._providers_in(config)
            checks.append(self._lenient(named, failed_too="allow_missing_or_failed" in lenient))

        def check(search: Search) -> Status:
            result = Status.MISSED
            for one in checks:
                status = one(search) if one is not None else Status.OK
                if status is Status.OK:
                    return status
                # That something is wrong with a token says more than that another is not there.
                if status not in (Status.MISSED, Status.UNKNOWN_ISSUER) or result is Status.MISSED:
                    result = status
            return result

        return check

    def _providers_in(self, config: RequirementConfig) -> list[Provider]:
        found = [self.providers[config.provider]] if config.provider else []
        for child in config.children:
            found += self._providers_in(child)
        return found or list(self.providers.values())

    def _lenient(self, providers: list[Provider], *, failed_too: bool) -> Check:
        places = tuple(dict.fromkeys(place for provider in providers for place in provider.places))

        def judge(token: Token, place: Place) -> tuple[Provider | None, Status]:
            provider = self._by_issuer.get(token.issuer) or self._by_issuer.get("")
            if provider is None or place not in provider.places:
                return None, Status.UNKNOWN_ISSUER
            return provider, provider.check(token)

        def check(search: Search) -> Status:
            status = _each(search, places, judge, go_on=failed_too)
            return Status.OK if failed_too or status is Status.MISSED else status

        return check


def _all_of(checks: list[Check | None]) -> Check:
    def check(search: Search) -> Status:
        for one in checks:
            status = one(search) if one is not None else Status.OK
            if status is not Status.OK:
                return status
        return Status.OK

    return check


def _each(
    search: Search,
    places: tuple[Place, ...],
    judge: Callable[[Token, Place], tuple[Provider | None, Status]],
    *,
    go_on: bool = False,
) -> Status:
    """Every token at these places must hold; the first that does not decides, unless the others are to be seen too."""
    result = Status.MISSED
    for place, raw in find(search.request, places):
        provider: Provider | None = None
        try:
            token = search.token(raw)
        except TokenError as error:
            status = error.status
        else:
            provider, status = judge(token, place)
            if status is Status.OK and provider is not None:
                search.proofs.append((provider, place, token))
        result = status
        if status is not Status.OK and not go_on:
            return status
    return result
