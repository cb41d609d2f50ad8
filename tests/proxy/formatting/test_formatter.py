"""The substitution formatter (`mesh_proxy.formatting`).

Expected texts are those that Envoy 1.40 printed for the same stream, unless a comment says otherwise.
"""

from __future__ import annotations

import json
import os
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from upstream_support import Bench, cluster, endpoint

from mesh_codecs.events import RequestHeaders, ResponseHeaders
from mesh_codecs.headers import Headers
from mesh_proxy.formatting import DEFAULT_FORMAT, compile_format, compile_json
from mesh_proxy.formatting.facts import port_of, strip_port
from mesh_proxy.formatting.operator import OPERATORS, Syntax
from mesh_proxy.stream import flags
from mesh_proxy.stream.info import ConnectionInfo, StreamInfo


def empty_info() -> StreamInfo:
    return StreamInfo(ConnectionInfo(0, 0.0, 0.0), 0.0)


def http_info() -> StreamInfo:
    """A request that went through a prefix rewrite to an upstream."""
    connection = ConnectionInfo(7, 100.0, 1795272658.654959)
    connection.remote_address = connection.direct_remote_address = b"10.0.0.9:58418"
    connection.local_address = b"[::1]:8080"
    connection.filter_chain_name = "chain"
    connection.requested_server_name = b"sni.example"
    info = StreamInfo(connection, 100.0)
    info.protocol = b"HTTP/1.1"
    request_headers = [
        (b"x-a", b"abcdef"),
        (b"x-empty", b""),
        (b"x-rep", b"1"),
        (b"x-rep", b"2"),
        (b"user-agent", b"t"),
        (b"x-request-id", b"id-1"),
        (b"x-envoy-original-path", b"/up/y?a=1&b=x%79z&a=2"),
    ]
    info.request = RequestHeaders(1, b"GET", b"http", b"h.example:81", b"/x/y?a=1&b=x%79z&a=2", Headers(request_headers), True)
    info.response = ResponseHeaders(1, 200, Headers([(b"x-up", b"a b"), (b"x-envoy-upstream-service-time", b"1")]), False)
    info.response_code = 200
    info.details = "via_upstream"
    info.bytes_sent = 359
    info.response_header_bytes = 188
    info.request_header_bytes = 134
    info.wire_bytes_received, info.wire_bytes_sent = 134, 547
    info.route_name = "uproute"
    info.virtual_host_name = "vh"
    info.cluster_name = "up"
    bench = Bench()
    metadata = {"com.x": {"k": "val", "o": {"z": 1, "p": "q"}, "n": 5.0, "b": True, "nul": None, "lst": [1, "a"]}}
    member = endpoint("127.0.0.1:36027", hostname="ep.example:90", metadata={"envoy.lb": {"v": "1"}})
    bench.apply(cluster("up", member, alt_stat_name="altname", metadata=metadata))
    found = info.cluster = bench.manager.get("up")
    assert found is not None
    (info.upstream,) = found.endpoints
    info.upstream_local_address = b"127.0.0.1:47100"
    info.upstream_protocol = b"HTTP/1.1"
    info.attempts = 1
    info.request_end_time = 100.0001
    info.first_upstream_tx_time = 100.0052
    info.last_upstream_tx_time = 100.0053
    info.first_upstream_rx_time = 100.0061
    info.last_upstream_rx_time = 100.0063
    info.first_downstream_tx_time = 100.0062
    info.end_time = 100.006464
    info.dynamic_metadata = {"a.b": {"c": "text", "d": {"e": 1}}}
    info.filter_state = {"plain": "word", "typed": {"x": 1}}
    return info


