"""Operators of ours for Dubbo calls, `%DUBBO_…%`. For streams of any other protocol they have nothing to say.

The operators of Envoy that fit say what they say for HTTP: `%REQ(name)%` is an attachment, `%RESP(name)%` an attachment of the
answer, `%RESPONSE_CODE%` the HTTP status that the Dubbo status stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh_codecs.dubbo.frame import SERIALIZATION_NAMES, STATUS_NAMES
from mesh_codecs.errors import RemoteProtocolError
from mesh_proxy.formatting.operator import SAME, register_number, register_text
from mesh_proxy.stream.info import StreamInfo

if TYPE_CHECKING:
    from mesh_codecs.dubbo import DubboMessage


def _of_request(read: Callable[[DubboMessage], bytes]) -> Callable[[StreamInfo], bytes | None]:
    def text(info: StreamInfo) -> bytes | None:
        message = info.dubbo_request
        if message is None:
            return None
        try:
            return read(message) or None
        except RemoteProtocolError:
            return None

    return text


def _request_id(info: StreamInfo) -> int | None:
    return info.dubbo_request.request_id if info.dubbo_request is not None else None


def _serialization(message: DubboMessage) -> bytes:
    number = message.serialization_id
    return SERIALIZATION_NAMES.get(number, str(number)).encode()


def _kind(message: DubboMessage) -> bytes:
    return b"two-way" if message.two_way else b"one-way"


def _status(info: StreamInfo) -> int | None:
    frame = info.dubbo_response_frame
    return frame[3] if frame else None


def _status_name(info: StreamInfo) -> bytes | None:
    status = _status(info)
    return None if status is None else STATUS_NAMES.get(status, "UNKNOWN").encode()


register_text("DUBBO_SERVICE", _of_request(lambda message: message.service), SAME)
register_text("DUBBO_SERVICE_VERSION", _of_request(lambda message: message.service_version), SAME)
register_text("DUBBO_METHOD", _of_request(lambda message: message.real_method), SAME)
register_text("DUBBO_GROUP", _of_request(lambda message: message.group), SAME)
register_text("DUBBO_PARAMETER_TYPES", _of_request(lambda message: message.parameter_types), SAME)
register_text("DUBBO_SERIALIZATION", _of_request(_serialization), SAME)
register_text("DUBBO_KIND", _of_request(_kind), SAME)
register_number("DUBBO_REQUEST_ID", _request_id, SAME)
register_number("DUBBO_STATUS", _status, SAME)
register_text("DUBBO_STATUS_NAME", _status_name, SAME)
