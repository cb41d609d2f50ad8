"""The algorithms behind adaptive concurrency and admission control, in virtual time, against their published formulas."""

from __future__ import annotations

import math
import random

import pytest
from filter_support import counts

from mesh_filters.admission_control import History, rejection_probability
from mesh_filters.bbr import BbrConfig, BbrController, Machine
from mesh_filters.gradient2 import WARM_UP, Gradient2Config, Gradient2Controller
from mesh_filters.gradient_controller import MAX_SAMPLES, GradientConfig, GradientController


def gradient(now: float = 0.0, *, workers: int = 1, **fields: object) -> GradientController:
    config = GradientConfig(
        **({"update_interval_s": 0.1, "min_rtt_interval_s": 60.0, "jitter": 0.0, "request_count": 5} | fields)
    )  # type: ignore[arg-type]
    return GradientController(config, counts("rq_blocked", *GradientController.GAUGES), now, lambda: 0.5, workers)


def answer(one: GradientController, began: float, took: float, times: int = 1) -> None:
    for _ in range(times):
        assert one.admit(began)
        one.done(began, began + took)


def test_min_rtt_is_measured_at_the_lowest_concurrency() -> None:
    one = gradient()
    assert one.measuring
    assert [one.admit(0.0) for _ in range(4)] == [True, True, True, False]
    for _ in range(3):
        one.done(0.0, 0.02)
    answer(one, 0.1, 0.02)
    assert one.measuring
    answer(one, 0.2, 0.01)
    assert not one.measuring
    assert one.min_rtt == pytest.approx(0.02), "the median of five"
    assert one._stats.min_rtt_msecs == 20
    assert one._stats.min_rtt_calculation_active == 0


@pytest.mark.parametrize(
    ("sample", "raw"), [(0.0125, 1.0), (0.01, 1.25), (0.025, 0.5), (0.1, 0.125), (0.001, 12.5), (0.02, 0.625)]
)
def test_the_limit_follows_the_gradient(sample: float, raw: float) -> None:
    one = gradient(fixed_min_rtt_s=0.01, min_rtt_interval_s=0.0, max_limit=10_000)
    one.limit = 100
    answer(one, 0.0, sample, times=10)
    assert one.limit == 100, "the window is not over"
    assert one.admit(0.2)
    scaled = 100 * min(2.0, max(0.5, raw))
    assert one.limit == int(scaled + math.sqrt(scaled))
    assert one._stats.gradient == int(min(2.0, max(0.5, raw)) * 1000)
    assert one._stats.burst_queue_size == int(math.sqrt(scaled))


def test_the_limit_stays_within_its_bounds() -> None:
    one = gradient(fixed_min_rtt_s=0.01, min_rtt_interval_s=0.0, max_limit=8)
    answer(one, 0.0, 0.001, times=3)
    for i in range(1, 6):
        answer(one, 0.1 * i + 0.01, 0.001)
    assert one.limit == 8
    for i in range(6, 20):
        answer(one, 0.1 * i + 0.01, 0.09)
    assert one.limit == 3
    assert gradient(fixed_min_rtt_s=0.01, max_limit=9, workers=2)._max == 5
    assert gradient(fixed_min_rtt_s=0.01, max_limit=4, workers=2)._max == 3


def test_windows_without_requests_change_nothing() -> None:
    one = gradient(fixed_min_rtt_s=0.01, min_rtt_interval_s=0.0)
    answer(one, 0.0, 0.001)
    answer(one, 50.0, 0.001)
    after = one.limit
    answer(one, 50.05, 0.001)
    assert one.limit == after, "windows still begin at multiples of the interval"
    answer(one, 1000.0, 0.001)
    assert one.limit > after


def test_min_rtt_is_measured_again_and_the_limit_comes_back() -> None:
    one = gradient(jitter=0.5)
    answer(one, 0.0, 0.01, times=5)
    one.limit = 50
    assert one.admit(0.05)  # still under way when the measurement begins
    again = 0.01 + 60.0 * 1.25  # interval and half of the jitter, by lot
    assert one.admit(again - 0.001)
    assert not one.measuring
    one.done(again - 0.001, again - 0.0005)
    one.cancel()
    assert one.admit(again + 5.0)
    assert one.measuring
    assert one.limit == 3
    one.done(0.05, again + 6.0)  # began before: no sample
    assert one._seen == 1 or one._seen == 0
    answer(one, again + 6.0, 0.02, times=5)
    assert not one.measuring
    assert one.min_rtt == pytest.approx(0.02)
    assert one.limit == 50


def test_five_windows_at_the_lowest_limit_start_a_measurement() -> None:
    one = gradient()
    answer(one, 0.0, 0.001, times=5)
    now = 0.2
    windows = 0
    while not one.measuring:
        answer(one, now, 0.09)
        now += 0.1
        windows += 1
        assert windows < 20
    assert windows >= 5
    answer(one, now, 0.09, times=5)
    assert one.min_rtt == pytest.approx(0.09)


