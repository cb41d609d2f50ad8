"""Answers that the proxy makes itself: well-formed Dubbo responses that a consumer turns into an exception with our text.

A response whose status is not OK has one string for a body, and Java picks its decoder by the id in this very frame; hessian2
is on every Dubbo class path, so errors are in hessian2 whatever the request spoke. With status OK the consumer insists on the
serialization of its request.
"""

from __future__ import annotations

import enum
from typing import Final

from mesh_codecs.dubbo.codec import MessageTooLarge
from mesh_codecs.dubbo.frame import (
    BAD_REQUEST,
    CLIENT_ERROR,
    COMPACTED_JAVA,
    FASTJSON2,
    HESSIAN2,
    JAVA,
    NATIVE_JAVA,
    OK,
    SERVER_ERROR,
    SERVER_THREADPOOL_EXHAUSTED,
    SERVER_TIMEOUT,
    SERVICE_ERROR,
    SERVICE_NOT_FOUND,
    build_frame,
)
from mesh_codecs.dubbo.message import DubboMessage
from mesh_codecs.fastjson2.jsonb import string_bytes as jsonb_string
from mesh_codecs.hessian2.write import string_bytes as hessian_string
from mesh_codecs.java_serialization.primitives import STREAM_MAGIC, utf_bytes

MAX_TEXT: Final = 1024
"""bytes of our own text in an answer; it ends in logs and stack traces"""


class Refusal(enum.Enum):
    """Why the proxy answers by itself. The value is the words and the status.

    Where Envoy's dubbo_proxy answers the case, the status is Envoy's. A consumer retries all of them alike (as RpcException,
    NETWORK or TIMEOUT), so the status is for people and for logs.
    """

    NO_ROUTE = ("no route", SERVICE_NOT_FOUND)
    NO_CLUSTER = ("no cluster", SERVER_ERROR)
    NO_ENDPOINT = ("no healthy upstream", SERVER_ERROR)
    CONNECT_FAILED = ("connection failure", SERVER_ERROR)
    UPSTREAM_GONE = ("upstream connection termination", SERVER_ERROR)
    OVERFLOW = ("overflow", SERVER_ERROR)
    TIMEOUT = ("timeout", SERVER_TIMEOUT)
    MALFORMED = ("bad request", BAD_REQUEST)
    REQUEST_TOO_LARGE = ("data length too large", BAD_REQUEST)
    RESPONSE_TOO_LARGE = ("data length too large", CLIENT_ERROR)
    """what a Java consumer itself makes of a response over its limit"""
    LIMITED = ("rate limited", SERVER_THREADPOOL_EXHAUSTED)
    DENIED = ("access denied", SERVER_ERROR)
    FAULT = ("fault injected", SERVICE_ERROR)
    INTERNAL = ("internal error", SERVER_ERROR)

    @property
    def text(self) -> str:
        """In words."""
        return self.value[0]

    @property
    def status(self) -> int:
        """That the consumer sees."""
        return self.value[1]


def error_response(request_id: int, status: int, text: bytes) -> bytes:
    """A response with a status other than OK. `text` is UTF-8."""
    return build_frame(HESSIAN2, status, request_id, hessian_string(_clip(text)))


def refuse(request: DubboMessage | MessageTooLarge, reason: Refusal, text: bytes = b"") -> bytes:
    """The answer to a two-way request that the proxy will not forward."""
    return error_response(request.request_id, reason.status, text or reason.text.encode())


def exception_response(request: DubboMessage, text: bytes) -> bytes | None:
    """An answer with status OK whose result is a RuntimeException: a business error, which consumers do not retry.

    None when the serialization of the request is not one that we write.
    """
    make = _EXCEPTIONS.get(request.serialization_id)
    if make is None:
        return None
    return build_frame(request.serialization_id, OK, request.request_id, make(_clip(text)))


def null_response(request: DubboMessage) -> bytes | None:
    """An answer with status OK whose result is null. None when the serialization of the request is not one that we write."""
    body = _NULL_RESULTS.get(request.serialization_id)
    return None if body is None else build_frame(request.serialization_id, OK, request.request_id, body)


def _clip(text: bytes) -> bytes:
    """Not more than MAX_TEXT bytes, and no half character at the end."""
    if len(text) <= MAX_TEXT:
        return text
    return text[:MAX_TEXT].decode("utf-8", "ignore").encode()


_NULL_RESULTS: Final = {
    HESSIAN2: b"\x92",
    FASTJSON2: bytes.fromhex("00000002bd02"),
    JAVA: STREAM_MAGIC + b"\x77\x01\x02",
    COMPACTED_JAVA: STREAM_MAGIC + b"\x77\x01\x02",
    NATIVE_JAVA: STREAM_MAGIC + b"\x77\x01\x02",
}

