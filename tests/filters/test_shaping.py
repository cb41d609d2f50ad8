"""Sentinel's rules in virtual time: pacing, warm-up, hot parameters, requests under way, circuit breakers."""

from __future__ import annotations

from typing import Any

import pytest
from bootstraps import ROUTER, web
from filter_support import Clock, Context, counts

from mesh_filters import circuit_breaker, concurrency_limit, hot_parameters, pacing
from mesh_filters.breaker import PASSED, REFUSED, Breaker, BreakerRule, Kind
from mesh_filters.definition import FieldError
from mesh_filters.pacing import Pace, PacingRule, WarmUp
from mesh_filters.request_keys import Keyed
from mesh_filters.shared_state import SHARED_KEYS, SharedKeys
from mesh_filters.sliding_window import SlidingWindow
from mesh_filters.token_bucket import LocalCell
from mesh_proxy.config.loader import load_bootstrap
from mesh_proxy.config.model import HttpManagerConfig


def pace(**fields: Any) -> Pace:
    return Pace(PacingRule(name="r", **fields), [LocalCell() for _ in range(6)])


def test_requests_are_spaced_evenly_and_wait_no_longer_than_they_may() -> None:
    one = pace(rate=10.0, max_wait_s=0.35)
    now = 5000.0
    assert [one.ask(now) for _ in range(5)] == [0.0, pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.3), None]
    assert one.ask(now + 0.1) == pytest.approx(0.3), "as many as have gone"
    assert one.ask(now + 10.0) == 0.0, "a pause saves nothing up"
    assert one.ask(now + 10.0) == pytest.approx(0.1)


def test_pacing_keeps_the_rate() -> None:
    one = pace(rate=50.0, max_wait_s=0.1)
    passed = sum(one.ask(1000.0 + i / 1000) is not None for i in range(10_000))
    assert abs(passed - 500) <= 6  # what waits at the end passes later


def test_without_queue_a_second_has_as_many_as_the_rate() -> None:
    one = pace(rate=20.0)
    for second in range(3):
        assert sum(one.ask(1000.0 + second + i / 100) == 0.0 for i in range(100)) == 20


def test_warm_up_by_its_formula() -> None:
    """rate 100, ten seconds, cold factor 3: warning 500, full 1000, slope 2 / 100 / 500."""
    stored, filled = LocalCell(), LocalCell()
    one = WarmUp(100.0, 10.0, 3.0, stored, filled)
    assert one.allowed(1000.0, 0.0) == pytest.approx(100 / 3), "cold: a third"
    assert stored.get() == 1000
    tokens, second = 1000.0, 1000.0
    passed = 33.0
    while tokens >= 500:
        second += 1
        if passed < 100 / 3:
            tokens = min(1000.0, tokens + 100)
        tokens = max(0.0, tokens - passed)
        slope = 2.0 / 100 / 500
        expected = 100.0 if tokens < 500 else 1.0 / ((tokens - 500) * slope + 1 / 100)
        allowed = one.allowed(second, passed)
        assert allowed == pytest.approx(expected)
        passed = float(int(allowed)) if allowed > 34 else 34.0
        assert second < 1030
    assert 1005 <= second <= 1015
    assert one.allowed(second + 1, 100.0) == 100.0
    assert one.allowed(second + 100, 0.0) == pytest.approx(100 / 3), "cold again"


def test_a_cold_service_gets_more_every_second() -> None:
    one = pace(rate=90.0, warm_up_s=5.0)
    passed = [sum(one.ask(1000.0 + second + i / 500) == 0.0 for i in range(500)) for second in range(15)]
    assert passed[0] == 30
    assert passed == sorted(passed)
    assert passed[-1] == 90


def test_warm_up_and_pacing_together() -> None:
    one = pace(rate=90.0, warm_up_s=5.0, max_wait_s=1.0)
    assert one.ask(1000.0) == 0.0
    assert one.ask(1000.0) == pytest.approx(1 / 30)


def test_two_workers_pace_together() -> None:
    cells = [LocalCell() for _ in range(6)]
    rule = PacingRule(name="r", rate=10.0, max_wait_s=1.0)
    one, other = Pace(rule, cells), Pace(rule, cells)
    assert [one.ask(7.0), other.ask(7.0), one.ask(7.0)] == [0.0, pytest.approx(0.1), pytest.approx(0.2)]


