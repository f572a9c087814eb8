"""Pareto front and hypervolume: against definitions, inclusion-exclusion and Monte Carlo."""

import itertools

import numpy as np
import pytest

from palm.portfolio import hypervolume, pareto_front


def by_inclusion_and_exclusion(value):
    total = 0.0
    for size in range(1, len(value) + 1):
        for rows in itertools.combinations(range(len(value)), size):
            total += (-1) ** (size + 1) * np.maximum(value[list(rows)].min(axis=0), 0).prod()
    return total


@pytest.mark.parametrize("bases", [1, 2, 3, 4, 5])
def test_hypervolume_is_that_of_inclusion_and_exclusion(bases):
    rng = np.random.default_rng(bases)
    for _ in range(10):
        value = rng.random((rng.integers(1, 8), bases))
        value[-1] = np.round(value[-1], 1)
        assert hypervolume(value) == pytest.approx(by_inclusion_and_exclusion(value), rel=1e-12)


@pytest.mark.parametrize("bases", [2, 3, 4, 6])
def test_hypervolume_is_the_share_of_random_points_that_some_policy_dominates(bases):
    rng = np.random.default_rng(10 + bases)
    value = rng.dirichlet(np.ones(bases), size=20) ** 0.3
    points = rng.random((100_000, bases))
    inside = np.zeros(len(points), dtype=bool)
    for row in value:
        inside |= (points <= row).all(axis=1)
    error = np.sqrt(inside.mean() * (1 - inside.mean()) / len(points))
    assert abs(hypervolume(value) - inside.mean()) < 4 * error


def test_known_volumes():
    assert hypervolume(np.array([[1.0, 0.5], [0.5, 1.0]])) == 0.75
    assert hypervolume(np.array([[1.0, 0.5], [0.5, 1.0]]), above=np.array([0.4, 0.4])) == pytest.approx(0.6 * 0.1 * 2 - 0.01)
    assert hypervolume(np.array([[2.0, 0.5, 1.0], [1.0, 1.0, 1.0]])) == pytest.approx(1.5)
    assert hypervolume(np.zeros((0, 3))) == 0
    assert hypervolume(np.array([[1.0, 0.0], [0.0, 1.0]])) == 0  # nothing above the reference point in both
    assert hypervolume(np.array([[-1.0, -1.0], [0.5, 0.5]])) == 0.25
    assert hypervolume(np.array([[-1.0, -1.0], [-0.5, -2.0]])) == 0
    assert hypervolume(np.array([[0.3], [0.7]])) == 0.7


def test_order_equal_rows_and_beaten_rows_change_nothing():
    rng = np.random.default_rng(0)
    value = rng.random((8, 4))
    whole = hypervolume(value)
    more = np.vstack([value, value[:3], value * 0.9])
    assert hypervolume(more[rng.permutation(len(more))]) == pytest.approx(whole, rel=1e-12)
    assert hypervolume(np.vstack([value, np.ones(4)])) == pytest.approx(1)


def test_the_front_is_what_the_definition_says():
    rng = np.random.default_rng(1)
    for _ in range(20):
        value = np.round(rng.random((12, 3)), 1)
        front = []
        for row in range(12):
            beaten = any((value[other] >= value[row]).all() and (value[other] > value[row]).any() for other in range(12))
            first = not any((value[other] == value[row]).all() for other in range(row))
            front += [row] if first and not beaten else []
        assert pareto_front(value).tolist() == front
    assert pareto_front(np.array([[1.0, 1.0], [1.0, 1.0], [0.5, 1.0]])).tolist() == [0]
    assert pareto_front(np.zeros((0, 2))).tolist() == []


def test_thirty_policies_of_six_bases_are_no_trouble():
    value = np.random.default_rng(2).dirichlet(np.ones(6), size=30) ** 0.2
    assert 0 < hypervolume(value) < 1


@pytest.mark.parametrize(
    ("value", "above", "message"),
    [
        (np.zeros(3), None, r"value: expected the shape \(m policies, K bases\), K at least 1, got \(3,\)"),
        (np.zeros((2, 0)), None, r"K at least 1, got \(2, 0\)"),
        (np.array([[0.5, np.nan]]), None, "value: expected finite numbers, got nan of policy 0 in basis 1"),
        (np.array([[0.5, 0.2]]), np.zeros(3), r"above: expected 2 finite numbers, got \[0.0, 0.0, 0.0\]"),
        (np.array([[0.5, 0.2]]), np.array([0, np.inf]), r"above: expected 2 finite numbers, got \[0.0, inf\]"),
    ],
)
def test_bad_input_is_refused_by_name(value, above, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(value, above=above)
