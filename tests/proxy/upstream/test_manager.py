import dataclasses
import pickle

from upstream_support import Bench, cluster, endpoint, hosts, locality

from mesh_proxy.config.model.twin import ClusterTwin
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


def test_twins_are_clusters_like_others() -> None:
    bench = Bench()
    like = cluster("c0", *hosts(1))
    host, port = like.endpoints.localities[0].endpoints[0].address.host, like.endpoints.localities[0].endpoints[0].address.port
    twins = [ClusterTwin(like, (f"c{i}", f"c{i}", host, port)) for i in range(1, manager_module.FEW_CLUSTERS + 2)]
    bench.manager.apply((like, *twins))
    one = bench.manager.get("c7")
    assert one is not None
    assert one.config == dataclasses.replace(like, name="c7", endpoints=dataclasses.replace(like.endpoints, cluster_name="c7"))
    before = one.endpoints
    assert [endpoint.port for endpoint in before] == [port]
    # The same in other words changes nothing; other words for something else do.
    twins[6] = one.config  # type: ignore[call-overload]
    bench.manager.apply((like, *twins))
    assert bench.manager.get("c7") is one
    assert one.endpoints is before
    twins[6] = ClusterTwin(like, ("c7", "c7", host, port + 1))
    bench.manager.apply((like, *twins))
    assert bench.manager.get("c7") is one
    assert [endpoint.port for endpoint in one.endpoints] == [port + 1]
    assert [described["name"] for described in bench.manager.describe()] == ["c0", *(twin.name for twin in twins)]
    assert list(bench.manager) == [one]


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