def hot(context: Context, **fields: Any) -> hot_parameters._Rule:
    config = hot_parameters.configure({"rules": [{"by": [{"header": "user"}], "rate": 5} | fields]})
    return hot_parameters._Rule(config.rules[0], context, "c")  # type: ignore[arg-type]


def test_each_value_has_a_limit_of_its_own_whatever_the_worker() -> None:
    first = Context(Clock(), workers=2)
    one, other = hot(first, burst=3), hot(Context(Clock(), workers=2, worker_index=1, sibling=first), burst=3)
    now = 1000.0
    assert [one.ask(b"a", now), other.ask(b"a", now), one.ask(b"a", now), other.ask(b"a", now)] == [0.0, 0.0, 0.0, None]
    assert one.ask(b"b", now) == 0.0
    assert other.ask(b"a", now + 0.2) == 0.0
    assert one.ask(b"a", now + 0.2) is None
    assert [one.ask(b"a", now + 100) for _ in range(4)] == [0.0, 0.0, 0.0, None]


def test_values_with_rates_of_their_own() -> None:
    one = hot(Context(Clock()), values={"vip": 100, "never": 0, "slow": 0.5})
    assert sum(one.ask(b"vip", 1000.0) == 0.0 for _ in range(200)) == 100
    assert one.ask(b"never", 1000.0) is None
    assert [one.ask(b"slow", 1000.0 + second) for second in range(4)] == [0.0, None, 0.0, None]


def test_values_may_wait() -> None:
    one = hot(Context(Clock()), max_wait="0.3s")
    assert [one.ask(b"a", 10.0) for _ in range(3)] == [0.0, pytest.approx(0.2), None]


def test_more_values_than_places_forget_the_fullest_buckets() -> None:
    context = Context(Clock())
    one = hot(context, burst=2)
    now = 1000.0
    for _ in range(2):
        assert one.ask(b"busy", now) == 0.0
    for i in range(100_000):
        assert one.ask(b"v%d" % i, now - 10) == 0.0
    assert one.ask(b"busy", now + 0.1) is None, "a bucket that was just emptied stays"


def under_way(context: Context, most: int, by: list[Any] | None = None) -> concurrency_limit._Rule:
    config = concurrency_limit.configure({"rules": [{"max": most, "by": by or []}]})
    return concurrency_limit._Rule(config.rules[0], context, "c")  # type: ignore[arg-type]


def test_workers_add_up_what_is_under_way() -> None:
    first = Context(Clock(), workers=2)
    second = Context(Clock(), workers=2, worker_index=1, sibling=first)
    one, other = under_way(first, 3).counts.of(b""), under_way(second, 3).counts.of(b"")
    assert [one.enter(), other.enter(), other.enter(), one.enter(), other.enter()] == [True, True, True, False, False]
    one.leave()
    assert other.enter()
    assert not one.enter()
    replaced = under_way(second, 3).counts.of(b"")  # the second worker died
    assert [one.enter(), one.enter(), replaced.enter(), replaced.enter()] == [True, True, True, False]


def test_keys_beyond_the_shared_ones_have_a_share_of_the_limit() -> None:
    context = Context(Clock(), workers=2)
    rule = under_way(context, 5, ["call"])
    for i in range(SHARED_KEYS):
        assert sum(rule.counts.of(b"k%d" % i).enter() for _ in range(9)) == 5
    assert sum(rule.counts.of(b"another").enter() for _ in range(9)) == 3


def test_counts_that_are_in_use_are_not_forgotten() -> None:
    made: list[bytes] = []
    keyed: Keyed[list[bytes]] = Keyed(lambda key: made.append(key) or [key], 3, lambda state: state != [b"busy"])  # type: ignore[func-returns-value]
    busy = keyed.of(b"busy")
    for i in range(50):
        keyed.of(b"%d" % i)
    assert keyed.of(b"busy") is busy
    assert made.count(b"busy") == 1
    assert len(keyed) <= 5


def test_numbers_of_one_worker_need_no_table() -> None:
    context = Context(Clock())
    assert SharedKeys(context, "n").cells(b"k", 2)[1] == 1  # type: ignore[arg-type]
    assert not context.cells


