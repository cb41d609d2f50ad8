"""Access logs: every operator in text and JSON, formats, filters."""

import json
import re

import pytest
import yaml
from parity import LATE, Case, Client, Observation, Pair, Reply, Side, Suite, bootstrap, cluster, file_log, hcm, listener, req
from parity.config import TYPE

pytestmark = pytest.mark.envoy

OPERATORS = {
    "req": "%REQ(X-ONE)%",
    "req-alternative": "%REQ(X-NONE?X-ONE)%",
    "req-cut": "%REQ(X-ONE):2%",
    "req-missing": "%REQ(X-NONE)%",
    "req-method": "%REQ(:METHOD)%",
    "req-path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "req-authority": "%REQ(:AUTHORITY)%",
    "req-scheme": "%REQ(:SCHEME)%",
    "req-long-name": "%REQUEST_HEADER(X-ONE)%",
    "resp": "%RESP(X-UP)%",
    "resp-status": "%RESP(:STATUS)%",
    "resp-long-name": "%RESPONSE_HEADER(X-UP)%",
    "trailer": "%TRAILER(X-T)%",
    "protocol": "%PROTOCOL%",
    "upstream-protocol": "%UPSTREAM_PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "code-details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "flags-long": "%RESPONSE_FLAGS_LONG%",
    "rx": "%BYTES_RECEIVED%",
    "tx": "%BYTES_SENT%",
    "request-headers-bytes": "%REQUEST_HEADERS_BYTES%",
    "response-headers-bytes": "%RESPONSE_HEADERS_BYTES%",
    "response-trailers-bytes": "%RESPONSE_TRAILERS_BYTES%",
    "up-wire-tx": "%UPSTREAM_WIRE_BYTES_SENT%",
    "up-wire-rx": "%UPSTREAM_WIRE_BYTES_RECEIVED%",
    "down-wire-tx": "%DOWNSTREAM_WIRE_BYTES_SENT%",
    "down-wire-rx": "%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
    "down-header-tx": "%DOWNSTREAM_HEADER_BYTES_SENT%",
    "down-header-rx": "%DOWNSTREAM_HEADER_BYTES_RECEIVED%",
    "ms-duration": "%DURATION%",
    "ms-request-duration": "%REQUEST_DURATION%",
    "ms-request-tx-duration": "%REQUEST_TX_DURATION%",
    "ms-response-duration": "%RESPONSE_DURATION%",
    "ms-response-tx-duration": "%RESPONSE_TX_DURATION%",
    "at-start": "%START_TIME%",
    "at-start-format": "%START_TIME(%Y/%m/%d %H:%M:%S)%",
    "at-start-seconds": "%START_TIME(%s.%3f)%",
    "at-start-micros": "%START_TIME(%s.%6f %Z)%",
    "at-emit": "%EMIT_TIME%",
    "route": "%ROUTE_NAME%",
    "upstream-host": "%UPSTREAM_HOST%",
    "upstream-host-name": "%UPSTREAM_HOST_NAME%",
    "upstream-cluster": "%UPSTREAM_CLUSTER%",
    "upstream-cluster-raw": "%UPSTREAM_CLUSTER_RAW%",
    "upstream-remote": "%UPSTREAM_REMOTE_ADDRESS%",
    "upstream-remote-ip": "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "upstream-remote-port": "%UPSTREAM_REMOTE_PORT%",
    "upstream-local": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream-local-ip": "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "upstream-local-port": "%UPSTREAM_LOCAL_PORT%",
    "upstream-failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "downstream-remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream-remote-ip": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "downstream-remote-port": "%DOWNSTREAM_REMOTE_PORT%",
    "downstream-direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "downstream-direct-ip": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "downstream-local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream-local-ip": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
    "downstream-local-port": "%DOWNSTREAM_LOCAL_PORT%",
    "id-connection": "%CONNECTION_ID%",
    "terminated": "%CONNECTION_TERMINATION_DETAILS%",
    "server-name": "%REQUESTED_SERVER_NAME%",
    "grpc": "%GRPC_STATUS%",
    "grpc-number": "%GRPC_STATUS_NUMBER%",
    "stream-id": "%STREAM_ID%",
    "hostname": "%HOSTNAME%",
    "type": "%ACCESS_LOG_TYPE%",
    "route-metadata": "%METADATA(ROUTE:parity:key)%",
    "dynamic-metadata": "%DYNAMIC_METADATA(none:key)%",
    "cluster-metadata": "%CLUSTER_METADATA(parity:key)%",
    "percent": "100%%",
}
FULL_ROUTES = """
- {name: named, match: {prefix: /named}, route: {cluster: a}, metadata: {filter_metadata: {parity: {key: from-route}}}}
- {name: rewritten, match: {prefix: /rewrite}, route: {cluster: a, prefix_rewrite: /new}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /direct}, direct_response: {status: 202, body: {inline_string: made}}}
- {match: {prefix: /slow}, route: {cluster: a, timeout: 1s}}
- {match: {prefix: /retry}, route: {cluster: a, retry_policy: {retry_on: 5xx}}}
- {match: {prefix: /}, route: {cluster: a}}
"""
SIMPLE_ROUTES = """
- {match: {prefix: /direct/202}, direct_response: {status: 202}}
- {match: {prefix: /direct/404}, direct_response: {status: 404}}
- {match: {prefix: /direct/503}, direct_response: {status: 503}}
- {match: {prefix: /refused}, route: {cluster: refused}}
- {match: {prefix: /}, route: {cluster: a}}
"""
# The time the upstream took has one digit more or less from run to run, and header bytes are compared.
QUIET = f"""
http_filters: [{{name: envoy.filters.http.router, typed_config: {{"@type": {TYPE}envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}}}]
"""


