"""The plan of the traffic and the judgement of what came back."""

import re
from collections import Counter

import pytest

from mesh_proxy.demo.report import Report
from mesh_proxy.demo.scenario import FLAKY_EVERY, RETRIED, RULES, WEIGHTED, Result, percentile, plan, tolerance


@pytest.mark.parametrize("requests", [*range(10, 41), 99, 2000, 2001])
def test_the_plan_tries_every_rule_with_exactly_so_many_requests(requests: int) -> None:
    rules = plan(requests, seed=1)
    assert len(rules) == requests
    assert set(rules) == set(RULES)


def test_the_plan_keeps_the_portions_and_can_be_repeated() -> None:
    rules = plan(2000, seed=1)
    assert {rule.name: count * 100 // 2000 for rule, count in Counter(rules).items()} == {
        rule.name: rule.portion for rule in RULES
    }
    assert rules == plan(2000, seed=1) != plan(2000, seed=2)


def test_shares_add_up() -> None:
    for rule in RULES:
        assert sum(rule.shares.values()) == pytest.approx(1)
    assert sum(rule.portion for rule in RULES) == 100


def weighted(v1: int, v2: int, **others: int) -> Result:
    return Result(WEIGHTED, sent=v1 + v2, answered=Counter(v1=v1, v2=v2, **others))


@pytest.mark.parametrize(("v1", "v2"), [(900, 100), (940, 60), (860, 140), (9, 1), (10, 0), (7, 3)])
def test_a_split_by_chance_is_right(v1: int, v2: int) -> None:
    assert weighted(v1, v2).problems() == []


@pytest.mark.parametrize(("v1", "v2"), [(1000, 0), (800, 200), (500, 500), (100, 900), (0, 10)])
def test_a_split_that_no_chance_explains_is_wrong(v1: int, v2: int) -> None:
    assert weighted(v1, v2).problems() == [
        f"weights 90/10: v1 answered {v1} of {v1 + v2}, expected 90%",
        f"weights 90/10: v2 answered {v2} of {v1 + v2}, expected 10%",
    ]


def test_a_stranger_who_answers_is_wrong() -> None:
    assert weighted(900, 100, flaky=1).problems() == ["weights 90/10: flaky answered 1 of 1001, expected 0%"]


def test_one_wrong_answer_of_a_sure_rule_is_wrong() -> None:
    only_v2 = Result(RULES[0], sent=500, answered=Counter(v2=499, v1=1))
    assert only_v2.problems() == [
        "x-version: v2 -> v2: v1 answered 1 of 500, expected 0%",
        "x-version: v2 -> v2: v2 answered 499 of 500, expected 100%",
    ]


def test_tolerance_is_zero_where_nothing_is_drawn() -> None:
    assert tolerance(1000, 0.0) == tolerance(1000, 1.0) == 0
    assert tolerance(1000, 0.1) == pytest.approx(5 * 9.4868 + 1, abs=0.01)


@pytest.mark.parametrize(("per_cent", "value"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)])
def test_percentile_is_the_nearest_rank(per_cent: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], per_cent) == value


def test_percentile_of_nothing() -> None:
    assert percentile([], 50) == 0


def right_results() -> dict[str, Result]:
    results = {rule.name: Result(rule, sent=30, answered=Counter({next(iter(rule.shares)): 30})) for rule in RULES}
    results[WEIGHTED.name].answered = Counter(v1=27, v2=3)
    for result in results.values():
        result.latencies = [0.001] * 30
    return results


def report(**changes: int) -> Report:
    figures = {"retries": 30 // FLAKY_EVERY, "counted": 30 * len(RULES)} | changes
    made = Report(right_results(), [0.0005], 1.25, memory={"supervisor": 15 << 20, "worker 0": 13 << 20}, **figures)
    made.check()
    return made


def test_a_right_report() -> None:
    made = report()
    assert made.problems == []
    text = made.text()
    assert "All as expected." in text
    assert re.search(r"weights 90/10 +30  v1 +27 +90\.0%  v1 90% +1\.00 +1\.00 +1\.00 +0\n +v2 +3 +10\.0%  v2 10%\n", text)
    assert "28.0 MiB PSS (supervisor 15.0, worker 0 13.0)" in text
    as_json = made.as_json()
    assert as_json["ok"] is True
    assert as_json["rules"][1]["answered"] == {"v1": 27, "v2": 3}
    assert as_json["rules"][1]["latency_ms"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0}


def test_a_report_compares_with_what_the_sidecar_counted() -> None:
    assert report(counted=149).problems == ["the sidecar counted 149 requests, 150 were sent"]
    assert report(retries=9).problems == ["9 retries by the sidecar's count, 10 were needed"]


def test_a_wrong_report_says_what_is_wrong() -> None:
    made = report()
    made.results[RETRIED.name].failures["status 503 instead of 200"] = 2
    made.check()
    assert "WRONG: retry on 5xx: status 503 instead of 200 (2 of 30)" in made.text()
    assert made.as_json()["ok"] is False
