"""Access loggers and the conditions on their entries."""

from __future__ import annotations

from typing import Any

from mesh_proxy.config.model.common import AccessLogConfig, AccessLogFilterConfig, BodyFormatConfig
from mesh_proxy.config.reader import Reader
from mesh_proxy.config.translate.common import fraction, required, text_of
from mesh_proxy.config.translate.formats import check_format
from mesh_proxy.config.translate.matchers import header_matcher

_LOGGERS = "envoy.extensions.access_loggers"
_STREAMS = {
    f"{_LOGGERS}.stream.v3.StdoutAccessLog": "/dev/stdout",
    f"{_LOGGERS}.stream.v3.StderrAccessLog": "/dev/stderr",
}
_RESPONSE_FLAGS = frozenset(
    (
        *("LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH"),
        *("DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO"),
    )
)


def access_log(reader: Reader) -> AccessLogConfig:
    """`envoy.config.accesslog.v3.AccessLog`."""
    reader.text("name")
    condition = reader.sub("filter")
    log_filter = access_log_filter(condition) if condition is not None else None
    extension = reader.extension()
    if extension is None:
        raise reader.error("needs typed_config")
    if extension.type in _STREAMS:
        return _logger(extension.reader, _STREAMS[extension.type], "access_log_format", log_filter)
    if extension.type == f"{_LOGGERS}.file.v3.FileAccessLog":
        return _logger(extension.reader, extension.reader.text("path"), "access_log_format", log_filter)
    raise extension.unsupported("access logger")


def _logger(reader: Reader, path: str, oneof: str, log_filter: AccessLogFilterConfig | None) -> AccessLogConfig:
    kind = reader.oneof(oneof)
    if kind == "log_format":
        return substitution_format(required(reader, kind), path, log_filter)
    if kind == "format":
        text = reader.text("format")
        check_format(text, reader.at("format"))
        return AccessLogConfig(path=path, text_format=text or None, filter=log_filter)
    if kind in ("json_format", "typed_json_format"):
        return AccessLogConfig(path=path, json_format=_json(reader, kind), filter=log_filter)
    return AccessLogConfig(path=path, filter=log_filter)


def substitution_format(reader: Reader, path: str, log_filter: AccessLogFilterConfig | None) -> AccessLogConfig:
    """`SubstitutionFormatString`."""
    kind = reader.oneof("format")
    omit_empty = reader.flag("omit_empty_values")
    options = reader.sub("json_format_options")
    if options is not None:
        options.flag("sort_properties")  # keys are always sorted, with this option and without it
    reader.text("content_type")  # a log line has none
    if kind == "json_format":
        return AccessLogConfig(path=path, json_format=_json(reader, kind), omit_empty_values=omit_empty, filter=log_filter)
    text = format_text(reader, kind)
    return AccessLogConfig(path=path, text_format=text, omit_empty_values=omit_empty, filter=log_filter)


def format_text(reader: Reader, kind: str) -> str:
    """The text of a SubstitutionFormatString whose `format` is a text."""
    text = reader.text("text_format") if kind == "text_format" else text_of(required(reader, "text_format_source"))
    check_format(text, reader.at(kind))
    return text


def body_format(reader: Reader) -> BodyFormatConfig:
    """`SubstitutionFormatString` for a body."""
    kind = reader.oneof("format")
    options = reader.sub("json_format_options")
    if options is not None:
        options.flag("sort_properties")  # keys are always sorted
    omit_empty, content_type = reader.flag("omit_empty_values"), reader.text("content_type")
    if kind == "json_format":
        return BodyFormatConfig(json=_json(reader, kind), content_type=content_type, omit_empty_values=omit_empty)
    return BodyFormatConfig(text=format_text(reader, kind), content_type=content_type, omit_empty_values=omit_empty)


def _json(reader: Reader, name: str) -> dict[str, Any]:
    values = reader.struct(name)
    _check_json(values, reader.at(name))
    return values


def _check_json(value: Any, path: str) -> None:
    if isinstance(value, str):
        check_format(value, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_json(item, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_json(item, f"{path}[{i}]")


def access_log_filter(reader: Reader) -> AccessLogFilterConfig:
    """`AccessLogFilter`."""
    kind = reader.oneof("filter_specifier")
    translate = _FILTERS.get(kind)
    if translate is None:
        raise reader.error("this condition is not supported", kind)
    return translate(required(reader, kind))


def _comparison(kind: str, reader: Reader) -> AccessLogFilterConfig:
    comparison = required(reader, "comparison")
    value = required(comparison, "value")
    return AccessLogFilterConfig(
        kind=kind, op=comparison.enum("op"), value=value.number("default_value"), runtime_key=value.text("runtime_key")
    )


def _runtime(reader: Reader) -> AccessLogFilterConfig:
    key = reader.text("runtime_key")
    if reader.flag("use_independent_randomness"):
        raise reader.error("is not supported", "use_independent_randomness")
    return AccessLogFilterConfig(kind="runtime", runtime_key=key, fraction=fraction(reader.sub("percent_sampled"), key))


def _response_flags(reader: Reader) -> AccessLogFilterConfig:
    flags = reader.strings("flags")
    for i, flag in enumerate(flags):
        if flag not in _RESPONSE_FLAGS:
            raise reader.error(f"unknown response flag {flag!r}", f"flags[{i}]")
    return AccessLogFilterConfig(kind="response_flag", values=flags)


def _grpc_status(reader: Reader) -> AccessLogFilterConfig:
    numbers = reader.numbers("statuses")
    names = reader.message.DESCRIPTOR.fields_by_name["statuses"].enum_type.values_by_number
    return AccessLogFilterConfig(kind="grpc_status", values=tuple(names[n].name for n in numbers), exclude=reader.flag("exclude"))


_FILTERS = {
    "status_code_filter": lambda r: _comparison("status_code", r),
    "duration_filter": lambda r: _comparison("duration", r),
    "not_health_check_filter": lambda _: AccessLogFilterConfig(kind="not_health_check"),
    "traceable_filter": lambda _: AccessLogFilterConfig(kind="traceable"),
    "runtime_filter": _runtime,
    "and_filter": lambda r: AccessLogFilterConfig(kind="and", children=r.each("filters", access_log_filter)),
    "or_filter": lambda r: AccessLogFilterConfig(kind="or", children=r.each("filters", access_log_filter)),
    "header_filter": lambda r: AccessLogFilterConfig(kind="header", header=header_matcher(required(r, "header"))),
    "response_flag_filter": _response_flags,
    "grpc_status_filter": _grpc_status,
}
