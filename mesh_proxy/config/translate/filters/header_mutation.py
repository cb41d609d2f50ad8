"""`envoy.filters.http.header_mutation`."""

from __future__ import annotations

from mesh_filters.header_mutation import HeaderMutationConfig, MutationConfig, MutationsConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import header_value_option, required
from mesh_proxy.config.translate.context import Context
from mesh_proxy.config.translate.formats import check_format
from mesh_proxy.config.translate.matchers import string_matcher

_PACKAGE = "envoy.extensions.filters.http.header_mutation.v3"


def _header(reader: Reader) -> MutationConfig:
    kind = reader.oneof("action")
    if kind == "remove":
        return MutationConfig(remove=reader.lower(kind))
    if kind == "remove_on_match":
        return MutationConfig(remove_matching=string_matcher(required(required(reader, kind), "key_matcher")))
    if kind != "append":
        raise reader.error("needs one of remove, append, remove_on_match")
    option = header_value_option(required(reader, kind))
    return MutationConfig(name=option.name, value=option.value, action=option.action, keep_empty=option.keep_empty)


def _parameter(reader: Reader) -> MutationConfig:
    remove = reader.text("remove")
    append = reader.sub("append")
    if append is None:
        if not remove:
            raise reader.error("needs append or remove")
        return MutationConfig(remove=remove)
    if remove:
        raise reader.error("cannot be given together with append", "remove")
    action = append.enum("action")
    record = append.sub("record")
    if record is not None:
        value = record.raw("value")
        if value.WhichOneof("kind") != "string_value":
            raise record.error("must be a string", "value")
        name, text = record.text("key"), str(value.string_value)
    else:
        entry = required(append, "entry")
        name, text = entry.text("key"), bytes(entry.raw("value")).decode()
    check_format(text, append.at("record.value"))
    return MutationConfig(name=name, value=text, action=action)


def _mutations(reader: Reader | None) -> MutationsConfig:
    if reader is None:
        return MutationsConfig()
    return MutationsConfig(
        request=reader.each("request_mutations", _header),
        query=reader.each("query_parameter_mutations", _parameter),
        response=reader.each("response_mutations", _header),
        request_trailers=reader.each("request_trailers_mutations", _header),
        response_trailers=reader.each("response_trailers_mutations", _header),
    )


def _translate(extension: Extension, context: Context) -> HeaderMutationConfig:
    reader = extension.reader
    return HeaderMutationConfig(
        mutations=_mutations(reader.sub("mutations")), most_specific_wins=reader.flag("most_specific_header_mutations_wins")
    )


def _translate_route(extension: Extension, context: Context) -> MutationsConfig:
    return _mutations(extension.reader.sub("mutations"))


register_http_filter(
    f"{_PACKAGE}.HeaderMutation",
    _translate,
    route_type_url=f"{_PACKAGE}.HeaderMutationPerRoute",
    translate_route=_translate_route,
)
