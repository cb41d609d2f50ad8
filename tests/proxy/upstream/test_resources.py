from upstream_support import Bench, cluster, hosts

from mesh_proxy.config.model import ThresholdsConfig
from mesh_proxy.upstream.resources import Resources


def make(**fields: object) -> Resources:
    return Resources(ThresholdsConfig(**fields), {}, "circuit_breakers.c.default.")  # type: ignore[arg-type]


def test_limits() -> None:
    one = make(max_connections=1, max_pending_requests=2, max_requests=1, max_retries=1)
    assert one.can_create_connection()
    one.add_connection()
    assert not one.can_create_connection()
    one.remove_connection()
    assert one.can_create_connection()
    one.add_pending()
    assert one.can_create_pending()
    one.add_pending()
    assert not one.can_create_pending()
    one.remove_pending()
    one.add_request()
    assert not one.can_create_request()
    one.remove_request()
    one.add_retry()
    assert not one.can_retry()
    one.remove_retry()
    assert one.can_retry()
    assert one.totals() == (0, 1, 0, 0)


def test_a_retry_budget_replaces_max_retries() -> None:
    one = make(max_retries=1, retry_budget_percent=20.0, retry_budget_min_concurrency=3)
    assert one.retry_limit() == 3
    for _ in range(40):
        one.add_request()
    for _ in range(10):
        one.add_pending()
    assert one.retry_limit() == 10


def test_runtime_overrides() -> None:
    one = Resources(ThresholdsConfig(), {"circuit_breakers.c.default.max_requests": 7}, "circuit_breakers.c.default.")
    assert (one.max_requests, one.max_connections) == (7, 1024)


def test_gauges_are_worked_out_when_read() -> None:
    bench = Bench()
    bench.apply(
        cluster(
            "c",
            *hosts(1),
            thresholds=ThresholdsConfig(max_connections=1, max_requests=2, track_remaining=True),
            high_thresholds=ThresholdsConfig(max_connections=1),
        )
    )
    one = bench.manager.get("c")
    assert one is not None
    assert one.resources("HIGH") is one.high
    assert one.resources("DEFAULT") is one.default
    prefix = "cluster.c.circuit_breakers."
    assert bench.stat(prefix + "default.cx_open") == 0
    assert bench.stat(prefix + "default.remaining_cx") == 1
    one.default.add_connection()
    one.default.add_request()
    assert bench.stat(prefix + "default.cx_open") == 1
    assert bench.stat(prefix + "default.remaining_cx") == 0
    assert bench.stat(prefix + "default.rq_open") == 0
    assert bench.stat(prefix + "default.remaining_rq") == 1
    assert bench.stat(prefix + "high.cx_open") == 0
    for name in ("rq_pending_open", "rq_retry_open", "cx_pool_open"):
        assert bench.stat(prefix + "default." + name) == 0
    assert bench.stat(prefix + "default.remaining_pending") == 1024
    assert bench.stat(prefix + "default.remaining_retries") == 3
    assert bench.stat(prefix + "default.remaining_cx_pools") > 1 << 60
    tracked = [group.prefix for group in bench.registry if "remaining_cx" in group.GAUGES]
    assert tracked == [prefix + "default."]
    bench.manager.close()
    assert len(bench.registry) == 0
