"""Compared with Envoy 1.40: what an answer, an empty answer and a failure change and count."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from upstream_support import Bench, FakeResolver, VirtualTimeLoop, cluster, endpoint, locality, with_endpoints

from mesh_proxy.upstream.cluster import Cluster
from mesh_proxy.upstream.resolver import Answer


class DnsBench(Bench):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.resolver = FakeResolver(loop)
        super().__init__(loop, resolver=self.resolver)

    def run(self, seconds: float = 0.0) -> None:
        """Let the loop do what is due within so many seconds."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def addresses(self, name: str = "c") -> list[str]:
        return [one.address for one in self.cluster(name).endpoints]

    def cluster(self, name: str = "c") -> Cluster:
        found = self.manager.get(name)
        assert found is not None
        return found

    def counts(self, name: str = "c") -> dict[str, int]:
        stats = self.cluster(name).stats
        return {
            "attempt": stats.update_attempt,
            "success": stats.update_success,
            "failure": stats.update_failure,
            "no_rebuild": stats.update_no_rebuild,
            "change": stats.membership_change,
        }


@pytest.fixture
def bench() -> Iterator[DnsBench]:
    loop = VirtualTimeLoop()
    made = DnsBench(loop)
    yield made
    made.manager.close()
    assert not [handle for handle in loop._scheduled if not handle.cancelled()], "a timer was left behind"  # type: ignore[attr-defined]
    loop.close()


def strict(*names: str, **fields: object):  # type: ignore[no-untyped-def]
    fields.setdefault("kind", "STRICT_DNS")
    return cluster("c", *[endpoint(name) for name in names], **fields)


