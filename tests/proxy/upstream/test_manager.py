import pickle

from upstream_support import Bench, cluster, endpoint, hosts, locality

from mesh_proxy.upstream import manager as manager_module


def test_unknown_names() -> None:
    bench = Bench()
    bench.apply(cluster("c", *hosts(1)))
    assert bench.manager.get("d") is None
    assert list(bench.manager.names()) == ["c"]
    assert [one.name for one in bench.manager] == ["c"]


def test_many_clusters_are_made_when_they_are_used() -> None:
    bench = Bench()
    count = manager_module.FEW_CLUSTERS + 1
    configs = [cluster(f"c{i}", *hosts(2)) for i in range(count)]
    bench.apply(*configs)
    assert list(bench.manager) == []
    assert len(bench.registry) == 0
    one = bench.manager.get("c7")
    assert one is not None
    assert bench.manager.get("c7") is one
    assert list(bench.manager) == [one]
    assert len(bench.manager) == count
    assert bench.stat("cluster.c7.membership_total") == 2
    bench.apply(*configs[8:])
    assert bench.manager.get("c7") is None
    assert len(bench.removed) == 2


def test_description_is_complete_and_plain() -> None:
    bench = Bench()
    metadata = {"envoy.lb": {"canary": True}}
    bench.apply(
        cluster(
            "c",
            locality([endpoint("10.0.0.1:80", hostname="one", weight=3, metadata=metadata)], region="r", priority=0),
            locality(
                [endpoint("/run/x.sock", health_status="DRAINING"), endpoint("[::1]:80", health_status="TIMEOUT")], priority=1
            ),
            alt_stat_name="alias",
        ),
    )
    one = bench.manager.get("c")
    assert one is not None
    one.endpoints[0].stats.rq_active = 2
    one.endpoints[0].ejected = True
    (described,) = pickle.loads(pickle.dumps(bench.manager.describe()))
    assert described["name"] == "c"
    assert described["observability_name"] == "alias"
    assert described["thresholds"]["default"] == {
        "max_connections": 1024,
        "max_pending_requests": 1024,
        "max_requests": 1024,
        "max_retries": 3,
    }
    first, second, third = described["endpoints"]
    assert first["address"] == "10.0.0.1:80"
    assert (first["hostname"], first["weight"], first["region"], first["canary"], first["priority"]) == ("one", 3, "r", True, 0)
    assert first["stats"]["rq_active"] == 2
    assert first["health_flags"] == ["failed_outlier_check"]
    assert (second["path"], second["priority"], second["health_flags"]) == ("/run/x.sock", 1, ["eds_status_draining"])
    assert (third["address"], third["health_flags"]) == ("[::1]:80", ["failed_eds_health"])


def test_description_makes_no_cluster() -> None:
    bench = Bench()
    bench.apply(*[cluster(f"c{i}", *hosts(2)) for i in range(manager_module.FEW_CLUSTERS + 1)])
    assert len(bench.manager.describe()[5]["endpoints"]) == 2
    assert list(bench.manager) == []
    assert len(bench.registry) == 0


def test_close_removes_every_endpoint() -> None:
    bench = Bench()
    bench.apply(cluster("c", *hosts(2)), cluster("d", *hosts(3)))
    bench.manager.close()
    assert len(bench.removed) == 5
    assert bench.manager.get("c") is None
    assert len(bench.registry) == 0
