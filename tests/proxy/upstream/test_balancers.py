import random
from collections import Counter

import pytest
from upstream_support import endpoint

from mesh_proxy.config.model import LocalityConfig
from mesh_proxy.upstream.balancers import LONGEST_CYCLE, Schedule, lay_out, make_chooser, round_robin
from mesh_proxy.upstream.endpoint import Endpoint


def endpoints(*weights: int) -> list[Endpoint]:
    return [
        Endpoint("c", endpoint(f"10.0.0.{i + 1}:80", weight=weight), f"10.0.0.{i + 1}", LocalityConfig(), 0, "")
        for i, weight in enumerate(weights)
    ]


def test_equal_weights_rotate_in_order_from_a_random_start() -> None:
    choose = round_robin("abc", [5, 5, 5], lambda: 0.0)
    assert [choose() for _ in range(7)] == list("abcabca")
    choose = round_robin("abc", [1, 1, 1], lambda: 0.7)
    assert [choose() for _ in range(4)] == list("cabc")


@pytest.mark.parametrize(
    ("weights", "order"),
    [((1, 2), "bab"), ((2, 1), "aab"), ((3, 1), "aaab"), ((1, 3, 2), "bcbabc"), ((5, 1, 1), "aaaaabc")],
)
def test_weights_lay_out_a_cycle_by_deadline(weights: tuple[int, ...], order: str) -> None:
    laid_out = "".join(lay_out("abc"[: len(weights)], weights))
    assert Counter(laid_out) == Counter(order)
    assert len(laid_out) == sum(weights)
    assert laid_out == reference(weights, sum(weights))


def reference(weights: tuple[int, ...], picks: int) -> str:
    """The scheduler in its plain form: a queue by (deadline, time of queueing)."""
    queue = [(1 / weight, i, "abc"[i], weight) for i, weight in enumerate(weights)]
    order = len(weights)
    out = ""
    for _ in range(picks):
        queue.sort()
        deadline, _, name, weight = queue.pop(0)
        out += name
        turn = round(deadline * weight) + 1
        queue.append((turn / weight, order, name, weight))
        order += 1
    return out


@pytest.mark.parametrize("seed", range(20))
def test_layout_is_the_scheduler(seed: int) -> None:
    rng = random.Random(seed)
    weights = tuple(rng.randint(1, 30) for _ in range(3))
    assert "".join(lay_out("abc", weights)) == reference(weights, sum(weights))


def test_common_divisors_shorten_the_cycle() -> None:
    choose = round_robin("ab", [100_000, 300_000], lambda: 0.0)
    assert Counter(choose() for _ in range(8)) == {"a": 2, "b": 6}


def test_awkward_weights_are_scheduled_as_it_goes() -> None:
    weights = [LONGEST_CYCLE, 1, LONGEST_CYCLE - 1]
    choose = round_robin("abc", weights, random.Random(1).random)
    counted = Counter(choose() for _ in range(2 * sum(weights)))
    for name, weight in zip("abc", weights, strict=True):
        assert abs(counted[name] - 2 * weight) <= 1
    fractions = Schedule("ab", [0.5, 1.5], random.Random(1).random)
    assert Counter(fractions.choose() for _ in range(400))["b"] in (299, 300, 301)


def test_random_is_even_and_ignores_weights() -> None:
    some = endpoints(1, 9)
    choose = make_chooser("RANDOM", some, random.Random(3).random, 2)
    counted = Counter(choose() for _ in range(4000))
    assert abs(counted[some[0]] - 2000) < 150


def test_a_single_endpoint_needs_no_policy() -> None:
    (only,) = endpoints(4)
    for policy in ("ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"):
        choose = make_chooser(policy, [only], random.random, 2)
        assert choose() is only
        assert choose() is only


def test_least_request_takes_the_less_busy_of_two_draws() -> None:
    some = endpoints(1, 1, 1)
    draws = iter([0.0, 0.5, 0.9, 0.0, 0.4, 0.4, 0.0, 0.9])
    choose = make_chooser("LEAST_REQUEST", some, lambda: next(draws), 2)
    some[0].stats.rq_active = 5
    some[1].stats.rq_active = 3
    assert choose() is some[1]  # first against second
    assert choose() is some[2]  # third against first
    assert choose() is some[1]  # twice the same
    some[2].stats.rq_active = 5
    assert choose() is some[0]  # a draw: the first stays


def test_least_request_with_more_choices_finds_the_idle_one() -> None:
    some = endpoints(*[1] * 10)
    for one in some[1:]:
        one.stats.rq_active = 1
    rng = random.Random(5)
    idle = Counter(make_chooser("LEAST_REQUEST", some, rng.random, choices)() is some[0] for choices in [2] * 2000)
    more = Counter(make_chooser("LEAST_REQUEST", some, rng.random, choices)() is some[0] for choices in [10] * 2000)
    assert 0.15 < idle[True] / 2000 < 0.24  # 1 - 0.9**2
    assert 0.6 < more[True] / 2000 < 0.7  # 1 - 0.9**10


def test_weighted_least_request_follows_weight_and_load() -> None:
    some = endpoints(1, 3)
    choose = make_chooser("LEAST_REQUEST", some, random.Random(1).random, 2)
    counted = Counter(choose() for _ in range(400))
    assert 298 <= counted[some[1]] <= 302
    some[1].stats.rq_active = 2  # weighs 3 / 3
    counted = Counter(choose() for _ in range(400))
    assert 196 <= counted[some[1]] <= 204