class TestStrict:
    def test_every_address_becomes_a_member(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1", "10.0.0.2", "10.0.0.1"], "b.test": ["10.0.0.1"]}
        config = cluster(
            "c",
            locality([endpoint("a.test:80", weight=3)], region="r"),
            locality([endpoint("b.test:81", hostname="given")], priority=1),
            kind="STRICT_DNS",
        )
        bench.apply(config)
        assert bench.addresses() == []
        bench.run()
        assert bench.addresses() == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:81"]
        first, _, third = bench.cluster().endpoints
        assert (first.hostname, first.weight, first.locality.region) == ("a.test", 3, "r")
        assert (third.hostname, third.priority) == ("given", 1)
        assert bench.counts() == {"attempt": 2, "success": 2, "failure": 0, "no_rebuild": 0, "change": 2}

    def test_it_is_asked_again_after_each_answer(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(strict("a.test:80", dns_refresh_rate_s=2.0))
        bench.run(7)
        times = [time for _, _, time in bench.resolver.asked]
        assert [time - times[0] for time in times] == [0, 2, 4, 6]
        assert bench.counts() == {"attempt": 4, "success": 4, "failure": 0, "no_rebuild": 3, "change": 1}

    def test_new_answers_keep_what_stays(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1", "10.0.0.2"]}
        bench.apply(strict("a.test:80"))
        bench.run()
        first, second = bench.cluster().endpoints
        bench.resolver.answers = {"a.test": ["10.0.0.3", "10.0.0.2"]}
        bench.run(5)
        assert bench.cluster().endpoints[1] is second
        assert bench.addresses() == ["10.0.0.3:80", "10.0.0.2:80"]
        assert bench.removed == [first]
        assert bench.counts()["change"] == 2

    def test_a_rotated_answer_changes_nothing(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1", "10.0.0.2"]}
        bench.apply(strict("a.test:80"))
        bench.run()
        before = bench.cluster().endpoints
        bench.resolver.answers = {"a.test": ["10.0.0.2", "10.0.0.1"]}
        bench.run(5)
        assert bench.cluster().endpoints is before
        assert bench.counts()["no_rebuild"] == 1

    def test_a_failure_keeps_the_members(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(strict("a.test:80"))
        bench.run()
        bench.resolver.answers = {"a.test": None}
        bench.run(11)
        assert bench.addresses() == ["10.0.0.1:80"]
        assert bench.counts() == {"attempt": 3, "success": 1, "failure": 2, "no_rebuild": 0, "change": 1}

    def test_an_empty_answer_removes_them(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(strict("a.test:80"))
        bench.run()
        bench.resolver.answers = {"a.test": []}
        bench.run(11)
        assert bench.addresses() == []
        assert len(bench.removed) == 1
        assert bench.counts() == {"attempt": 3, "success": 3, "failure": 0, "no_rebuild": 1, "change": 2}

    def test_a_literal_is_never_looked_up(self, bench: DnsBench) -> None:
        bench.apply(strict("127.0.0.1:80", "[::1]:80"))
        assert bench.addresses() == ["127.0.0.1:80", "[::1]:80"]
        bench.run(20)
        assert bench.resolver.asked == []
        assert bench.counts()["success"] == 2

    def test_an_update_asks_only_new_names(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"], "b.test": ["10.0.0.2"], "d.test": ["10.0.0.4"]}
        config = strict("a.test:80", "b.test:80")
        bench.apply(config)
        bench.run()
        first = bench.cluster().endpoints[0]
        bench.apply(with_endpoints(config, endpoint("d.test:80"), endpoint("a.test:80", weight=4)))
        assert bench.cluster().endpoints == (first,)
        assert first.weight == 4
        bench.run()
        assert bench.addresses() == ["10.0.0.4:80", "10.0.0.1:80"]
        bench.run(6)
        assert [name for name, _, _ in bench.resolver.asked] == ["a.test", "b.test", "d.test", "a.test", "d.test"]

    def test_another_family_asks_at_once_and_keeps_the_members_until_then(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        config = strict("a.test:80", dns_lookup_family="V4_ONLY")
        bench.apply(config)
        bench.run()
        bench.resolver.answers = {"a.test": ["::1"]}
        bench.apply(replace(config, dns_lookup_family="V6_ONLY"))
        assert bench.addresses() == ["10.0.0.1:80"]
        bench.run()
        assert bench.addresses() == ["[::1]:80"]
        assert [family for _, family, _ in bench.resolver.asked] == ["V4_ONLY", "V6_ONLY"]

    def test_connection_settings_make_endpoints_new_without_asking(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        config = strict("a.test:80")
        bench.apply(config)
        bench.run()
        (before,) = bench.cluster().endpoints
        bench.apply(replace(config, connect_timeout_s=1.0))
        (after,) = bench.cluster().endpoints
        assert after is not before
        assert bench.removed == [before]
        assert len(bench.resolver.asked) == 1

    def test_removal_drops_an_open_question(self, bench: DnsBench) -> None:
        bench.apply(strict("a.test:80"))
        (query,) = bench.resolver.open
        bench.apply()
        query.finish(Answer(["10.0.0.1"]))
        bench.run(20)
        assert len(bench.resolver.asked) == 1
        assert len(bench.registry) == 0


def test_failures_back_off_as_configured(bench: DnsBench) -> None:
    bench.resolver.answers = {"a.test": None}
    bench.manager._environment.random = lambda: 0.5
    bench.apply(strict("a.test:80", dns_failure_refresh_base_s=1.0, dns_failure_refresh_max_s=3.0, dns_refresh_rate_s=60.0))
    bench.run(5)
    times = [time for _, _, time in bench.resolver.asked]
    assert [b - a for a, b in itertools.pairwise(times)] == [0.5, 1.0, 1.5, 1.5]


def test_jitter_is_added_to_the_refresh_rate(bench: DnsBench) -> None:
    bench.resolver.answers = {"a.test": ["10.0.0.1"]}
    bench.manager._environment.random = lambda: 0.25
    bench.apply(strict("a.test:80", dns_jitter_s=2.0))
    bench.run(12)
    times = [time for _, _, time in bench.resolver.asked]
    assert [b - a for a, b in itertools.pairwise(times)] == [5.5, 5.5]


@pytest.mark.parametrize(("respect", "ttl", "delay"), [(True, 2.0, 2.0), (False, 2.0, 5.0), (True, 0.0, 5.0), (True, None, 5.0)])
def test_time_to_live(bench: DnsBench, respect: bool, ttl: float | None, delay: float) -> None:
    bench.resolver.answers = {"a.test": ["10.0.0.1"]}
    bench.resolver.ttl_s = ttl
    bench.apply(strict("a.test:80", respect_dns_ttl=respect))
    bench.run(11)
    times = [time for _, _, time in bench.resolver.asked]
    assert {b - a for a, b in itertools.pairwise(times)} == {delay}


class TestLogical:
    def config(self, **fields: object):  # type: ignore[no-untyped-def]
        return strict("a.test:80", kind="LOGICAL_DNS", **fields)

    def test_one_member_follows_the_first_address(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1", "10.0.0.2"]}
        bench.apply(self.config())
        bench.run()
        (only,) = bench.cluster().endpoints
        assert (only.address, only.hostname) == ("10.0.0.1:80", "a.test")
        bench.resolver.answers = {"a.test": ["10.0.0.9", "10.0.0.1"]}
        bench.run(6)
        assert bench.cluster().endpoints == (only,)
        assert (only.address, only.address_bytes, only.host) == ("10.0.0.9:80", b"10.0.0.9:80", "10.0.0.9")
        assert bench.removed == []
        assert bench.counts() == {"attempt": 2, "success": 2, "failure": 0, "no_rebuild": 0, "change": 2}
        bench.run(5)
        assert bench.counts()["no_rebuild"] == 1

    @pytest.mark.parametrize("answer", [None, []])
    def test_failures_and_empty_answers_keep_it(self, bench: DnsBench, answer: list[str] | None) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(self.config())
        bench.run()
        bench.resolver.answers = {"a.test": answer}
        bench.run(6)
        assert bench.addresses() == ["10.0.0.1:80"]
        assert bench.counts() == {"attempt": 2, "success": 1, "failure": 1, "no_rebuild": 0, "change": 1}

    def test_an_update_keeps_it(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(self.config())
        bench.run()
        (before,) = bench.cluster().endpoints
        bench.apply(self.config(lb_policy="RANDOM"))
        assert bench.cluster().endpoints == (before,)
        bench.apply(self.config(connect_timeout_s=1.0))
        assert bench.removed == [before]
        assert bench.addresses() == ["10.0.0.1:80"]

    def test_another_name_takes_over_when_it_is_answered(self, bench: DnsBench) -> None:
        bench.resolver.answers = {"a.test": ["10.0.0.1"]}
        bench.apply(self.config())
        bench.run()
        (before,) = bench.cluster().endpoints
        bench.apply(with_endpoints(self.config(), endpoint("b.test:81", hostname="named")))
        assert bench.cluster().endpoints == (before,)
        bench.resolver.open[0].finish(Answer(["10.0.0.1"]))
        (after,) = bench.cluster().endpoints
        assert (after.address, after.hostname) == ("10.0.0.1:81", "named")
        assert bench.removed == [before]


class TestWarming:
    def test_every_name_is_waited_for(self, bench: DnsBench) -> None:
        bench.apply(strict("a.test:80", "b.test:80"), cluster("static", endpoint("10.0.0.1:80")))
        warm = bench.loop.create_task(bench.manager.warm(15.0))
        bench.run(1)
        bench.resolver.open[0].finish(Answer(["10.0.0.1"]))
        bench.run(1)
        assert not warm.done()
        bench.resolver.open[1].finish(None)  # a failure is an answer
        bench.loop.run_until_complete(warm)
        assert bench.addresses() == ["10.0.0.1:80"]

    def test_not_for_ever(self, bench: DnsBench) -> None:
        bench.apply(strict("a.test:80"))
        start = bench.loop.time()
        bench.loop.run_until_complete(bench.manager.warm(3.0))
        assert bench.loop.time() - start == pytest.approx(3.0)

    def test_not_for_those_that_need_not(self, bench: DnsBench) -> None:
        bench.apply(strict("a.test:80", wait_for_warm_on_init=False))
        start = bench.loop.time()
        bench.loop.run_until_complete(bench.manager.warm(3.0))
        assert bench.loop.time() == start

    def test_not_for_those_that_went(self, bench: DnsBench) -> None:
        bench.apply(strict("a.test:80"))
        warm = bench.loop.create_task(bench.manager.warm(15.0))
        bench.run(1)
        bench.apply()
        start = bench.loop.time()
        bench.loop.run_until_complete(warm)
        assert bench.loop.time() == start
