"""The tables of Envoy's documentation (load_balancing/priority.rst, panic_threshold.rst, degraded.rst), row by row."""

import pytest

from mesh_proxy.upstream.host_sets import distribute


def of_100(*healthy: int) -> list[tuple[int, int, int, int]]:
    return [(100, 0, percent, 0) for percent in healthy]


@pytest.mark.parametrize(
    ("health", "loads"),
    [
        ((100, 100), [100, 0]),
        ((72, 72), [100, 0]),
        ((71, 71), [99, 1]),
        ((50, 50), [70, 30]),
        ((25, 100), [35, 65]),
        ((25, 25), [50, 50]),
        ((25, 20), [56, 44]),
        ((0, 100), [0, 100]),
        ((0, 72), [0, 100]),
        ((100, 100, 100), [100, 0, 0]),
        ((72, 72, 100), [100, 0, 0]),
        ((71, 71, 100), [99, 1, 0]),
        ((50, 50, 100), [70, 30, 0]),
        ((25, 100, 100), [35, 65, 0]),
        ((25, 25, 100), [35, 35, 30]),
    ],
)
def test_load_per_priority(health: tuple[int, ...], loads: list[int]) -> None:
    result = distribute(of_100(*health), 140, 0)
    assert result.healthy == loads
    assert not any(result.panic)


@pytest.mark.parametrize(
    ("health", "panic", "loads"),
    [
        ((72, 72), [False, False], [100, 0]),
        ((71, 71), [False, False], [99, 1]),
        ((50, 60), [False, False], [70, 30]),
        ((50, 50), [False, False], [70, 30]),
        ((25, 100), [False, False], [35, 65]),
        ((25, 25), [True, True], [50, 50]),
        ((5, 65), [True, False], [8, 92]),
    ],
)
def test_panic_only_when_the_priorities_together_do_not_suffice(
    health: tuple[int, ...], panic: list[bool], loads: list[int]
) -> None:
    result = distribute(of_100(*health), 140, 50)
    assert result.panic == panic
    assert [good + poor for good, poor in zip(result.healthy, result.degraded, strict=True)] == loads


def test_total_panic_shares_by_the_number_of_endpoints() -> None:
    result = distribute([(9, 0, 0, 0), (1, 0, 0, 0)], 140, 50)
    assert result.panic == [True, True]
    assert result.healthy == [90, 10]
    assert distribute([(1, 0, 0, 0)] * 3, 140, 50).healthy == [34, 33, 33]


def test_an_empty_priority_gets_nothing() -> None:
    assert distribute([(0, 0, 0, 0), (3, 0, 3, 0)], 140, 50).healthy == [0, 100]
    result = distribute([(0, 0, 0, 0), (3, 0, 0, 0)], 140, 50)
    assert result.healthy == [0, 100]


def test_nobody_at_all() -> None:
    assert distribute([(0, 0, 0, 0)], 140, 50).healthy == [100]
    result = distribute([(4, 0, 0, 0)], 140, 0)
    assert result.healthy == [100]
    assert result.panic == [False]


@pytest.mark.parametrize(
    ("healthy", "degraded", "loads"),
    [(100, 0, (100, 0)), (71, 29, (99, 1)), (50, 50, (70, 30)), (25, 65, (35, 65)), (5, 0, (100, 0)), (0, 5, (0, 100))],
)
def test_degraded_take_what_the_healthy_cannot(healthy: int, degraded: int, loads: tuple[int, int]) -> None:
    result = distribute([(100, 0, healthy, degraded)], 140, 0)
    assert (result.healthy[0], result.degraded[0]) == loads


def test_draining_endpoints_are_no_sign_of_illness() -> None:
    # Four of which one drains and one is degraded: 1/3 usable, hence panic; with two draining it is half, hence none.
    result = distribute([(4, 1, 0, 1)], 140, 50)
    assert result.panic == [True]
    result = distribute([(4, 2, 0, 1)], 140, 50)
    assert (result.panic, result.degraded) == ([False], [100])
    assert distribute([(2, 2, 0, 0)], 140, 50).panic == [True]


def test_the_factor_counts() -> None:
    assert distribute(of_100(50, 100), 100, 0).healthy == [50, 50]
    assert distribute(of_100(50, 100), 200, 0).healthy == [100, 0]


def test_loads_always_add_up() -> None:
    for a in range(0, 101, 7):
        for b in range(0, 101, 9):
            for c in (0, 13, 100):
                for threshold in (0, 50, 100):
                    result = distribute([(100, 0, a, (100 - a) // 2), (7, 1, b * 6 // 100, 0), (100, 0, c, 0)], 140, threshold)
                    assert sum(result.healthy) + sum(result.degraded) == 100, (a, b, c, threshold)