def test_latencies_that_are_kept_are_bounded() -> None:
    one = gradient(fixed_min_rtt_s=0.01, min_rtt_interval_s=0.0, update_interval_s=1000.0)
    for i in range(MAX_SAMPLES + 500):
        answer(one, i / 100, 0.01)
    assert len(one._samples) == MAX_SAMPLES
    assert one.outstanding == 0


def gradient2(**fields: object) -> Gradient2Controller:
    return Gradient2Controller(Gradient2Config(**fields), counts("rq_blocked", *Gradient2Controller.GAUGES), 0.0)  # type: ignore[arg-type]


def test_gradient2_grows_by_its_queue_while_latency_is_flat() -> None:
    one = gradient2()
    limit = 20.0
    for _ in range(30):
        one.update(0.01, 100)
        limit = min(200.0, limit * 0.8 + (limit + 4) * 0.2)
        assert one.limit == int(limit)
    one.update(0.01, int(limit / 2) - 1)
    assert one.limit == int(limit), "not half used"


def test_gradient2_by_its_formula() -> None:
    one = gradient2(low=1, high=10_000, initial=100, long_window=50)
    source = random.Random(3)
    limit, long, seen = 100.0, 0.0, []
    for _ in range(200):
        short = source.uniform(0.005, 0.08)
        seen.append(short)
        long = sum(seen) / len(seen) if len(seen) <= WARM_UP else long * (1 - 2 / 51) + short * 2 / 51
        used = long
        if long / short > 2:
            long *= 0.95
        gradient = max(0.5, min(1.0, 1.5 * used / short))
        limit = max(1.0, min(10_000.0, 0.8 * limit + 0.2 * (limit * gradient + 4)))
        one.update(short, 10_000)
        assert one.limit == int(limit)
        assert one.long_rtt == pytest.approx(long)


def test_gradient2_looks_once_per_window() -> None:
    one = gradient2()
    for i in range(20):
        assert one.admit(i * 0.01)
    assert not one.admit(0.2)
    for _ in range(19):
        one.done(0.0, 0.3)
    assert one.limit == 20
    one.done(0.0, 1.0)
    assert one.limit == int(20 * 0.8 + 24 * 0.2)
    assert one._stats.short_rtt_msecs == pytest.approx(1000 * (19 * 0.3 + 1.0) / 20, abs=1)


def test_bbr_admits_what_was_under_way_when_things_went_best() -> None:
    machine = [5.0, 0.2]
    stats = counts("rq_blocked", *BbrController.GAUGES)
    one = BbrController(BbrConfig(load=4.0, window_s=5.0), stats, lambda: (machine[0], machine[1]))
    now = 100.0
    for i in range(50):  # 50 answers in one bucket of half a second, 20 ms each at the best
        assert one.admit(now)
        one.done(now - (0.02 if i else 0.03), now)
        now += 0.005
    assert one.capacity(now) == pytest.approx(100 * 0.02)
    assert [one.admit(now) for _ in range(5)] == [True, True, True, False, False], "more than one, and more than 2"
    machine[0] = 3.9
    assert one.admit(now + 1.5), "the machine is well again"
    assert BbrController(BbrConfig(cpu=0.1), counts(*BbrController.GAUGES), lambda: (0.0, 0.0)).admit(0.0)


def test_the_machine_says_something() -> None:
    machine = Machine()
    assert machine.look()[0] >= 0.0
    assert 0.0 <= machine.cpu() <= 1.0
    assert 0.0 <= machine.cpu() <= 1.0


@pytest.mark.parametrize(
    ("requests", "successes", "threshold", "aggression", "expected"),
    [
        (100, 100, 0.95, 1.0, 0.0),
        (100, 95, 0.95, 1.0, 0.0),
        (100, 50, 1.0, 1.0, 50 / 101),
        (100, 47.5, 0.95, 1.0, 50 / 101),
        (100, 50, 1.0, 2.0, math.sqrt(50 / 101)),
        (100, 0, 1.0, 1.0, 0.8),
        (0, 0, 1.0, 1.0, 0.0),
    ],
)
def test_admission_control(requests: float, successes: float, threshold: float, aggression: float, expected: float) -> None:
    assert rejection_probability(requests, successes, threshold, aggression, 0.8) == pytest.approx(expected)


def test_the_sampling_window_moves_by_seconds() -> None:
    history = History(5.0)
    for second in range(10):
        for i in range(4):
            history.record(100.0 + second + i / 10, success=i > 0)
    assert (history.requests, history.successes) == (20, 15)
    assert history.average_rps(109.3) == 5
    history.move(112.05)
    assert (history.requests, history.successes) == (8, 6)
    history.move(200.0)
    assert (history.requests, history.successes) == (0, 0)
    assert history.average_rps(200.0) == 0.0