def text(format_text: str, info: StreamInfo | None = None) -> str:
    return compile_format(format_text).format(http_info() if info is None else info).decode()


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("REQ(:METHOD)", "GET"),
        ("REQ(:PATH)", "/x/y?a=1&b=x%79z&a=2"),
        ("REQ(x-none?x-a):3", "abc"),
        ("REQ(x-a?x-empty)", "abcdef"),
        ("REQ(x-none)", "-"),
        ("REQ(x-empty)", ""),
        ("REQ(host)", "h.example:81"),
        ("REQ(:scheme)", "http"),
        ("REQ(X-Rep)", "1"),
        ("REQUEST_HEADER(X-A)", "abcdef"),
        ("RESP(x-up)", "a b"),
        ("RESPONSE_HEADER(:status)", "200"),
        ("TRAILER(x)", "-"),
        ("PATH", "/up/y?a=1&b=x%79z&a=2"),
        ("PATH(NQ)", "/up/y"),
        ("PATH(NQ:ORIG)", "/up/y"),
        ("PATH(WQ:PATH)", "/x/y?a=1&b=x%79z&a=2"),
        ("PATH(NQ):3", "/up"),
        ("PATH(:ORIG)", "/up/y?a=1&b=x%79z&a=2"),
        ("QUERY_PARAM(a)", "1"),
        ("QUERY_PARAM(b):2", "xy"),
        ("QUERY_PARAM(zz)", "-"),
        ("QUERY_PARAMS", "a=1&b=x%79z&a=2"),
        ("QUERY_PARAMS(DECODED)", "a=1&b=xyz&a=2"),
        ("PROTOCOL", "HTTP/1.1"),
        ("RESPONSE_CODE", "200"),
        ("RESPONSE_CODE_DETAILS", "via_upstream"),
        ("RESPONSE_FLAGS", "-"),
        ("RESPONSE_FLAGS_LONG", "-"),
        ("BYTES_RECEIVED", "0"),
        ("BYTES_SENT", "359"),
        ("DOWNSTREAM_WIRE_BYTES_RECEIVED", "134"),
        ("DOWNSTREAM_WIRE_BYTES_SENT", "547"),
        ("UPSTREAM_WIRE_BYTES_SENT", "0"),
        ("DURATION", "6"),
        ("REQUEST_DURATION", "0"),
        ("REQUEST_TX_DURATION", "5"),
        ("RESPONSE_DURATION", "6"),
        ("RESPONSE_TX_DURATION", "0"),
        ("COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)", "6464"),
        ("COMMON_DURATION(US_TX_BEG:US_RX_BEG:ms)", "0"),
        ("COMMON_DURATION(DS_TX_END:DS_RX_BEG:ms)", "-"),
        ("COMMON_DURATION(x:DS_TX_END:ms)", "-"),
        ("COMMON_DURATION(US_CX_BEG:US_CX_END:us)", "-"),  # a difference: we do not keep the connection's times
        ("ROUTE_NAME", "uproute"),
        ("VIRTUAL_HOST_NAME", "vh"),  # not in Envoy 1.40
        ("UPSTREAM_CLUSTER", "altname"),
        ("UPSTREAM_CLUSTER_RAW", "up"),
        ("UPSTREAM_HOST", "127.0.0.1:36027"),
        ("UPSTREAM_HOST_NAME", "ep.example:90"),
        ("UPSTREAM_HOST_NAME_WITHOUT_PORT", "ep.example"),
        ("UPSTREAM_LOCAL_ADDRESS", "127.0.0.1:47100"),
        ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "127.0.0.1"),
        ("UPSTREAM_LOCAL_PORT", "47100"),
        ("UPSTREAM_REMOTE_ADDRESS", "127.0.0.1:36027"),
        ("UPSTREAM_REMOTE_PORT", "36027"),
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", "1"),
        ("UPSTREAM_PROTOCOL", "HTTP/1.1"),
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", "-"),
        ("DOWNSTREAM_REMOTE_ADDRESS", "10.0.0.9:58418"),
        ("DOWNSTREAM_REMOTE_PORT", "58418"),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "10.0.0.9"),
        ("DOWNSTREAM_LOCAL_ADDRESS", "[::1]:8080"),
        ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "::1"),
        ("DOWNSTREAM_LOCAL_PORT", "8080"),
        ("CONNECTION_ID", "7"),
        ("STREAM_ID", "id-1"),
        ("REQUESTED_SERVER_NAME", "sni.example"),
        ("REQUESTED_SERVER_NAME(HOST_FIRST)", "h.example:81"),
        ("REQUESTED_SERVER_NAME(SNI_FIRST)", "sni.example"),
        ("REQUESTED_SERVER_NAME(HOST_FIRST:ORIG)", "sni.example"),
        ("FILTER_CHAIN_NAME", "chain"),
        ("ACCESS_LOG_TYPE", "DownstreamEnd"),
        ("GRPC_STATUS", "-"),
        ("GRPC_STATUS_NUMBER", "-"),
        ("TRACE_ID", "-"),
        ("DOWNSTREAM_TLS_VERSION", "-"),
        ("DOWNSTREAM_PEER_CERT_V_START(%Y)", "-"),
        ("DYNAMIC_METADATA(a.b)", '{"c":"text","d":{"e":1}}'),
        ("DYNAMIC_METADATA(a.b:c)", "text"),
        ("DYNAMIC_METADATA(a.b:c):2", "te"),
        ("DYNAMIC_METADATA(a.b:c:x)", "-"),
        ("DYNAMIC_METADATA(none)", "-"),
        ("CLUSTER_METADATA(com.x:k)", "val"),
        ("CLUSTER_METADATA(com.x:o)", '{"p":"q","z":1}'),
        ("CLUSTER_METADATA(com.x:n)", "5"),
        ("CLUSTER_METADATA(com.x:b)", "true"),
        ("CLUSTER_METADATA(com.x:nul)", "-"),
        ("CLUSTER_METADATA(com.x:lst)", '[1,"a"]'),
        ("UPSTREAM_METADATA(envoy.lb:v)", "1"),
        ("METADATA(CLUSTER:com.x:k)", "val"),
        ("METADATA(UPSTREAM_HOST:envoy.lb)", '{"v":"1"}'),
        ("METADATA(ROUTE:com.x:k)", "-"),
        ("FILTER_STATE(plain)", "word"),
        ("FILTER_STATE(plain:PLAIN):2", "wo"),
        ("FILTER_STATE(typed:TYPED)", '{"x":1}'),
        ("FILTER_STATE(typed:FIELD:x)", "1"),
        ("FILTER_STATE(none)", "-"),
        ("ENVIRONMENT(MESH_PROXY_NO_SUCH_VARIABLE)", "-"),
        ("LOCAL_REPLY_BODY", ""),
        ("REQUEST_HEADERS_BYTES", "165"),
        ("RESPONSE_HEADERS_BYTES", "47"),
        ("RESPONSE_TRAILERS_BYTES", "0"),
        ("START_TIME", "2026-11-21T14:50:58.654Z"),
        ("START_TIME(%s)", "1795272658"),
        ("START_TIME(%s.%3f)", "1795272658.654"),
        ("START_TIME(%f)", "654959000"),
        ("START_TIME(%3f %6f %9f %1f)", "654 654959 654959000 6"),
        ("START_TIME(%Y/%m/%dT%H:%M:%S%z %s)", "2026/11/21T14:50:58+0000 1795272658"),
        (
            "START_TIME(%E3S %Ez %D %b %a %j %U %p %I %e %y %Z %%)",
            "58.654 +00:00 11/21/26 Nov Sat 325 46 PM 02 21 26 UTC %",
        ),
        ("START_TIME(%E4f)", "6549"),
        ("START_TIME(%E*S)", "58.654959"),
        ("START_TIME(%E*f)", "654959"),
        ("START_TIME(%3s)", "1795272658"),
        ("START_TIME(%s%3f)", "1795272658654"),
        ("START_TIME(%q)", "%q"),
        ("START_TIME(%4f|%2f|%7f)", "6549|65|6549590"),
        ("START_TIME(%E0S)", "58"),
    ],
)
def test_operator(operator: str, expected: str) -> None:
    assert text(f"%{operator}%") == expected
    assert text(f"<%{operator}%>%%") == f"<{expected}>%"


