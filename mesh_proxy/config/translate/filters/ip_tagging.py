"""`envoy.filters.http.ip_tagging`."""

from __future__ import annotations

from mesh_filters.ip_tagging import IpTaggingConfig
from mesh_proxy.config.reader import Extension, Reader
from mesh_proxy.config.registry import register_http_filter
from mesh_proxy.config.translate.common import cidr
from mesh_proxy.config.translate.context import Context

_TYPE = "envoy.extensions.filters.http.ip_tagging.v3.IPTagging"


def _tag(reader: Reader) -> tuple[str, tuple[str, ...]]:
    return reader.text("ip_tag_name"), reader.each("ip_list", cidr)


def _translate(extension: Extension, context: Context) -> IpTaggingConfig:
    reader = extension.reader
    header = reader.sub("ip_tag_header")
    return IpTaggingConfig(
        request_type=reader.enum("request_type"),
        tags=reader.each("ip_tags", _tag),
        header=header.text("header") if header is not None else "",
        append=header is not None and header.enum("action") == "APPEND_IF_EXISTS_OR_ADD",
    )


register_http_filter(_TYPE, _translate)