def logging(name: str, log: dict, routes: str = FULL_ROUTES, settings: str = QUIET) -> dict:
    return listener(name, hcm(name, routes, settings, [log]))


def formatted(name: str, form: str) -> dict:
    """A listener whose access log has this `log_format` (YAML)."""
    log = file_log(f"$(dir)/{name}.log")
    log["typed_config"]["log_format"] = yaml.safe_load(form)
    return logging(name, log)


def filtered(name: str, condition: str) -> dict:
    return logging(name, file_log(f"$(dir)/{name}.log") | {"filter": yaml.safe_load(condition)}, SIMPLE_ROUTES)


JSON_FORM = json.dumps(
    {
        "json_format": {key: op for key, op in OPERATORS.items() if key != "percent"}
        | {
            "nested": {
                "code": "%RESPONSE_CODE%",
                "text": "code %RESPONSE_CODE%",
                "number": 7,
                "flag": True,
                "list": ["%PROTOCOL%", "x"],
            }
        }
    }
)
TARGETS = ("/direct/202", "/direct/404", "/direct/503", "/refused", "/up")
FILTERS = {
    # name: (filter, which of TARGETS Envoy logs)
    "status_ge": ("status_code_filter: {comparison: {op: GE, value: {default_value: 404, runtime_key: none}}}", 3),
    "status_eq": ("status_code_filter: {comparison: {op: EQ, value: {default_value: 404, runtime_key: none}}}", 1),
    "status_le": ("status_code_filter: {comparison: {op: LE, value: {default_value: 202, runtime_key: none}}}", 2),
    "duration": ("duration_filter: {comparison: {op: GE, value: {default_value: 0, runtime_key: none}}}", 5),
    "flag_uf": ("response_flag_filter: {flags: [UF, UH]}", 1),
    "flag_any": ("response_flag_filter: {}", 1),
    "header": ("header_filter: {header: {name: x-log, string_match: {exact: 'yes'}}}", 0),
    "path": ("header_filter: {header: {name: ':path', string_match: {prefix: /up}}}", 1),
    "either": ("or_filter: {filters: [{response_flag_filter: {flags: [UF]}}, {status_code_filter: {comparison: {op: EQ, value: {default_value: 202, runtime_key: none}}}}]}", 2),
    "both": ("and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 500, runtime_key: none}}}}, {header_filter: {header: {name: ':path', string_match: {prefix: /direct}}}}]}", 1),
    "sampled_all": ("runtime_filter: {runtime_key: none, percent_sampled: {numerator: 100, denominator: HUNDRED}}", 5),
    "sampled_none": ("runtime_filter: {runtime_key: none, percent_sampled: {numerator: 0, denominator: HUNDRED}}", 0),
    "not_health_check": ("not_health_check_filter: {}", 5),
    "grpc_status": ("grpc_status_filter: {statuses: [UNAVAILABLE]}", 2),
}  # fmt: skip


def all_targets(at: str):
    def run(pair: Pair, side: Side, seen: Observation) -> None:
        statuses = []
        with Client(side, at) as client:
            for target in TARGETS:
                client.send(req("GET", target))
                statuses.append(client.response().status)
        seen.notes["statuses"] = str(statuses)

    return run