def test_envoys_default_line() -> None:
    assert text(DEFAULT_FORMAT) == (
        '[2026-11-21T14:50:58.654Z] "GET /up/y?a=1&b=x%79z&a=2 HTTP/1.1" 200 - 0 359 6 1 "-" "t" "id-1" "h.example:81" '
        '"127.0.0.1:36027"\n'
    )


def test_what_is_known_of_nothing() -> None:
    """Every operator copes with a stream of which nothing is known yet."""
    info = empty_info()
    parameters = {"COMMON_DURATION": "DS_RX_BEG:DS_RX_END:ms", "METADATA": "DYNAMIC:x"}
    for name, (syntax, _) in OPERATORS.items():
        parameter = parameters.get(name, "x")
        operator = f"%{name}({parameter})%" if Syntax.PARAMETER_REQUIRED in syntax or name == "FILTER_STATE" else f"%{name}%"
        assert isinstance(compile_format(operator).format(info), bytes)
        assert json.loads(compile_json({"k": operator}).format(info)).keys() == {"k"}


def test_a_tcp_session() -> None:
    info = empty_info()
    info.bytes_received, info.end_time = 3, 2.0
    info.connection.termination_details = "why not"
    info.flags = flags.UPSTREAM_CONNECTION_FAILURE | flags.UPSTREAM_RETRY_LIMIT_EXCEEDED
    assert text("%BYTES_RECEIVED% %RESPONSE_CODE% %PROTOCOL% %REQ(:METHOD)% %CONNECTION_TERMINATION_DETAILS%", info) == (
        "3 0 - - why not"
    )
    assert text("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE%", info) == (
        "URX,UF UpstreamRetryLimitExceeded,UpstreamConnectionFailure TcpConnectionEnd"
    )


