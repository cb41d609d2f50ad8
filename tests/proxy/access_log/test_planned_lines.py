"""Lines of requests that go the shortest way (`AccessLogger.log_planned`): each is the line that the long way writes."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from bootstraps import web
from build_support import COMPILED
from label_support import chain, one_label, router
from plane_support import at, head, plane, run, upstream

from mesh_codecs.http1 import requests
from mesh_codecs.http1.head_table import HeadTable
from mesh_proxy.access_log import AccessLogger
from mesh_proxy.config.model import AccessLogConfig, AccessLogFilterConfig
from mesh_proxy.formatting import compile_format, compile_json
from mesh_proxy.formatting.operator import OPERATORS, UNKNOWN, Syntax
from mesh_proxy.formatting.parser import compile_operator

FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
OK = b'HTTP/1.1 200 OK\r\nserver: s\r\nx-up: "a\\b"\r\ncontent-length: 2\r\n\r\nok'
NO = b"HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nno\n"
TIMES = 5
LONG = "common_http_protocol_options: {max_requests_per_connection: 1000}"
"""what makes the manager take the long way"""
ISTIO = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% '
    '%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" '
    '"%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)
CHANGING = {"START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL", "UNIQUE_ID", "RESPONSE_HEADERS_BYTES"}
"""which no two lines have in common; the time that the endpoint took is in the size of the headers"""
PARAMETERS = {
    "REQ": ("user-agent", "x-request-id", ":path", "x-quoted", "x-none?:authority", "x-request-id?x-none", "x-none", ":method"),
    "RESP": ("x-up", "x-envoy-upstream-service-time", "server", ":status", "date", "x-none", "content-length"),
    "METADATA": ("ROUTE:m:k", "CLUSTER:m:k", "DYNAMIC:m:k"),
    "CLUSTER_METADATA": ("m", "m:k"),
    "COMMON_DURATION": ("DS_RX_BEG:DS_TX_END:ms",),
    "QUERY_PARAM": ("q",),
}


def every_operator() -> dict[str, str]:
    """Those that requests of the shortest way have, with several parameters where these make a difference."""
    found: dict[str, str] = {}
    for name, (syntax, _) in OPERATORS.items():
        plain = ("x",) if Syntax.PARAMETER_REQUIRED in syntax or name == "FILTER_STATE" else ("",)
        for parameter in PARAMETERS.get(name, plain):
            if compile_operator(name, parameter or None, None).place != UNKNOWN and name not in CHANGING:
                found[f"{name}({parameter})"] = f"%{name}({parameter})%" if parameter else f"%{name}%"
    return found


EVERY = every_operator()
PLANNED = {name: form for name, form in EVERY.items() if compile_format(form).plannable}
EVERY_TEXT = "".join(f"{name}=<{form}>;" for name, form in EVERY.items()).replace("%}", "}") + "100%%\n"
SENT = {
    "plain": b"GET /x HTTP/1.1\r\nhost: a\r\nuser-agent: u%s\r\n\r\n",
    "quotes": b'GET /"x\\ HTTP/1.1\r\nhost: a\r\nuser-agent: "\\\t\xc3\xa9\xff%\r\nx-quoted: "\xe4"\r\n\r\n',
    "another sidecar's": b"GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: <id>\r\ntraceparent: <id>\r\n\r\n",
    "odd ids": b'GET /x HTTP/1.1\r\nhost: a\r\nx-request-id: "<id>\\\r\n\r\n',
    "empty post": b"POST /named HTTP/1.1\r\nhost: b:81\r\ncontent-length: 0\r\nx-envoy-internal: true\r\n\r\n",
}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The logs whose lines were planned, in the order of the lines; nothing with machine code."""
    seen: list[str] = []
    if not COMPILED:
        log = AccessLogger.log_planned

        def counted(self: AccessLogger, *arguments: Any) -> None:
            seen.append(self.path)
            log(self, *arguments)

        monkeypatch.setattr(AccessLogger, "log_planned", counted)
        monkeypatch.setattr(requests, "_table", HeadTable())  # no other test has sent these heads
    return seen


def log_of(path: Path, form: object, condition: object = None) -> str:
    """`access_log` of the manager; the format is a text, a mapping for JSON, or None."""
    config: dict[str, Any] = {"@type": FILE, "path": str(path)}
    if isinstance(form, dict):
        config["log_format"] = {"json_format": form}
    elif form is not None:
        config["log_format"] = {"text_format_source": {"inline_string": form}}
    entry: dict[str, Any] = {"name": "log", "typed_config": config}
    if condition is not None:
        entry["filter"] = condition
    return f"access_log: {json.dumps([entry])}"