def defaulted(name: str) -> dict:
    log = file_log(f"$(dir)/{name}.log")
    del log["typed_config"]["log_format"]
    return logging(name, log)


def default_line(pair: Pair, side: Side, seen: Observation) -> None:
    """Envoy's own format, its fields as notes (time and durations in their form only)."""
    pair.talk(side, seen, req("GET", "/rewrite?q", "user-agent: me", "x-forwarded-for: 1.2.3.4"), listener="plain")
    line = side.new_lines("plain.log", 1)[0]
    line = re.sub(r"\[[^]]*\]", lambda m: re.sub(r"\d", "9", m[0]), line)
    seen.notes["line"] = re.sub(r' \d+ (?:\d+|-) "1\.2', ' <ms> <ms> "1.2', line)


SUITE = Suite(
    bootstrap(
        [
            logging("text", file_log("$(dir)/text.log", OPERATORS)),
            formatted("json", JSON_FORM),
            formatted("omit", 'text_format_source: {inline_string: "missing=%REQ(NONE)%\\tresp=%RESP(NONE)%\\tflags=%RESPONSE_FLAGS%\\n"}\nomit_empty_values: true'),
            formatted("jsonomit", '{json_format: {missing: "%REQ(NONE)%", there: "%PROTOCOL%", mixed: "a%REQ(NONE)%"}, omit_empty_values: true}'),
            formatted("escape", '{json_format: {header: "%REQ(X-ONE)%", path: "%REQ(:PATH)%"}}'),
            defaulted("plain"),
            *(filtered(f"filter-{name.replace('_', '-')}", condition) for name, (condition, _) in FILTERS.items()),
        ],
        [
            cluster("a", "a", extra="metadata: {filter_metadata: {parity: {key: from-cluster}}}"),
            cluster("refused", "refused.r"),
        ],
    ),
    (
        *(
            Case(f"{listener}_{name}", send, status, listener=listener, replies=replies, methods=methods, **more)
            for listener in ("text", "json")
            for name, send, status, replies, methods, more in (
                ("get", req("GET", "/named?q=1", "x-one: first"), 200, (Reply(headers=(("x-up", "u"),)),), (), {}),
                ("post", req("POST", "/", "x-one: 1", body=b"12345"), 200, (), (), {}),
                ("chunked", req("POST", "/", "transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n", 200, (Reply(framing="chunked"),), (), {}),
                ("trailers", req("GET", "/"), 200, (Reply(framing="chunked", trailers=(("x-t", "end"),)),), (), {}),
                ("rewritten", req("GET", "/rewrite/x", "x-one: a, b", "x-one: c"), 200, (), (), {}),
                ("no_route", req("GET", "/named", host=None), 400, (), (), {}),
                ("refused", req("GET", "/refused"), 503, (), (), {}),
                ("direct", req("GET", "/direct"), 202, (), (), {}),
                ("timeout", req("GET", "/slow"), 504, (Reply(delay=LATE),), (), {}),
                ("reset", req("GET", "/"), 503, (Reply(ending="reset_before"),), (), {}),
                ("retried", req("GET", "/retry"), 200, (Reply(status=503), Reply()), (), {}),
                ("bad_request", b"GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n", 400, (), (), {}),
                ("head", req("HEAD", "/"), 200, (), (), {}),
                ("forwarded_for", req("GET", "/", "x-forwarded-for: 1.2.3.4"), 200, (), (), {}),
                ("grpc", req("POST", "/", "content-type: application/grpc"), 200, (Reply(headers=(("grpc-status", "7"), ("content-type", "application/grpc"))),), (), {}),
            )
        ),
        Case("omit_empty", req("GET", "/"), 200, listener="omit"),
        Case("json_omit_empty", req("GET", "/"), 200, listener="jsonomit"),
        Case("json_escapes", req("GET", '/"\\x', 'x-one: "quoted" \\ back \t tab <&>'), 200, listener="escape"),
        Case("json_high_bytes", req("GET", "/", "x-one: caf\xc3\xa9"), 200, listener="escape"),
        Case("default_format", run=default_line, status=200, listener="plain", log=0),
        *(
            Case(f"filter_{name}", run=all_targets(f"filter-{name.replace('_', '-')}"), listener=f"filter-{name.replace('_', '-')}", log=count)
            for name, (_, count) in FILTERS.items()
        ),
        Case("filter_header_matches", req("GET", "/direct/202", "x-log: yes"), 202, listener="filter-header"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_access_log(pair: Pair, case: Case) -> None:
    pair.check(case)
