"""`envoy.filters.http.jwt_authn`."""

from __future__ import annotations

import dataclasses

from mesh_filters.jwt_authn import JwtAuthnConfig, JwtRouteConfig, RuleConfig
from mesh_filters.jwt_keys import KeySet
from mesh_filters.jwt_places import COOKIE, HEADER, PARAMETER, Place
from mesh_filters.jwt_provider import CLOCK_SKEW_S, ProviderConfig
from mesh_filters.jwt_requirements import RequirementConfig
from mesh_filters.jwt_source import RemoteKeysConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import required, text_of
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.matchers import string_matcher
from mesh_proxy.config.translate.route import route_match
from mesh_proxy.config.translate.services import http_uri

_PACKAGE = "envoy.extensions.filters.http.jwt_authn.v3"
_MAX_LIST = 100
"""requirements in one list"""


def _translate(extension: Extension, context: Context) -> JwtAuthnConfig:
    reader = extension.reader
    providers = tuple(_provider(name, inner, context) for name, inner in reader.entries("providers"))
    names = frozenset(one.name for one in providers)
    named = {name: _requirement(inner, names) for name, inner in reader.entries("requirement_map")}
    return JwtAuthnConfig(
        providers=providers,
        rules=reader.each("rules", lambda r: _rule(r, names, named)),
        requirements=tuple(named.items()),
        bypass_cors_preflight=reader.flag("bypass_cors_preflight"),
        strip_failure_response=reader.flag("strip_failure_response"),
        stat_prefix=reader.text("stat_prefix"),
    )


def _provider(name: str, reader: Reader, context: Context) -> ProviderConfig:
    normal, lifetime, subject = (
        reader.sub("normalize_payload_in_metadata"),
        reader.seconds("max_lifetime"),
        reader.sub("subjects"),
    )
    cache = reader.sub("jwt_cache_config")
    if cache is not None:
        # Signatures are remembered anyway, within bounds of our own.
        cache.number("jwt_cache_size")
        cache.number("jwt_max_token_size")
    config = ProviderConfig(
        name=name,
        issuer=reader.text("issuer"),
        audiences=reader.strings("audiences"),
        subject=string_matcher(subject) if subject is not None else None,
        require_expiration=reader.flag("require_expiration"),
        max_lifetime_s=lifetime,
        forward=reader.flag("forward"),
        places=_places(reader),
        payload_header=reader.lower("forward_payload_header"),
        pad_payload=reader.flag("pad_forward_payload_header"),
        payload_metadata=reader.text("payload_in_metadata"),
        header_metadata=reader.text("header_in_metadata"),
        split_claims=normal.strings("space_delimited_claims") if normal is not None else (),
        clock_skew_s=reader.number("clock_skew_seconds") or CLOCK_SKEW_S,
        claims_to_headers=reader.each("claim_to_headers", lambda r: (r.lower("header_name"), r.text("claim_name"))),
        clear_route=reader.flag("clear_route_cache"),
    )
    kind = reader.oneof("jwks_source_specifier")
    if kind == "remote_jwks":
        return dataclasses.replace(config, remote=_remote(required(reader, kind), context))
    source = required(reader, kind)
    keys = text_of(source)
    try:
        KeySet(keys.encode())
    except ValueError as error:
        raise source.error(str(error)) from None
    return dataclasses.replace(config, keys=keys)


def _places(reader: Reader) -> tuple[Place, ...]:
    headers = reader.each("from_headers", lambda r: Place(HEADER, r.lower("name").encode(), r.text("value_prefix").encode()))
    parameters = tuple(Place(PARAMETER, name.encode()) for name in reader.strings("from_params"))
    cookies = tuple(Place(COOKIE, name.encode()) for name in reader.strings("from_cookies"))
    return (*headers, *parameters, *cookies)


def _remote(reader: Reader, context: Context) -> RemoteKeysConfig:
    cluster, scheme, authority, path, timeout = http_uri(required(reader, "http_uri"), context)
    ahead, retry = reader.sub("async_fetch"), reader.sub("retry_policy")
    refetch = 1.0
    if ahead is not None:
        ahead.flag("fast_listener")  # listeners wait for no keys here: requests do
        refetch = ahead.seconds("failed_refetch_duration", 1.0) or 1.0
    back_off = retry.sub("retry_back_off") if retry is not None else None
    base = 1.0
    if back_off is not None:
        base = back_off.seconds("base_interval", 1.0) or 1.0
        back_off.seconds("max_interval")
    return RemoteKeysConfig(
        cluster=cluster,
        scheme=scheme,
        authority=authority,
        path=path,
        timeout_s=timeout,
        cache_s=reader.seconds("cache_duration", 600.0) or 600.0,
        in_advance=ahead is not None,
        failed_refetch_s=refetch,
        retries=min(retry.number("num_retries", 1), 10) if retry is not None else 0,
        retry_base_s=base,
    )


def _rule(reader: Reader, names: frozenset[str], named: dict[str, RequirementConfig]) -> RuleConfig:
    match = route_match(required(reader, "match"))
    kind = reader.oneof("requirement_type")
    if kind == "requires":
        return RuleConfig(match=match, requires=_requirement(required(reader, kind), names))
    if kind == "requirement_name":
        name = reader.text(kind)
        if name not in named:
            raise reader.error(f"there is no requirement {name!r} in requirement_map", kind)
        return RuleConfig(match=match, requires=named[name])
    return RuleConfig(match=match)


def _requirement(reader: Reader, names: frozenset[str]) -> RequirementConfig:
    kind = reader.oneof("requires_type")
    if kind == "provider_name":
        return RequirementConfig(kind=kind, provider=_known(reader, kind, names))
    if kind == "provider_and_audiences":
        inner = required(reader, kind)
        return RequirementConfig(kind=kind, provider=_known(inner, "provider_name", names), audiences=inner.strings("audiences"))
    if kind in ("requires_any", "requires_all"):
        children = required(reader, kind).each("requirements", lambda r: _requirement(r, names))
        if len(children) > _MAX_LIST:
            raise reader.error(f"has more than {_MAX_LIST} entries", kind)
        return RequirementConfig(kind=kind, children=children)
    if kind:
        required(reader, kind)
    return RequirementConfig(kind=kind)


def _known(reader: Reader, field: str, names: frozenset[str]) -> str:
    name = reader.text(field)
    if name not in names:
        raise reader.error(f"there is no provider {name!r}", field)
    return name


def _translate_route(extension: Extension, context: Context) -> JwtRouteConfig:
    reader = extension.reader
    if reader.oneof("requirement_specifier") == "disabled":
        return JwtRouteConfig(disabled=reader.flag("disabled"))
    return JwtRouteConfig(requirement=reader.text("requirement_name"))


register_http_filter(
    f"{_PACKAGE}.JwtAuthentication", _translate, route_type_url=f"{_PACKAGE}.PerRouteConfig", translate_route=_translate_route
)
