"""Names, marks and tags as Envoy gives them (figures and lines from Envoy 1.40)."""

from __future__ import annotations

import pytest

from mesh_proxy.stats.aggregate import GroupSum
from mesh_proxy.stats.cluster_group import ClusterStats
from mesh_proxy.stats.group import BUCKETS_MS, Histogram, StatGroup
from mesh_proxy.stats.groups import HttpStats, ListenerStats
from mesh_proxy.stats.names import scalars
from mesh_proxy.stats.page import shape_of
from mesh_proxy.stats.quantiles import cumulative, quantiles
from mesh_proxy.stats.tags import label_text, metric_name, name_tags, prefix_tags


def summed(group: StatGroup) -> GroupSum:
    total = GroupSum(shape_of(type(group), 0), group.prefix)
    total.add_group(group)
    return total


def used(group: StatGroup) -> set[str]:
    return {stat.name for stat in scalars(summed(group)) if stat.used}


def test_a_gauge_is_used_when_its_counter_says_so() -> None:
    group = HttpStats("http.a.")
    group.downstream_cx_total = group.downstream_cx_http1_total = 2
    names = used(group)
    assert {"downstream_cx_active", "downstream_cx_http1_active"} <= names
    assert "downstream_cx_ssl_active" not in names
    assert "downstream_rq_active" not in names
    listener = ListenerStats("listener.a.")
    listener.downstream_cx_total = 1
    assert {"downstream_cx_active", "downstream_pre_cx_active"} <= used(listener)


def test_members_are_always_used() -> None:
    assert used(ClusterStats("cluster.a.")) == {
        "membership_degraded",
        "membership_excluded",
        "membership_healthy",
        "membership_total",
    }


def test_names_come_in_order() -> None:
    group = ClusterStats("cluster.a.")
    group.codes |= {404: 1, 200: 2}
    names = [stat.name for stat in scalars(summed(group))]
    assert names == sorted(names)
    assert {"upstream_rq_200", "upstream_rq_2xx", "upstream_rq_404", "upstream_rq_4xx"} <= set(names)


def test_strange_codes_have_no_class() -> None:
    group = ClusterStats("cluster.a.")
    group.codes[999] = 1
    names = {stat.name for stat in scalars(summed(group))}
    assert "upstream_rq_999" in names
    assert "upstream_rq_9xx" not in names


@pytest.mark.parametrize(
    ("prefix", "name", "metric"),
    [
        ("cluster.back.", "upstream_rq_total", 'envoy_cluster_upstream_rq_total{envoy_cluster_name="back"}'),
        (
            "cluster.back.",
            "upstream_rq_200",
            'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="back"}',
        ),
        (
            "cluster.back.",
            "upstream_rq_2xx",
            'envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="back"}',
        ),
        (
            "cluster.back.circuit_breakers.default.",
            "cx_open",
            'envoy_cluster_circuit_breakers_default_cx_open{envoy_cluster_name="back"}',
        ),
        # Envoy would end the name at the first dot; see mesh_proxy.stats.tags.
        ("cluster.a.example.", "upstream_rq_total", 'envoy_cluster_upstream_rq_total{envoy_cluster_name="a.example"}'),
        ("http.ingress_http.", "rq_total", 'envoy_http_rq_total{envoy_http_conn_manager_prefix="ingress_http"}'),
        (
            "listener.127.0.0.1_19080.",
            "downstream_cx_total",
            'envoy_listener_downstream_cx_total{envoy_listener_address="127.0.0.1_19080"}',
        ),
        (
            "listener.[__1]_80.",
            "worker_0.downstream_cx_total",
            'envoy_listener_worker_downstream_cx_total{envoy_worker_id="0",envoy_listener_address="[__1]_80"}',
        ),
        (
            "listener.127.0.0.1_19080.http.ingress_http.",
            "downstream_rq_2xx",
            'envoy_listener_http_downstream_rq_xx{envoy_response_code_class="2",'
            'envoy_http_conn_manager_prefix="ingress_http",envoy_listener_address="127.0.0.1_19080"}',
        ),
        (
            "listener.admin.http.admin.",
            "downstream_rq_completed",
            'envoy_listener_admin_http_downstream_rq_completed{envoy_http_conn_manager_prefix="admin"}',
        ),
        ("listener.admin.", "downstream_cx_total", "envoy_listener_admin_downstream_cx_total{}"),
        ("tcp.tcpx.", "downstream_cx_total", 'envoy_tcp_downstream_cx_total{envoy_tcp_prefix="tcpx"}'),
        ("cluster_manager.", "active_clusters", "envoy_cluster_manager_active_clusters{}"),
        ("server.", "live", "envoy_server_live{}"),
    ],
)
def test_tags(prefix: str, name: str, metric: str) -> None:
    rest, tags = prefix_tags(prefix)
    rest_of_name, more = name_tags(name)
    assert f"{metric_name(rest, rest_of_name)}{{{label_text((*more, *tags))}}}" == metric


def test_label_values_are_escaped() -> None:
    assert label_text((("a", 'x"y\\z\n'),)) == 'a="x\\"y\\\\z\\n"'


def test_quantiles() -> None:
    histogram = Histogram()
    assert quantiles(histogram.counts) is None
    for value in (6, 6, 6, 6):
        histogram.record(value)
    found = quantiles(histogram.counts)
    assert found is not None
    assert (found[0], found[2], found[-1]) == (5.0, 7.5, 10.0)


def test_what_is_beyond_the_last_bucket() -> None:
    histogram = Histogram()
    histogram.record(BUCKETS_MS[-1] * 2)
    assert quantiles(histogram.counts) == [BUCKETS_MS[-1]] * 10
    assert cumulative(histogram.counts)[-1] == 0