def test_blanks_become_underscores_in_reasons() -> None:
    info = http_info()
    info.details = "upstream_reset{connection refused\t}"
    info.upstream_transport_failure = "delayed connect error: x"
    assert text("%RESPONSE_CODE_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%", info) == (
        "upstream_reset{connection_refused_} delayed_connect_error:_x"
    )
    assert text("%RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)%", info) == "upstream_reset{connection refused\t}"


def test_an_endpoint_that_was_never_reached_is_a_host_but_no_remote_address() -> None:
    info = http_info()
    info.upstream_local_address = b""
    assert text("%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_PORT%", info) == "127.0.0.1:36027 - -"


def test_what_belongs_to_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MESH_PROXY_TEST", "value")
    assert text("%ENVIRONMENT(MESH_PROXY_TEST):3% %HOSTNAME%") == f"val {socket.gethostname()}"
    assert text("%UNIQUE_ID%") != text("%UNIQUE_ID%")
    before = time.time()
    assert int(text("%EMIT_TIME(%s)%")) in range(int(before), int(before) + 5)


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert text("%START_TIME_LOCAL%") == "2026-11-21T20:20:58.654+0530"
        assert text("%START_TIME_LOCAL(%H:%M %Ez)%") == "20:20 +05:30"
        assert text("%START_TIME%") == "2026-11-21T14:50:58.654Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_fraction_that_ends_in_zeros() -> None:
    info = empty_info()
    info.start_wall = 1000000000.5
    assert text("%START_TIME(%E*S|%E*f|%3f)%", info) == "40.5|5|500"
    info.start_wall = 1000000000.0
    assert text("%START_TIME(%E*S|%E*f|%3f)%", info) == "40|0|000"


def test_the_second_is_not_remembered_too_long() -> None:
    formatter = compile_format("%START_TIME%")
    info = empty_info()
    for wall, expected in [(1.0, "00:00:01.000"), (1.25, "00:00:01.250"), (2.0, "00:00:02.000"), (1.5, "00:00:01.500")]:
        info.start_wall = wall
        assert formatter.format(info).decode() == f"1970-01-01T{expected}Z"


@pytest.mark.parametrize(
    ("trailers", "headers", "http", "camel", "snake", "number"),
    [
        ("0", None, 200, "OK", "OK", "0"),
        ("1", None, 200, "Canceled", "CANCELLED", "1"),
        (None, "14", 200, "Unavailable", "UNAVAILABLE", "14"),
        ("99", None, 200, "99", "99", "99"),
        ("x", None, 200, "-1", "-1", "-1"),
        (None, None, 503, "Unavailable", "UNAVAILABLE", "14"),
        (None, None, 200, "Unknown", "UNKNOWN", "2"),
        (None, None, 0, "-", "-", "-"),
    ],
)
def test_grpc_status(trailers: str | None, headers: str | None, http: int, camel: str, snake: str, number: str) -> None:
    info = http_info()
    assert info.request is not None
    assert info.response is not None
    info.request.headers.set(b"content-type", b"application/grpc+proto")
    info.response_code = http
    if headers:
        info.response.headers.set(b"grpc-status", headers.encode())
    if trailers:
        info.response_trailers = Headers([(b"grpc-status", trailers.encode())])
    found = text("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%", info)
    assert found == f"{camel} {snake} {number} {number}"


def test_tls_facts() -> None:
    info = http_info()
    info.connection.tls = SimpleNamespace(
        version="TLSv1.3", peer_uri_san=("spiffe://a", "spiffe://b"), peer_subject=b"CN=x", cipher="", peer_not_before=0.0
    )
    found = text("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_TLS_CIPHER%", info)
    assert found == "TLSv1.3 spiffe://a,spiffe://b CN=x -"
    assert text("%DOWNSTREAM_PEER_CERT_V_START% %DOWNSTREAM_PEER_CERT_V_END%", info) == "1970-01-01T00:00:00.000Z -"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("%NOTHING%", "unknown operator %NOTHING%"),
        ("a % b", "no valid command at position 2"),
        ("%REQ(x", "no valid command at position 0"),
        ("%REQ%", "%REQ% needs a parameter"),
        ("%REQ()%", "%REQ%: the header's name is empty"),
        ("%REQ(a?b?c)%", "more than one alternative"),
        ("%PROTOCOL:3%", "%PROTOCOL% takes no length"),
        ("%PROTOCOL(x)%", "%PROTOCOL% takes no parameter"),
        ("%START_TIME:3%", "takes no length"),
        ("%CLUSTER_METADATA(a:b):4%", "takes no length"),
        ("%PATH(ORIG_OR_PATH)%", "only WQ and NQ"),
        ("%PATH(WQ:X)%", "only ORIG"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:s)%", "the precision is"),
        ("%COMMON_DURATION(DS_RX_BEG)%", "START:END:PRECISION"),
        ("%GRPC_STATUS(X)%", "only CAMEL_STRING"),
        ("%RESPONSE_CODE_DETAILS(X)%", "only ALLOW_WHITESPACES"),
        ("%FILTER_STATE%", "a key is needed"),
        ("%FILTER_STATE(x:Y)%", "PLAIN, TYPED or FIELD"),
        ("%FILTER_STATE(x:FIELD)%", "PLAIN, TYPED or FIELD"),
        ("%METADATA(LISTENER:x)%", "supported are DYNAMIC"),
        ("%METADATA(ROUTE)%", "a namespace"),
        ("%REQUESTED_SERVER_NAME(X)%", "SNI_ONLY"),
        ("%QUERY_PARAMS(X)%", "only ORIG and DECODED"),
    ],
)
def test_formats_that_are_refused(bad: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"^where\.it: .*") as caught:
        compile_format(bad, "where.it")
    assert why in str(caught.value)