async def lines(path: Path, hcm: str, sent: bytes, responses: tuple[bytes, ...] = (OK,), **parts: str) -> list[bytes]:
    """What is logged of two connections of TIMES requests, with names instead of what differs from run to run: each id, port and
    connection by its own, so that one in the place of another is seen."""
    names: dict[bytes, bytes] = {}
    answers = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        port = writer.get_extra_info("peername")[1]
        names.setdefault(b"127.0.0.1:%d" % port, b"<upstream connection>")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                got = re.search(rb'x-request-id: "?([0-9a-f-]{36})', await head(reader))
                assert got is not None
                names[got[1]] = b"<id %d>" % answers
                writer.write(responses[answers % len(responses)])
                answers += 1

    async with upstream(serve) as address, plane(web(hcm=hcm, endpoint=at(address), **parts)) as proxy:
        names[b"127.0.0.1:%d" % address.port] = b"<endpoint>"
        callers = [await proxy.connect("web") for _ in range(2)]
        for number, (_, writer) in enumerate(callers):
            names[b"127.0.0.1:%d" % writer.get_extra_info("sockname")[1]] = b"<caller %d>" % number
            names[b"127.0.0.1:%d" % writer.get_extra_info("peername")[1]] = b"<listener>"
        for _ in range(TIMES):
            for reader, writer in callers:
                writer.write(sent.replace(b"<id>", str(uuid.uuid4()).encode()))
                length = re.search(rb"content-length: (\d+)", await head(reader))
                assert length is not None
                await reader.readexactly(int(length[1]))
        for _, writer in callers:
            writer.close()
        assert proxy.data._sinks.flush(20.0)
    return named(path, names)


def named(path: Path, names: dict[bytes, bytes]) -> list[bytes]:
    text = path.read_bytes() if path.exists() else b""
    for found, name in names.items():
        port = found.rpartition(b":")[2]
        text = text.replace(found, name).replace(b"=<%b>" % port, b"=<port of %b>" % name)
        text = text.replace(b'()":%b,' % port, b'()":<port of %b>,' % name)
    text = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", b"<time>", text)
    text = re.sub(rb'((?:DURATION|CONNECTION_ID|SERVICE-TIME)(?:\([\w:-]*\))?"?[=:]<?"?)\d+', rb"\1<number>", text, flags=re.I)
    text = re.sub(rb'(service-time\)"?[=:]<?"?)\d+', rb"\1<number>", text)
    text = re.sub(rb"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", b"<date>", text)
    text = re.sub(rb' [23] \d+ \d+ "', b' <bytes> <ms> <ms> "', text)
    return text.splitlines()


async def both_ways(
    tmp_path: Path, form: object, condition: object, sent: bytes, responses: tuple[bytes, ...], **parts: str
) -> list[bytes]:
    one, other = tmp_path / "short", tmp_path / "long"
    short = await lines(one, log_of(one, form, condition), sent, responses, **parts)
    long = await lines(other, log_of(other, form, condition) + ", " + LONG, sent, responses, **parts)
    for line, other_line in zip(short, long, strict=True):
        # By pieces, so that a failure shows which one.
        assert re.split(rb',"|;', line) == re.split(rb',"|;', other_line)
    return short


@pytest.mark.parametrize(
    "form", [None, ISTIO, EVERY_TEXT, EVERY], ids=["Envoy", "Istio", "every operator", "every operator in JSON"]
)
@pytest.mark.parametrize("name", SENT)
def test_the_line_is_that_of_the_long_way(name: str, form: object, tmp_path: Path, planned: list[str]) -> None:
    found: list[bytes] = []

    async def test() -> None:
        metadata = "metadata: {filter_metadata: {m: {k: [1, two]}}}"
        route = f"name: the route, match: {{prefix: /}}, route: {{cluster: a}}, {metadata}"
        found.extend(await both_ways(tmp_path, form, None, SENT[name], (OK, NO), route=route, cluster=metadata))

    run(test())
    assert len(found) == 2 * TIMES
    assert len({line for line in found if b" 200 " in line or b"=<200>" in line or b":200" in line}) == TIMES
    if not COMPILED:
        assert TIMES <= len(planned) < 2 * TIMES  # the first ones are how heads become known
    if isinstance(form, dict):
        for line in (tmp_path / "short").read_bytes().splitlines():
            assert json.loads(line.decode())["RESPONSE_FLAGS()"] == "-"