# A java.lang.RuntimeException without a stack trace, split at its message, as each serializer writes it on JDK 17.

_HESSIAN2_EXCEPTION: Final = bytes.fromhex(
    "431a6a6176612e6c616e672e52756e74696d65457863657074696f6e941473757070726573736564457863657074696f6e730a737461636b54726163"
    "650563617573650d64657461696c4d65737361676560701f6a6176612e7574696c2e436f6c6c656374696f6e7324456d7074794c697374701c5b6a61"
    "76612e6c616e672e537461636b5472616365456c656d656e745190"
)
"""fields suppressedExceptions (empty list), stackTrace (empty array), cause (itself), detailMessage"""

_FASTJSON2_EXCEPTION: Final = bytes.fromhex("925952756e74696d65457863657074696f6e00a67f5664657461696c4d65737361676501")
_FASTJSON2_REST: Final = bytes.fromhex(
    "7f53737461636b547261636502947f5d73757070726573736564457863657074696f6e730392686a6176612e7574696c2e436f6c6c656374696f6e73"
    "24456d7074794c6973740494a5"
)
_JAVA_EXCEPTION: Final = bytes.fromhex(
    "7372001a6a6176612e6c616e672e52756e74696d65457863657074696f6e9e5f06470a3483e5020000787200136a6176612e6c616e672e4578636570"
    "74696f6ed0fd1f3e1a3b1cc4020000787200136a6176612e6c616e672e5468726f7761626c65d5c635273977b8cb0300044c00056361757365740015"
    "4c6a6176612f6c616e672f5468726f7761626c653b4c000d64657461696c4d6573736167657400124c6a6176612f6c616e672f537472696e673b5b00"
    "0a737461636b547261636574001e5b4c6a6176612f6c616e672f537461636b5472616365456c656d656e743b4c001473757070726573736564457863"
    "657074696f6e737400104c6a6176612f7574696c2f4c6973743b787071007e0007"
)
_JAVA_REST: Final = bytes.fromhex(
    "7572001e5b4c6a6176612e6c616e672e537461636b5472616365456c656d656e743b02462a3c3cfd22390200007870000000007372001f6a6176612e"
    "7574696c2e436f6c6c656374696f6e7324456d7074794c6973747ab817b43ca79ede020000787078"
)
_COMPACT_EXCEPTION: Final = bytes.fromhex(
    "737201001a6a6176612e6c616e672e52756e74696d65457863657074696f6e78720100136a6176612e6c616e672e457863657074696f6e7872010013"
    "6a6176612e6c616e672e5468726f7761626c65787071007e0003"
)
_COMPACT_REST: Final = bytes.fromhex(
    "757200001e5b4c6a6176612e6c616e672e537461636b5472616365456c656d656e743b02462a3c3cfd2239020000787000000000737201001f6a6176"
    "612e7574696c2e436f6c6c656374696f6e7324456d7074794c697374787078"
)


def _hessian2_exception(text: bytes) -> bytes:
    return b"\x90" + _HESSIAN2_EXCEPTION + hessian_string(text)


def _fastjson2_exception(text: bytes) -> bytes:
    value = _FASTJSON2_EXCEPTION + jsonb_string(text) + _FASTJSON2_REST
    return b"\x00\x00\x00\x02\xbd\x00" + len(value).to_bytes(4, "big") + value


def _java_string(text: bytes) -> bytes:
    raw = utf_bytes(text)
    return b"\x74" + len(raw).to_bytes(2, "big") + raw


def _java_exception(text: bytes) -> bytes:
    return STREAM_MAGIC + b"\x77\x02\x00\x01" + _JAVA_EXCEPTION + _java_string(text) + _JAVA_REST


def _compacted_java_exception(text: bytes) -> bytes:
    return STREAM_MAGIC + b"\x77\x02\x00\x01" + _COMPACT_EXCEPTION + _java_string(text) + _COMPACT_REST


def _native_java_exception(text: bytes) -> bytes:
    return STREAM_MAGIC + b"\x77\x01\x00" + _JAVA_EXCEPTION + _java_string(text) + _JAVA_REST


_EXCEPTIONS: Final = {
    HESSIAN2: _hessian2_exception,
    FASTJSON2: _fastjson2_exception,
    JAVA: _java_exception,
    COMPACTED_JAVA: _compacted_java_exception,
    NATIVE_JAVA: _native_java_exception,
}
