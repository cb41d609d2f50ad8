"""What each endpoint says; the shapes were compared with Envoy 1.40."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from mesh_proxy.supervisor.stage import Stage

Ask = Callable[..., tuple[int, str]]


def test_ready_follows_the_state(ask: Ask, supervisor: Any) -> None:
    assert ask("/ready") == (200, "LIVE\n")
    supervisor.stage = Stage.INITIALIZING
    assert ask("/ready") == (503, "INITIALIZING\n")
    supervisor.stage = Stage.LIVE
    assert ask("/healthcheck/fail", "POST") == (200, "OK\n")
    assert ask("/ready") == (503, "DRAINING\n")
    assert json.loads(ask("/server_info")[1])["state"] == "DRAINING"
    assert ask("/healthcheck/ok", "POST") == (200, "OK\n")
    assert ask("/ready") == (200, "LIVE\n")


def test_server_info(ask: Ask) -> None:
    info = json.loads(ask("/server_info")[1])
    assert info["uptime_current_epoch"] == "5s"
    assert info["command_line_options"]["concurrency"] == 2
    assert info["command_line_options"]["drain_time"] == "600s"
    assert info["node"]["id"] == "n1"
    assert info["node"]["metadata"] == {"A": "b"}


@pytest.mark.parametrize(
    "path",
    ["/healthcheck/fail", "/healthcheck/ok", "/drain_listeners", "/quitquitquit", "/reset_counters", "/reopen_logs", "/logging",
     "/runtime_modify"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_mutations_need_post(ask: Ask, supervisor: Any, path: str, method: str) -> None:
    assert ask(path, method) == (405, f"Method {method} not allowed, POST required.")
    assert supervisor.done == []
    assert not supervisor.health_check_failed


def test_control(ask: Ask, supervisor: Any) -> None:
    assert ask("/drain_listeners?graceful&inboundonly", "POST") == (200, "OK\n")
    assert ask("/drain_listeners?skip_exit", "POST") == (200, "OK\n")
    assert ask("/reopen_logs", "POST") == (200, "OK\n")
    assert ask("/reset_counters", "POST") == (200, "OK\n")
    assert ask("/quitquitquit", "POST") == (200, "OK\n")
    assert supervisor.done == [
        ("drain_listeners", (), {"inbound_only": True, "graceful": True, "skip_exit": False}),
        ("drain_listeners", (), {"inbound_only": False, "graceful": False, "skip_exit": True}),
        ("reopen_logs", (), {}),
        ("reset_counters", (), {}),
        ("stop_now", (), {}),
    ]
    assert ask("/runtime_modify", "POST")[0] == 400
    assert ask("/runtime_modify?a=b", "POST") == (503, "No admin layer specified")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:15000", None, 200),
        ("localhost:15000", None, 200),
        ("[::1]:15000", None, 200),
        ("10.1.2.3:15000", "http://10.1.2.3:15000", 200),
        ("", None, 200),
        ("127.0.0.1:15000", "http://evil.example", 403),
        ("127.0.0.1:15000", "null", 403),
        ("127.0.0.1:15000", "http://127.0.0.1:8080", 403),
        ("rebound.example:15000", None, 403),
        ("rebound.example:15000", "http://rebound.example:15000", 403),
    ],
)
def test_a_browser_page_cannot_steer_us(ask: Ask, supervisor: Any, host: str, origin: str | None, status: int) -> None:
    assert ask("/healthcheck/fail", "POST", host, origin)[0] == status
    assert supervisor.health_check_failed is (status == 200)


def test_a_rebound_name_reads_no_configuration_but_scrapes(ask: Ask) -> None:
    assert ask("/config_dump", host="rebound.example")[0] == 403
    assert ask("/stats/prometheus", host="sidecar.example:15090")[0] == 200
    assert ask("/ready", host="sidecar.example:15021")[0] == 200


def test_unknown_paths_get_the_list(ask: Ask) -> None:
    status, body = ask("/nope")
    assert status == 404
    assert body.startswith("invalid path. admin commands are:\n  /: ")
    assert ask("/help") == (200, body.removeprefix("invalid path. "))


def test_stats_text(ask: Ask) -> None:
    lines = ask("/stats")[1].splitlines()
    assert "cluster.back.upstream_rq_total: 3" in lines
    assert "cluster.back.upstream_rq_200: 3" in lines
    assert "cluster.other.upstream_rq_total: 0" in lines, "nobody has used it yet"
    assert "server.live: 1" in lines
    assert "server.state: 0" in lines
    assert "cluster.other.upstream_rq_time: No recorded values" in lines
    names = [line.partition(": ")[0] for line in lines if not line.split(": ")[1].startswith(("P", "No"))]
    assert names == sorted(names, key=lambda name: (name.rpartition(".")[0] if "worker" in name else "", 0)) or names


def test_stats_filters(ask: Ask) -> None:
    assert ask(r"/stats?filter=^cluster\.back\.upstream_rq_(total|200)$")[1] == (
        "cluster.back.upstream_rq_200: 3\ncluster.back.upstream_rq_total: 3\n"
    )
    used = ask("/stats?usedonly&filter=^cluster.other")[1].splitlines()
    assert used == [f"cluster.other.membership_{one}: 0" for one in ("degraded", "excluded", "healthy", "total")]
    assert "upstream_cx_active" in ask("/stats?usedonly&filter=^cluster.back")[1]
    assert "cluster" not in ask("/stats?filter=cluster&invert_filter")[1]
    assert ask("/stats?type=counters&filter=_active$")[1] == ""
    assert "cluster.back.upstream_rq_active: 0" in ask("/stats?type=Gauges&filter=_active$")[1]
    assert ask("/stats?type=TextReadouts")[1] == ""


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("filter=(", "Invalid re2 regex: missing ): ("),
        ("type=x", "invalid &type= param"),
        ("format=x", "usage: /stats?format="),
        ("histogram_buckets=x", "usage: /stats?histogram_buckets="),
    ],
)
def test_stats_bad_queries(ask: Ask, query: str, message: str) -> None:
    status, body = ask(f"/stats?{query}")
    assert status == 400
    assert message in body


def test_histograms_as_text(ask: Ask, supervisor: Any) -> None:
    query = "/stats?filter=^cluster.back.upstream_rq_time$&histogram_buckets="
    assert ask(query)[1].startswith("cluster.back.upstream_rq_time: P0(5,5) P25(6.25,6.25) P50(7.5,7.5)")
    assert ask(query + "cumulative")[1].startswith("cluster.back.upstream_rq_time: B0.5(0,0) B1(0,0) B5(0,0) B10(1,1) B25(1,1)")
    assert ask(query + "disjoint")[1].endswith("B10(1,1) B25(0,0)" + "".join(
        f" B{bound:g}(0,0)" for bound in (50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1.8e6, 3.6e6)
    ) + "\n")  # fmt: skip
    assert "totals=5,5:1" in ask(query + "detailed")[1]


def test_histograms_as_json(ask: Ask) -> None:
    query = "/stats?format=json&filter=^cluster.(back|other).upstream_rq_time$&histogram_buckets="
    summary = json.loads(ask(query)[1])["stats"][0]["histograms"]
    assert summary["supported_quantiles"] == [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100]
    back, other = summary["computed_quantiles"]
    assert back["values"][0] == {"cumulative": 5.0, "interval": 5.0}
    assert other["values"][0] == {"cumulative": None, "interval": None}
    buckets = json.loads(ask(query + "cumulative")[1])["stats"][0]["histograms"][0]["buckets"]
    assert buckets[3] == {"upper_bound": 10, "interval": 1, "cumulative": 1}
    assert len(buckets) == 19
    details = json.loads(ask(query + "detailed")[1])["stats"][0]["histograms"]["details"][0]
    assert details["totals"] == [{"lower_bound": 5, "width": 5, "count": 1}]


def test_an_interval_begins_anew(ask: Ask, supervisor: Any) -> None:
    query = "/stats?filter=^cluster.back.upstream_rq_time$&histogram_buckets=disjoint"
    assert "B10(1,1)" in ask(query)[1]
    supervisor._intervals._length_s = 0
    ask(query)
    supervisor.used_cluster.upstream_rq_time.record(8)
    assert "B10(1,2)" in ask(query)[1]


def test_stats_json(ask: Ask) -> None:
    body = ask("/stats?format=json&filter=^cluster.back.upstream_rq_(total|200)$")[1]
    assert (
        body
        == '{"stats":[{"name":"cluster.back.upstream_rq_200","value":3},{"name":"cluster.back.upstream_rq_total","value":3}]}'
    )
    assert ask("/stats?format=json&filter=nothing_at_all")[1] == '{"stats":[]}'
    assert json.loads(ask("/stats?format=json")[1])["stats"]


def test_prometheus_can_be_parsed(ask: Ask) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    body = ask("/stats/prometheus")[1]
    assert body == ask("/stats?format=prometheus")[1]
    families = {family.name: family for family in text_string_to_metric_families(body)}
    samples = families["envoy_cluster_upstream_rq_xx"].samples
    assert [(s.labels, s.value) for s in samples] == [({"envoy_cluster_name": "back", "envoy_response_code_class": "2"}, 3.0)]
    times = families["envoy_cluster_upstream_rq_time"]
    assert times.type == "histogram"
    ten = {"envoy_cluster_name": "back", "le": "10"}
    assert [s.value for s in times.samples if s.labels == ten] == [1.0]
    assert [s.value for s in times.samples if s.name.endswith("_sum") and s.labels["envoy_cluster_name"] == "back"] == [7.0]
    assert [s.value for s in times.samples if s.name.endswith("_count") and s.labels["envoy_cluster_name"] == "back"] == [1.0]
    assert families["envoy_server_live"].type == "gauge"


def test_prometheus_tags_of_the_command_line(ask: Ask, supervisor: Any) -> None:
    from dataclasses import replace

    supervisor.options = replace(supervisor.options, stats_tags=(("pod", 'a"b'),))
    assert 'envoy_server_live{pod="a\\"b"} 1' in ask("/stats/prometheus?usedonly")[1]
    assert ask("/stats/prometheus?filter=(")[0] == 400


def test_clusters_text(ask: Ask) -> None:
    lines = ask("/clusters")[1].splitlines()
    assert lines[:3] == [
        "back::observability_name::back",
        "back::default_priority::max_connections::1024",
        "back::default_priority::max_pending_requests::1024",
    ]
    assert "back::127.0.0.1:80::rq_total::6" in lines, "two workers"
    assert "back::127.0.0.1:80::rq_pending_active::0" in lines
    assert "back::127.0.0.1:80::health_flags::healthy" in lines
    assert "back::127.0.0.1:80::success_rate::-1" in lines
    assert ask("/clusters?filter=ack")[1].splitlines() == lines
    assert ask("/clusters?filter=^ack")[1] == ""
    assert ask("/clusters?filter=(")[0] == 400


def test_clusters_json(ask: Ask, supervisor: Any) -> None:
    (status,) = json.loads(ask("/clusters?format=json")[1])["cluster_statuses"]
    (host,) = status["host_statuses"]
    assert host["address"] == {"socket_address": {"address": "127.0.0.1", "port_value": 80}}
    assert {"value": "6", "name": "rq_total"} in host["stats"]
    assert {"type": "GAUGE", "value": "2", "name": "cx_active"} in host["stats"]
    assert {"name": "rq_error"} in host["stats"]
    assert host["health_status"] == {"eds_health_status": "HEALTHY"}
    assert host["locality"] == {"region": "r"}
    assert status["circuit_breakers"]["thresholds"][1]["priority"] == "HIGH"
    supervisor.answers = {}
    assert ask("/clusters?format=json") == (200, "{}")


def test_listeners(ask: Ask) -> None:
    assert ask("/listeners") == (200, "main::127.0.0.1:4711\npipe::@somewhere\n")
    assert json.loads(ask("/listeners?format=json")[1]) == {
        "listener_statuses": [
            {"name": "main", "local_address": {"socket_address": {"address": "127.0.0.1", "port_value": 4711}}},
            {"name": "pipe", "local_address": {"pipe": {"path": "@somewhere"}}},
        ]
    }


def test_config_dump(ask: Ask) -> None:
    configs = json.loads(ask("/config_dump")[1])["configs"]
    assert [config["@type"].rpartition(".")[2] for config in configs] == [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "ListenersConfigDump",
        "ScopedRoutesConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ]
    assert configs[0]["last_updated"] == "2023-11-14T22:13:20.500Z"
    assert configs[0]["bootstrap"]["node"]["user_agent_name"] == "mesh-proxy"
    assert [one["cluster"]["name"] for one in configs[1]["static_clusters"]] == ["back", "other"]
    assert configs[2]["static_listeners"][0]["listener"]["@type"] == "type.googleapis.com/envoy.config.listener.v3.Listener"
    assert configs[4]["static_route_configs"][0]["route_config"]["name"] == "r1"


def test_config_dump_with_endpoints(ask: Ask) -> None:
    configs = json.loads(ask("/config_dump?include_eds")[1])["configs"]
    (config,) = (config for config in configs if config["@type"].endswith("EndpointsConfigDump"))
    endpoint = config["static_endpoint_configs"][0]["endpoint_config"]
    assert endpoint["cluster_name"] == "back"
    assert endpoint["policy"] == {"overprovisioning_factor": 140}
    assert endpoint["endpoints"][0]["lb_endpoints"][0]["health_status"] == "HEALTHY"


def test_config_dump_parts(ask: Ask) -> None:
    found = json.loads(ask("/config_dump?resource=static_clusters&mask=cluster.name")[1])["configs"]
    assert found[0] == {
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "back"},
    }
    assert ask("/config_dump?resource=nope") == (404, "nope not found in config dump")
    assert ask("/config_dump?mask=nope")[0] == 400
    assert list(json.loads(ask("/config_dump?mask=bootstrap.node")[1])["configs"][0]["bootstrap"]) == ["node"]
    named = json.loads(ask("/config_dump?name_regex=ba.*")[1])["configs"]
    assert [one["cluster"]["name"] for one in named[1]["static_clusters"]] == ["back"]
    assert "static_listeners" not in named[2]
    assert ask("/config_dump?name_regex=(")[0] == 400
    assert json.loads(ask("/config_dump?resource=bootstrap")[1])["configs"][0]["bootstrap"]
    assert json.loads(ask("/config_dump?resource=static_endpoint_configs")[1]) == {"configs": []}


def test_logging(ask: Ask, supervisor: Any) -> None:
    status, body = ask("/logging", "POST")
    assert status == 200
    assert body.startswith("active loggers:\n  a2a: ")
    assert ask("/logging?upstream=debug", "POST")[0] == 200
    assert ask("/logging?paths=http:trace,main:warn", "POST")[0] == 200
    assert ask("/logging?level=off&paths=", "POST")[0] == 200
    changes = [args[0] for name, args, _ in supervisor.done]
    assert changes[:2] == [{"upstream": "debug"}, {"http": "trace", "main": "warning"}]
    assert set(changes[2].values()) == {"off"}
    for query, error in (
        ("level=loud", "unknown logger level"),
        ("nope=info", "unknown logger name"),
        ("paths=nope", "unknown logger name"),
        ("level=info&http=info", "invalid number of parameters"),
    ):
        status, body = ask(f"/logging?{query}", "POST")
        assert (status, body.splitlines()[0]) == (400, f"error: {error}")


def test_runtime(ask: Ask) -> None:
    assert json.loads(ask("/runtime")[1]) == {
        "layers": ["base", "over"],
        "entries": {
            "a.b": {"layer_values": ["1", "2"], "final_value": "2"},
            "a.c": {"layer_values": ["true", ""], "final_value": "true"},
        },
    }


def test_the_small_ones(ask: Ask, supervisor: Any) -> None:
    assert json.loads(ask("/certs")[1]) == {"certificates": []}
    assert ask("/hot_restart_version") == (200, "1")
    assert json.loads(ask("/init_dump")[1]) == {}
    supervisor.stage = Stage.INITIALIZING
    assert json.loads(ask("/init_dump")[1]) == {"unready_targets_dumps": [{"name": "workers", "target_names": ["worker 0"]}]}
    memory = json.loads(ask("/memory?by_process")[1])
    assert int(memory["total_physical_bytes"]) > 1_000_000
    assert [process["name"] for process in memory["processes"]] == ["supervisor"]


def test_the_index_is_a_page_for_people(ask: Ask) -> None:
    status, body = ask("/")
    assert status == 200
    assert '<a href="/stats">' in body
    assert re.search(r'<form method="post" action="/quitquitquit"[^>]*><button>', body)
    assert 'href="/quitquitquit"' not in body, "a link that a crawler follows must not stop the proxy"
    assert not re.search(r"<script|src=|https?://", body)