CONDITIONS = {
    "status": ({"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "x"}}}}, TIMES),
    "duration": ({"duration_filter": {"comparison": {"op": "GE", "value": {"default_value": 9999999, "runtime_key": "x"}}}}, 0),
    "flag": ({"response_flag_filter": {}}, 0),
    "header": ({"header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/x"}}}}, 2 * TIMES),
    "share": ({"runtime_filter": {"runtime_key": "x", "percent_sampled": {"numerator": 100}}}, 2 * TIMES),
    "grpc": ({"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}}, TIMES),
    "no probe": ({"not_health_check_filter": {}}, 2 * TIMES),
    "both": (
        {
            "and_filter": {
                "filters": [
                    {"not_health_check_filter": {}},
                    {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": 200, "runtime_key": "x"}}}},
                ]
            }
        },
        TIMES,
    ),
}


def test_the_time_of_another_sidecar(tmp_path: Path, planned: list[str]) -> None:
    """It is told where the router adds none of its own."""
    responses = tuple(OK.replace(b"content", b"x-envoy-upstream-service-time: %d\r\ncontent" % number) for number in range(10))
    quiet = "http_filters: [{name: router, typed_config: {'@type': %s, suppress_envoy_headers: true}}]"
    hcm = quiet % "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    log = tmp_path / "log"

    async def test() -> None:
        found = await lines(log, f"{log_of(log, '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%|')}, {hcm}", SENT["plain"], responses)
        assert found == [b"0|1|2|3|4|5|6|7|8|9|"]

    run(test())
    assert planned or COMPILED


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name: str, tmp_path: Path, planned: list[str]) -> None:
    condition, expected = CONDITIONS[name]
    found: list[bytes] = []

    async def test() -> None:
        found.extend(await both_ways(tmp_path, ISTIO, condition, SENT["plain"], (OK, NO)))

    run(test())
    assert len(found) == expected
    assert planned or COMPILED


def test_with_filters_that_repeat_what_they_did(tmp_path: Path, planned: list[str]) -> None:
    """The long way is that of a head that never comes again."""
    found: list[bytes] = []

    async def test() -> None:
        hcm = ", ".join([log_of(tmp_path / "log", ISTIO), chain(one_label("{header: user-agent}"), router(""))])
        found.extend(await lines(tmp_path / "log", hcm, SENT["plain"]))

    run(test())
    assert len(found) == 2 * TIMES
    assert len(set(found)) == 2 * TIMES
    assert len({re.sub(rb"<(id|caller) \d>", b"", line) for line in found}) == 1
    assert planned or COMPILED


def test_two_logs_with_lines_of_their_own(tmp_path: Path, planned: list[str]) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    logs = json.loads(log_of(one, "%REQ(x-request-id)% %RESPONSE_CODE%\n").removeprefix("access_log: "))
    logs += json.loads(log_of(other, "always the same\n").removeprefix("access_log: "))

    async def test() -> None:
        found = await lines(one, f"access_log: {json.dumps(logs)}", SENT["plain"])
        assert found == [b"<id %d> 200" % number for number in range(2 * TIMES)]

    run(test())
    assert other.read_text() == "always the same\n" * 2 * TIMES
    assert COMPILED or set(planned) == {str(one), str(other)}


@pytest.mark.parametrize(
    ("config", "planned_lines", "answerable"),
    [
        ({}, True, True),
        ({"text_format": ISTIO}, True, True),
        ({"json_format": {"a": {"b": ["%START_TIME%", "%DURATION%"]}, "c": "code %RESPONSE_CODE%"}}, True, True),
        ({"text_format": '%START_TIME(%Y "%f" é)%'}, True, True),
        ({"json_format": {"a": '%START_TIME(%Y "%f")%'}}, False, True),
        ({"json_format": {"a": "%START_TIME(é)%"}}, False, True),
        ({"text_format": "%START_TIME% %START_TIME(%s)%"}, False, True),
        ({"json_format": {"a": "at %START_TIME%"}}, False, True),
        ({"json_format": {"a": "%PROTOCOL%"}, "omit_empty_values": True}, False, True),
        ({"json_format": {"a": ["%BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_SENT%"]}, "omit_empty_values": True}, False, False),
        ({"json_format": {"a": ["%BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_SENT%"]}}, False, False),
        ({"text_format": "%REQ(x-request-id):8%"}, False, True),
        ({"text_format": "%REQ(traceparent)%"}, False, True),
        ({"text_format": "%REQ(x-request-id?x-b)%"}, False, True),
        ({"text_format": "%REQ(user-agent):8%"}, True, True),
        ({"text_format": "%RESP(date)%"}, False, True),
        ({"text_format": "%DOWNSTREAM_WIRE_BYTES_SENT%"}, False, False),
        ({"text_format": "%DYNAMIC_METADATA(a:b)%"}, False, True),
        ({"text_format": "%DOWNSTREAM_TLS_VERSION%"}, False, True),
        ({"text_format": "%DOWNSTREAM_PEER_URI_SAN%"}, True, True),
        ({"filter": AccessLogFilterConfig(kind="grpc_status", values=("OK",))}, False, True),
        ({"filter": AccessLogFilterConfig(kind="or", children=(AccessLogFilterConfig(kind="grpc_status"),))}, False, True),
        ({"filter": AccessLogFilterConfig(kind="response_flag")}, True, True),
    ],
    ids=str,
)
def test_what_can_be_planned(config: dict[str, Any], planned_lines: bool, answerable: bool) -> None:
    class Sinks:
        def get(self, path: str) -> None:
            return None

    sinks: Any = Sinks()
    if COMPILED:
        pytest.skip("compiled classes take no stand-ins")
    logger = AccessLogger(AccessLogConfig(path="x", **config), sinks, {})
    assert (logger._plans, logger.answerable) == (planned_lines, answerable)


def test_what_formats_say_of_themselves() -> None:
    assert compile_format(ISTIO).plannable
    assert compile_json({"a": "%UNIQUE_ID%"}).plannable is False