def test_sliding_window() -> None:
    window = SlidingWindow(1.0, 2, 1)
    for i in range(10):
        window.current(100.0 + i / 10)[0] += 1
    assert window.total(0, 100.95) == 10
    assert window.total(0, 101.1) == 5, "half of it is gone"
    assert window.total(0, 101.6) == 0
    window.current(300.2)[0] += 4
    assert window.total(0, 300.3) == 4
    window.clear()
    assert window.total(0, 300.3) == 0


# -- circuit breakers

STATS = ("opened", "half_opened", "closed")


def breaker(kind: Kind, threshold: float, cell: LocalCell | None = None, **fields: Any) -> Breaker:
    return Breaker(BreakerRule(kind=kind, threshold=threshold, **fields), cell or LocalCell(), counts(*STATS))


def calls(one: Breaker, now: float, *ends: tuple[float, bool]) -> None:
    for took, error in ends:
        assert one.ask(now) == PASSED
        one.report(PASSED, took, error, now)


GOOD, SLOW, BAD = (0.01, False), (0.5, False), (0.01, True)


def test_slow_calls_open_a_breaker() -> None:
    one = breaker(Kind.SLOW_RATIO, 0.5, slow_s=0.1)
    calls(one, 100.1, GOOD, SLOW, SLOW, SLOW)
    assert one.ask(100.1) == PASSED, "fewer than five"
    calls(one, 100.1, GOOD)
    assert one.is_closed(), "what is good opens nothing"
    calls(one, 100.2, SLOW)
    assert not one.is_closed()
    assert one.ask(100.3) == REFUSED
    assert one.ask(110.1) == REFUSED


def test_a_window_begins_at_zero() -> None:
    one = breaker(Kind.ERROR_COUNT, 4)
    for second in range(5):
        calls(one, 100.5 + second, BAD, BAD, BAD, GOOD)
    assert one.is_closed()
    calls(one, 110.0, BAD, BAD, BAD, BAD)
    assert one.is_closed(), "not more than the threshold"
    calls(one, 110.1, BAD)
    assert not one.is_closed()


def test_a_share_of_one_is_reached_by_one() -> None:
    one = breaker(Kind.ERROR_RATIO, 1.0)
    calls(one, 100.0, BAD, BAD, BAD, BAD, BAD)
    assert not one.is_closed()


def opened(now: float = 100.0, **fields: Any) -> Breaker:
    one = breaker(Kind.ERROR_RATIO, 0.2, **fields)
    calls(one, now, GOOD, GOOD, GOOD, BAD, BAD)
    assert not one.is_closed()
    return one


def test_a_good_probe_closes() -> None:
    one = opened()
    assert one.ask(109.9) == REFUSED
    probe = one.ask(110.0)
    assert probe > 0
    assert one.ask(110.0) == REFUSED, "one at a time"
    one.report(PASSED, 0.01, True, 110.1)  # it began before: says nothing
    one.report(probe, 0.01, False, 110.2)
    assert one.is_closed()
    calls(one, 110.3, BAD, BAD, BAD, BAD)
    assert one.is_closed(), "counting began anew"
    assert vars(one._stats) == {"opened": 1, "half_opened": 1, "closed": 1}


def test_a_bad_probe_opens_again() -> None:
    one = opened()
    one.report(one.ask(110.0), 0.01, True, 110.5)
    assert one.ask(120.4) == REFUSED
    assert one.ask(120.5) > 0


def test_a_probe_without_outcome_is_followed_by_another() -> None:
    one = opened()
    first = one.ask(110.0)
    one.abandon(first, 110.1)
    second = one.ask(110.1)
    assert second > 0
    one.report(first, 0.01, True, 110.2)  # late, and of a phase that is over
    one.report(second, 0.01, False, 110.2)
    assert one.is_closed()


def test_several_probes_must_all_be_good() -> None:
    one = opened(probes=3)
    probes = [one.ask(110.0) for _ in range(4)]
    assert probes[3] == REFUSED
    one.report(probes[0], 0.01, False, 110.1)
    assert one.ask(110.1) == REFUSED
    one.report(probes[1], 0.01, False, 110.1)
    assert not one.is_closed()
    one.report(probes[2], 0.01, False, 110.1)
    assert one.is_closed()


