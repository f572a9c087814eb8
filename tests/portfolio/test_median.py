from itertools import combinations

import numpy as np
import pytest

from palm.portfolio.grid import grid_of_size
from palm.portfolio.median import least_cost, swap_least
from palm.portfolio.select import Effort


def by_trying_all(cost, free, size):
    """The least total over every set of at most `size` columns."""
    return min(
        np.minimum(free, cost[:, list(few)].min(axis=1, initial=np.inf)).sum()
        for count in range(min(size, cost.shape[1]) + 1)
        for few in combinations(range(cost.shape[1]), count)
    )


def random_costs(seed):
    """Small pools: uniform, clustered on a line, with signs, ties, or forbidden pairs."""
    rng = np.random.default_rng(seed)
    rows, columns, size = int(rng.integers(3, 14)), int(rng.integers(3, 11)), int(rng.integers(1, 5))
    cost = [
        rng.random((rows, columns)),
        np.abs(rng.random(rows)[:, None] - rng.random(columns)),
        rng.normal(size=(rows, columns)),
        rng.integers(0, 3, size=(rows, columns)).astype(float),
        np.where(rng.random((rows, columns)) < 0.3, np.inf, rng.random((rows, columns))),
    ][seed % 5]
    return cost, rng.random(rows) + 0.3 * (seed % 3), size


@pytest.mark.parametrize("seed", range(50))
def test_the_proven_choice_is_the_best_of_all_choices(seed):
    cost, free, size = random_costs(seed)
    best, found = by_trying_all(cost, free, size), least_cost(cost, free, size)
    assert len(found.chosen) <= size
    assert (np.diff(found.chosen) > 0).all()
    assert found.cost == pytest.approx(np.minimum(free, cost[:, found.chosen].min(axis=1, initial=np.inf)).sum(), abs=1e-12)
    assert found.cost == pytest.approx(best, abs=1e-9)
    assert best - 1e-5 <= found.at_least <= best + 1e-9
    swapped = least_cost(cost, free, size, exact=False)
    assert swapped.cost >= best - 1e-12
    assert swapped.at_least <= best + 1e-12


def test_integer_programming_finds_what_no_single_swap_leads_to():
    rng, worse = np.random.default_rng(0), 0
    for _ in range(40):
        cost = np.abs(rng.random((40, 1, 2)) - rng.random((1, 14, 2))).sum(axis=2)
        free, best = np.full(40, 5.0), least_cost(cost, np.full(40, 5.0), 4)
        assert best.cost == pytest.approx(by_trying_all(cost, free, 4), abs=1e-9)
        worse += least_cost(cost, free, 4, exact=False).cost > best.cost + 1e-9
    assert worse >= 2


@pytest.mark.parametrize("seed", range(10))
def test_no_single_swap_improves_what_swapping_chose(seed):
    rng = np.random.default_rng(seed)
    cost, free = rng.random((12, 8)), rng.random(12) + 0.5
    for size in (1, 2, 3):
        chosen = swap_least(cost, free, size).tolist()
        totals = [
            np.minimum(free, cost[:, sorted({*chosen} - {old} | {new})].min(axis=1)).sum() for old in chosen for new in range(8)
        ]
        assert np.minimum(free, cost[:, chosen].min(axis=1)).sum() <= min(totals) + 1e-12


def test_columns_that_serve_nobody_better_are_not_kept():
    cost, free = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), np.array([1.0, 0.5])
    assert len(least_cost(cost, free, 3).chosen) == 1
    assert len(least_cost(cost + 2, free, 2).chosen) == 0  # everyone is served for free
    assert least_cost(cost + 2, free, 2).cost == 1.5


def test_effort_that_is_spent_leaves_an_honest_bound():
    rng = np.random.default_rng(1)
    weights = grid_of_size(3, 150)
    cost = np.abs(rng.dirichlet(np.ones(3), size=(200, 1)) - weights[None]).sum(axis=2)
    free, effort = np.full(200, 3.0), Effort(2e3)
    cut_short, whole = least_cost(cost, free, 5, effort=effort), least_cost(cost, free, 5)
    assert effort.spent
    assert cut_short.at_least <= whole.at_least + 1e-9 <= whole.cost + 2e-9 <= cut_short.cost + 3e-9
    assert whole.cost - whole.at_least <= 1e-5 * whole.cost
    assert cut_short.cost - cut_short.at_least > 1e-4 * whole.cost


@pytest.mark.parametrize(
    ("cost", "free", "size", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), 1, r"cost, free: expected the shapes .* none of them 0, got \(0, 2\), \(0,\)"),
        (np.zeros((2, 2)), np.zeros(3), 1, r"cost, free: expected the shapes .* got \(2, 2\), \(3,\)"),
        (np.array([[np.nan]]), np.zeros(1), 1, "cost, free: expected numbers or infinity, got others"),
        (np.array([[1.0]]), np.array([-np.inf]), 1, "cost, free: expected numbers or infinity, got others"),
        (np.array([[1.0], [np.inf]]), np.full(2, np.inf), 1, "cost, free: expected a finite cost for every row, row 1 has none"),
        (np.ones((1, 1)), np.ones(1), 0, "size: expected at least 1, got 0"),
        (np.ones((1, 1)), np.ones(1), True, "size: expected at least 1, got True"),
    ],
)
def test_bad_tables_are_refused_by_name(cost, free, size, message):
    with pytest.raises(ValueError, match=message):
        least_cost(cost, free, size)