def test_values_for_headers_leave_out_what_is_missing() -> None:
    assert compile_format("a%REQ(none)%b", omit_empty=True).format(http_info()) == b"ab"
    assert compile_format("100%%", omit_empty=True).literal == b"100%"
    assert compile_format("").literal == b""
    assert compile_format("%REQ(x-a)%").literal is None


def test_addresses() -> None:
    cases: list[tuple[bytes, bytes, int | None]] = [
        (b"1.2.3.4:5", b"1.2.3.4", 5),
        (b"[::1]:80", b"::1", 80),
        (b"/run/x.sock", b"/run/x.sock", None),
        (b"/run/a:b", b"/run/a:b", None),
        (b"", b"", None),
    ]
    for address, host, port in cases:
        assert strip_port(address) == host
        assert port_of(address) == port


# JSON


def line(json_format: dict[str, Any], info: StreamInfo | None = None, **options: Any) -> Any:
    return compile_json(json_format, **options).format(http_info() if info is None else info)


def test_json_keeps_types_and_sorts_keys() -> None:
    json_format = {
        "text": "%REQ(x-a)%",
        "number": "%RESPONSE_CODE%",
        "missing": "%REQ(none)%",
        "mixed": "a %BYTES_SENT% %REQ(none)% %%",
        "literal": 'a "b" 100%%',
        "tree": {"z": "%CLUSTER_METADATA(com.x:o)%", "a": "%DURATION%", "empty": {}},
        "list": ["%ROUTE_NAME%", "x", 1, 2.0, 1.5, True, None, []],
        "flags": "%RESPONSE_FLAGS%",
        "50%": "",
        "grpc": "%GRPC_STATUS_NUMBER%",
    }
    assert line(json_format).decode() == (
        '{"50%":"","flags":"-","grpc":null,"list":["uproute","x",1,2,1.5,true,null,[]],"literal":"a \\"b\\" 100%",'
        '"missing":null,"mixed":"a 359 - %","number":200,"text":"abcdef",'
        '"tree":{"a":6,"empty":{},"z":{"p":"q","z":1}}}\n'
    )
    unsorted = compile_json({"b": "1", "a": "%BYTES_SENT%"}, sort=False).format(http_info())
    assert unsorted == b'{"b":"1","a":359}\n'


def test_json_without_empty_values() -> None:
    json_format = {
        "a": "%REQ(none)%",
        "b": "x%REQ(none)%y",
        "c": {"d": "%REQ(none)%"},
        "e": ["%REQ(none)%", 1],
        "f": "%DURATION%",
    }
    assert line(json_format, omit_empty=True) == b'{"b":"xy","c":{},"e":[1],"f":6}\n'


def test_json_escapes_what_a_caller_sends() -> None:
    info = http_info()
    assert info.request is not None
    info.request.headers.set(b"x-a", b'"\\\n\x01\xff\xc3\xa9%s')
    encoded = line({"a": "%REQ(x-a)%"}, info)
    assert json.loads(encoded) == {"a": '"\\\n\x01\ufffdé%s'}
    assert encoded.count(b"\n") == 1


def test_json_that_is_refused() -> None:
    with pytest.raises(ValueError, match=r"log\.a\.b: unknown operator"):
        compile_json({"a": {"b": "%X%"}}, path="log")
    for omit_empty in (False, True):
        with pytest.raises(ValueError, match=r"log\.a\[0\]: object"):
            compile_json({"a": [object()]}, path="log", omit_empty=omit_empty)