def test_workers_share_the_state_and_one_probes() -> None:
    cell = LocalCell()
    one, other = opened(cell=cell), breaker(Kind.ERROR_RATIO, 0.2, cell)
    assert other.ask(105.0) == REFUSED
    probe = other.ask(110.0)
    assert probe > 0
    assert one.ask(110.0) == REFUSED, "another worker probes"
    other.report(probe, 0.01, False, 110.5)
    assert one.ask(110.6) == PASSED
    again = breaker(Kind.ERROR_COUNT, 0, cell, min_requests=1)
    calls(again, 111.0, BAD)
    assert one.ask(121.0) > 0
    assert other.ask(131.0) > 0, "a probe that was never heard of again"


@pytest.mark.parametrize(
    ("module", "rule", "field"),
    [
        (pacing, {}, "rules[0].rate"),
        (pacing, {"rate": 0}, "rules[0].rate"),
        (pacing, {"rate": 1, "max_wait": "soon"}, "rules[0].max_wait"),
        (pacing, {"rate": 1, "max_wait": "2h"}, "rules[0].max_wait"),
        (pacing, {"rate": 1, "by": ["nobody"]}, "rules[0].by[0]"),
        (pacing, {"rate": 1, "by": [{"header": ""}]}, "rules[0].by[0].header"),
        (pacing, {"rate": 1, "by": [3]}, "rules[0].by[0]"),
        (pacing, {"rate": 1, "when": "header ="}, "rules[0].when"),
        (pacing, {"rate": 1, "unknown": 2}, "rules[0].unknown"),
        (hot_parameters, {"rate": 1}, "rules[0].by"),
        (hot_parameters, {"rate": 1, "by": ["caller"], "burst": 2, "max_wait": "1s"}, "rules[0].burst"),
        (hot_parameters, {"rate": 1, "by": ["caller"], "values": {"a": "b"}}, "rules[0].values.a"),
        (concurrency_limit, {}, "rules[0].max"),
        (concurrency_limit, {"max": 1.5}, "rules[0].max"),
        (circuit_breaker, {"kind": "luck"}, "rules[0].kind"),
        (circuit_breaker, {"threshold": 0.5}, "rules[0].slow"),
        (circuit_breaker, {"threshold": 1.5, "slow": "1s"}, "rules[0].threshold"),
        (circuit_breaker, {"kind": "error_ratio", "threshold": 0.5, "slow": "1s"}, "rules[0].slow"),
        (circuit_breaker, {"kind": "error_ratio", "threshold": 0.5, "grpc_errors": [99]}, "rules[0].grpc_errors"),
    ],
)
def test_bad_rules_are_refused_with_their_field(module: Any, rule: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        module.configure({"rules": [rule]})
    assert caught.value.path == field


def test_equal_rules_of_two_places_share_nothing() -> None:
    rule = "{rules: [{kind: error_count, threshold: 1}]}"
    struct = (
        f'{{"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: mesh_proxy.filters.CircuitBreaker, value: {rule}}}'
    )
    route = f"route: {{cluster: a}}, typed_per_filter_config: {{b: {struct}}}"
    routes = f"match: {{prefix: /a}}, {route}}}, {{match: {{prefix: /}}, {route}"
    text = web(hcm=f"http_filters: [{{name: b, typed_config: {struct}}}, {ROUTER}]", route=routes)
    manager = load_bootstrap(None, text).listeners[0].filter_chains[0].filters[0]
    assert isinstance(manager, HttpManagerConfig)
    configs = [manager.filters[0].config]
    assert manager.route_table is not None
    configs += [route.per_filter_config["b"] for route in manager.route_table.virtual_hosts[0].routes]
    assert len({one.identity for one in configs}) == 3
    assert configs[0] == configs[1] == configs[2]


@pytest.mark.parametrize("module", [pacing, hot_parameters, concurrency_limit, circuit_breaker])
def test_rules_are_required(module: Any) -> None:
    for values in ({}, {"rules": "x"}, {"rules": ["x"]}, {"rules": [], "x": 1}, {"status": 200, "rules": []}):
        with pytest.raises(FieldError):
            module.configure(values)
