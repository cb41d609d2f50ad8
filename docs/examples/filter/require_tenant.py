"""An HTTP filter of another distribution: requests must name their tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesh_codecs.events import RequestHeaders
from mesh_filters.definition import FieldError, FilterContext, FilterDefinition
from mesh_filters.filter import Filter, FilterStatus, Stream


@dataclass(frozen=True, slots=True)
class RequireTenant(Filter):
    """Configuration and filter in one: it holds nothing of a stream, so one instance serves all of them."""

    header: bytes

    def factory(self, context: FilterContext) -> Filter:
        return self

    def on_request_headers(self, stream: Stream, event: RequestHeaders) -> FilterStatus:
        if self.header in event.headers:
            return FilterStatus.CONTINUE
        stream.send_local_reply(403, b"who are you?", details="tenant_missing")
        return FilterStatus.STOP


def configure(values: Mapping[str, Any]) -> RequireTenant:
    header = values.get("header", "x-tenant")
    if not isinstance(header, str) or not header:
        raise FieldError("header", "must be the name of a header")
    return RequireTenant(header.lower().encode())


definition = FilterDefinition(type_url="example.RequireTenant", fields=("header",), configure=configure)
