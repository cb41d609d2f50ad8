"""`%DUBBO_…%` in access logs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from build_support import COMPILED
from dubbo_support.wire import STRING, answer, call, frame, generic_call

from mesh_codecs.dubbo import DubboCodec, DubboMessage, HeadMemo
from mesh_proxy.formatting import compile_format, compile_json
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo

EVERY = (
    "%DUBBO_SERVICE% %DUBBO_SERVICE_VERSION% %DUBBO_METHOD% %DUBBO_GROUP% %DUBBO_PARAMETER_TYPES% %DUBBO_SERIALIZATION% "
    "%DUBBO_KIND% %DUBBO_REQUEST_ID% %DUBBO_STATUS% %DUBBO_STATUS_NAME%"
)

pytestmark = pytest.mark.skipif(COMPILED, reason="machine code takes no stand-in for a stream")


def info(request: bytes, response: bytes = b"") -> Any:
    (message,) = DubboCodec(HeadMemo()).receive_data(request)
    assert isinstance(message, DubboMessage)
    return SimpleNamespace(dubbo_request=message, dubbo_response_frame=response)


@pytest.mark.parametrize(
    ("request_frame", "response", "text"),
    [
        (
            call("demo.A", "m", types=STRING, arguments=("x",), attachments={"group": "g"}, request_id=-7),
            answer(-7),
            f"demo.A 1.0.0 m g {STRING} hessian2 two-way -7 20 OK",
        ),
        (call("demo.A", "m", version=None, one_way=True), b"", "demo.A - m - - hessian2 one-way 1 - -"),
        (
            generic_call("real", service="demo.A"),
            frame(2, 60, 1, b""),
            f"demo.A 1.0.0 real - {STRING}[{STRING}[Ljava/lang/Object; hessian2 two-way 1 60 SERVICE_NOT_FOUND",
        ),
        (frame(0xC2, 0, 1, b"\x40"), frame(2, 77, 1, b""), "- - - - - hessian2 two-way 1 77 UNKNOWN"),
        (frame(0xC8, 0, 1, b"?"), b"", "- - - - - kryo two-way 1 - -"),
        (frame(0xC1, 0, 1, b"?"), b"", "- - - - - 1 two-way 1 - -"),
    ],
)
def test_what_they_say(request_frame: bytes, response: bytes, text: str) -> None:
    assert compile_format(EVERY).format(info(request_frame, response)).decode() == text


def test_other_protocols_have_nothing_to_say() -> None:
    other = StreamInfo(ConnectionInfo(0, 0.0, 0.0), 0.0)
    assert compile_format(EVERY).format(other) == b"- - - - - - - - - -"
    assert compile_json({"status": "%DUBBO_STATUS%"}).format(other) == b'{"status":null}\n'


def test_numbers_are_numbers_in_json() -> None:
    made = compile_json({"id": "%DUBBO_REQUEST_ID%", "status": "%DUBBO_STATUS%"}).format
    assert made(info(call(request_id=-3), answer(-3))) == b'{"id":-3,"status":20}\n'
