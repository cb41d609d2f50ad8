"""The admin endpoints after three requests: status, headers, and the body exactly, by lines, as JSON, or in its shape only."""

import json
import re
import time
from typing import Any

import pytest
from parity import Case, Client, Observation, Pair, Side, Suite, bootstrap, cluster, http, req

pytestmark = pytest.mark.envoy

HEADERS = ("content-type", "cache-control", "x-content-type-options", "server")


def leaves(value: Any, path: str, values: bool) -> dict[str, str]:
    """Each leaf of a JSON value by its path; list items by their name where they have one, else all under `[]`."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in leaves(inner, f"{path}.{key}", values).items()}
    if isinstance(value, list):
        found: dict[str, str] = {} if value else {path: "[]"}
        for item in value:
            name = item.get("name", "") if isinstance(item, dict) and isinstance(item.get("name"), str) else ""
            found |= leaves(item, f"{path}[{name}]", values)
        return found
    return {path: json.dumps(value) if values else type(value).__name__}


def look(path: str, mode: str, method: str = "GET"):
    """Ask the admin and note the answer.

    `exact`: the text; `lines`: each line; `json`: each leaf; `shape`: the leaves' types; `status`: no body.
    """

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        warm(side)
        answer = side.admin(path, method)
        seen.notes["status"] = str(answer.status)
        headers = {name.lower(): value for name, value in answer.headers}
        for name in HEADERS:
            seen.notes[f"header {name}"] = headers.get(name, "<absent>")
        body = answer.body.decode("utf-8", "replace")
        if mode == "exact":
            seen.notes["body"] = body
        elif mode == "lines":
            for line in body.splitlines():
                key, mark, value = line.rpartition("::") if "::" in line else line.rpartition(": ")
                seen.notes[f"line {key}{mark}"] = value
        elif mode in ("json", "shape"):
            try:
                seen.notes |= leaves(json.loads(body), "body", mode == "json")
            except ValueError:
                seen.notes["body"] = f"not JSON: {body[:200]!r}"
        elif mode == "prometheus":
            for line in body.splitlines():
                sample = re.fullmatch(r"(# TYPE \S+ \S+)|(\S+?(?:\{.*\})?) (\S+)", line)
                key = (sample[1] or sample[2]) if sample else f"bad line {line!r}"
                seen.notes[f"line {key}"] = (sample[3] or "") if sample else ""

    return run


WARM: set[int] = set()


def warm(side: Side) -> None:
    """Three requests, once for each side, and time for the counters to arrive."""
    if id(side) in WARM:
        return
    WARM.add(id(side))
    with Client(side, "main") as client:
        for target in ("/", "/", "/none"):
            client.send(req("GET", target))
            client.response()
    side.new_lines("main.log", 3)
    side.upstream.finish()
    side.upstream.begin()
    time.sleep(1.5)  # a worker's counters reach the admin about once a second


def ask(name: str, path: str, mode: str, status: int = 200, method: str = "GET", **more: Any) -> Case:
    return Case(name, run=look(path, mode, method), listener="nolog", log=0, want={"note.status": str(status)}, **more)


def sequence(*steps: tuple[str, str]):
    """Several calls in order: their statuses, and their bodies if short."""

    def run(pair: Pair, side: Side, seen: Observation) -> None:
        warm(side)
        for i, (method, path) in enumerate(steps):
            answer = side.admin(path, method)
            body = answer.body.decode()
            seen.notes[f"{i} {method} {path}"] = f"{answer.status} {body if len(body) < 60 else '…'}"

    return run


def failed_health_check(pair: Pair, side: Side, seen: Observation) -> None:
    """What traffic sees while /healthcheck/fail holds: served, with the connection closed after the answer."""
    seen.notes["fail"] = str(side.admin("/healthcheck/fail", "POST").status)
    pair.talk(side, seen, req("GET", "/"))
    seen.notes["ok"] = str(side.admin("/healthcheck/ok", "POST").status)
    pair.talk(side, seen, req("GET", "/"))


def drained(pair: Pair, side: Side, seen: Observation) -> None:
    """After /drain_listeners nobody is accepted any more, the admin goes on."""
    seen.notes["drain"] = str(side.admin("/drain_listeners", "POST").status)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with Client(side, "main") as client:
                client.stream.wait_end(0.01)
        except OSError:
            seen.notes["connect"] = "refused"
            break
    seen.notes["ready"] = str(side.admin("/ready").status)


BUILD = {
    "note.body*.node.extensions*": "which extensions are built in differs, and is not what a caller relies on",
    "note.body*.node.user_agent_build_version.*": "the builds differ",
    **{
        f"note.body.command_line_options.{name}": "an option of Envoy's that this proxy does not offer"
        for name in (
            "base_id_path", "component_log_level", "cpuset_threads", "disabled_extensions", "enable_core_dump", "enable_fine_grain_logging",
            "enable_mutex_tracing", "file_flush_min_size", "ignore_unknown_dynamic_fields", "local_address_ip_version", "log_format",
            "log_format_escaped", "log_path", "log_stacktrace_single_entry", "reject_unknown_dynamic_fields", "service_zone",
            "skip_deprecated_logs", "skip_hot_restart_on_no_parent", "skip_hot_restart_parent_stats", "stats_tag", "use_dynamic_base_id",
        )
    },
}  # fmt: skip
SUITE = Suite(
    bootstrap([http("main", "- {name: r, match: {path: /}, route: {cluster: a}}"), http("second", "- {match: {prefix: /}, route: {cluster: a}}")], [cluster("a", "a"), cluster("b", "b*5", "refused.r", extra="circuit_breakers: {thresholds: [{max_connections: 7, max_pending_requests: 8, max_requests: 9, max_retries: 10}]}")]),
    (
        ask("ready", "/ready", "exact"),
        ask("server_info", "/server_info", "shape", accept=BUILD),
        ask("clusters", "/clusters", "lines"),
        ask("clusters_filter", "/clusters?filter=b", "lines"),
        ask("clusters_json", "/clusters?format=json", "json"),
        ask("listeners", "/listeners", "exact"),
        ask("listeners_json", "/listeners?format=json", "json"),
        ask("config_dump", "/config_dump", "shape", accept=BUILD),
        ask("config_dump_types", "/config_dump?resource=static_listeners", "json"),
        ask("config_dump_static_clusters", "/config_dump?resource=static_clusters", "shape"),
        ask("config_dump_unknown_resource", "/config_dump?resource=nope", "exact", 404),
        ask("config_dump_name", "/config_dump?name_regex=second", "shape", accept=BUILD),
        ask("memory", "/memory", "shape"),
        ask("certs", "/certs", "json"),
        ask("hot_restart_version", "/hot_restart_version", "status"),
        ask("init_dump", "/init_dump", "json"),
        ask("runtime", "/runtime", "json"),
        ask("help", "/help", "status"),
        ask("index", "/", "status"),
        ask("unknown", "/nothing", "status", 404),
        ask("stats_http", "/stats?filter=^http\\.main\\.downstream_(rq|cx)_(total|active|http1_total|2xx|4xx)$", "exact"),
        ask("stats_cluster", "/stats?filter=^cluster\\.a\\.upstream_(rq|cx)_(total|active|200|2xx|completed)$", "exact"),
        ask("stats_used", "/stats?usedonly&type=Counters&filter=^cluster\\.(a|b)\\.upstream", "lines"),
        ask("stats_json", "/stats?format=json&filter=^cluster\\.a\\.upstream_rq_(total|200)$", "exact"),
        ask("stats_gauges", "/stats?type=Gauges&filter=^cluster\\.a\\.(membership|upstream_cx_active)", "exact"),
        ask("stats_counters", "/stats?type=Counters&filter=^cluster\\.a\\.upstream_rq_(total|active)$", "exact"),
        ask("stats_histograms", "/stats?type=Histograms&filter=^cluster\\.a\\.upstream_rq_time$", "status"),
        ask("stats_bad_filter", "/stats?filter=[", "status", 400),
        ask("stats_bad_format", "/stats?format=nonsense", "exact", 400),
        ask("stats_bad_type", "/stats?type=Nonsense", "status", 400),
        ask("stats_prometheus", "/stats/prometheus?filter=^cluster\\.a\\.upstream_rq_(total|200|completed|active)$", "prometheus"),
        ask("stats_prometheus_listener", "/stats/prometheus?filter=^listener\\.127.*downstream_cx_(total|active)$", "prometheus"),
        ask("stats_prometheus_http", "/stats/prometheus?filter=^http\\.main\\.downstream_rq_(total|xx|2xx|completed)$", "prometheus"),
        ask("stats_prometheus_as_format", "/stats?format=prometheus&usedonly&filter=^cluster\\.a\\.upstream_rq_total$", "prometheus"),
        ask("post_on_reading", "/stats?filter=^server.live$", "exact", method="POST"),
        *(
            ask(f"get_{path.strip('/').replace('/', '_')}_is_refused", path, "exact", 405)
            for path in ("/logging", "/healthcheck/fail", "/healthcheck/ok", "/drain_listeners", "/quitquitquit", "/reset_counters", "/reopen_logs", "/runtime_modify")
        ),
        ask("logging_shows", "/logging", "status", method="POST"),
        ask("logging_unknown_logger", "/logging?nope=info", "status", 400, method="POST"),
        ask("logging_unknown_level", "/logging?level=loud", "status", 400, method="POST"),
        Case("logging_level", run=sequence(("POST", "/logging?level=info"), ("POST", "/logging?level=warning")), listener="nolog", log=0),
        Case("healthcheck", run=sequence(("POST", "/healthcheck/fail"), ("GET", "/ready"), ("GET", "/server_info"), ("POST", "/healthcheck/ok"), ("GET", "/ready")), listener="nolog", log=0),
        Case("healthcheck_and_traffic", run=failed_health_check, status=200, log=2),
        Case("reopen_logs", run=sequence(("POST", "/reopen_logs")), listener="nolog", log=0),
        Case("reset_counters", run=sequence(("POST", "/reset_counters"), ("GET", "/stats?filter=^cluster\\.b\\.upstream_rq_total$")), listener="nolog", log=0),
        Case("drain_listeners", run=drained, listener="nolog", log=0),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", SUITE.cases, ids=str)
def test_admin(pair: Pair, case: Case) -> None:
    pair.check(case)
