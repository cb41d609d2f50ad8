"""Lines with what few values decide filled in (`mesh_proxy.formatting.usual`): the same as without."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from proxy.formatting.test_formatter import http_info

from mesh_codecs.headers import Headers
from mesh_proxy.formatting import DEFAULT_FORMAT, Formatter, UsualLines, compile_format, compile_json, usual
from mesh_proxy.formatting.operator import OPERATORS, Syntax
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import StreamInfo

PARAMETERS = {
    "REQ": ("user-agent", "x-request-id", ":path", "x-none?:authority", "x-none", "x-none?x-a", ":method", "x-a", "host"),
    "RESP": ("x-up", ":status", "x-none"),
    "METADATA": ("DYNAMIC:a.b:c", "CLUSTER:com.x:o"),
    "DYNAMIC_METADATA": ("a.b",),
    "COMMON_DURATION": ("DS_RX_BEG:DS_TX_END:ms",),
}
CHANGING = {"EMIT_TIME", "EMIT_TIME_LOCAL", "UNIQUE_ID"}


def every_operator() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, (syntax, _) in OPERATORS.items():
        plain = ("x",) if Syntax.PARAMETER_REQUIRED in syntax or name == "FILTER_STATE" else ("",)
        for parameter in PARAMETERS.get(name, plain) if name not in CHANGING else ():
            form = f"%{name}({parameter})%" if parameter else f"%{name}%"
            found[form] = form
            if Syntax.LENGTH in syntax:
                found[form[:-1] + ":2%"] = form[:-1] + ":2%"
    return found


def infos() -> Iterator[StreamInfo]:
    """A request, and others that differ from it in what lines keep, in what they do not keep, and in what is missing."""
    yield http_info()
    yield http_info()
    info = http_info()
    info.response_code, info.details, info.flags = 503, 'no "healthy" upstream', flags.NO_HEALTHY_UPSTREAM
    info.upstream = info.response = None
    info.upstream_local_address = info.upstream_protocol = b""
    yield info
    info = http_info()
    info.request.method, info.request.authority, info.request.path = b'P"', b"", b'/\\%s\xff"'
    info.route_name = "100%s"
    info.request.headers = Headers([(b"x-a", b'"\xe4%d'), (b"user-agent", b"")])
    yield info
    info = http_info()
    info.bytes_sent, info.end_time = 7, 200.0
    info.connection.requested_server_name = b""
    yield info


FORMATS = {
    "default": compile_format(DEFAULT_FORMAT),
    "every operator": compile_format("".join(f"{form}|%%|" for form in every_operator())),
    "nothing for what is missing": compile_format("".join(f"{form}|" for form in every_operator()), omit_empty=True),
    "JSON": compile_json(every_operator()),
    "JSON of text": compile_json({"a": "%PROTOCOL% %REQ(x-a)%", "b": ["%REQ(x-a)%", "%%", "%RESPONSE_CODE%"]}),
    "only what is kept": compile_format("%PROTOCOL% %RESPONSE_CODE%"),
    "nothing that is kept": compile_format("%REQ(x-a)% %BYTES_SENT%"),
    "one header": compile_format("%REQ(x-a)%"),
    "the same twice": compile_format("%REQ(x-a)% %BYTES_SENT% %REQ(x-a)% %BYTES_SENT% %PROTOCOL% %PROTOCOL%"),
    "nothing": compile_format("text 100%%"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_line(name: str) -> None:
    formatter = FORMATS[name]
    assert isinstance(formatter, Formatter)
    lines = UsualLines(formatter)
    for _ in range(2):
        for info in infos():
            assert lines.format(info) == formatter.format(info)


def test_what_is_kept_too_seldom_to_be_of_use_is_not_kept_for_a_while() -> None:
    formatter = compile_format("%RESPONSE_CODE_DETAILS%")
    lines = UsualLines(formatter)
    info = http_info()
    for number in range(usual.ENTRIES):
        info.details = f"d{number}"
        assert lines.format(info) == b"d%d" % number
    assert len(lines._templates) == usual.ENTRIES
    for number in range(1 + usual.REST):
        info.details = f"e{number}"
        assert lines.format(info) == b"e%d" % number
    assert len(lines._templates) == 1
    for number in range(2 * usual.ENTRIES):
        info.details = f"d{number % 100}"
        assert lines.format(info) == b"d%d" % (number % 100)
    assert len(lines._templates) == 101


def test_lines_do_not_outlive_their_second() -> None:
    lines = UsualLines(compile_format("%PROTOCOL% %START_TIME(%s)%"))
    info = http_info()
    now = int(time.time())
    for number in range(3):
        info.start_wall = float(now + number)
        assert lines.format(info) == b"HTTP/1.1 %d" % (now + number)
