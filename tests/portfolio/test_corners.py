from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from palm.portfolio import GibbsOracle
from palm.portfolio.corners import corner_weights, upper_bound
from palm.simplex import sample_simplex


def enumerated(values):
    """Corners from every choice of K tight constraints out of: policy j attains the maximum, entry k is 0."""
    count, bases = values.shape
    planes = np.vstack([np.column_stack([values, -np.ones(count)]), np.column_stack([np.eye(bases), np.zeros(bases)])])
    total = np.append(np.ones(bases), 0.0)
    found = []
    for rows in combinations(range(len(planes)), bases):
        system = np.vstack([planes[list(rows)], total])
        if np.linalg.matrix_rank(system, tol=1e-9) <= bases:
            continue
        point = np.linalg.solve(system, np.append(np.zeros(bases), 1.0))
        weight, height = point[:-1], point[-1]
        if (weight > -1e-9).all() and (values @ weight <= height + 1e-9).all():
            found.append(weight)
    return np.array(found)


def assert_same_points(found, expected):
    apart = np.abs(found[:, None, :] - expected[None, :, :]).max(axis=2)
    assert apart.min(axis=0).max() < 1e-7, f"missing {expected[apart.min(axis=0).argmax()]}"
    assert apart.min(axis=1).max() < 1e-7, f"no corner {found[apart.min(axis=1).argmax()]}"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("bases", "count"), [(2, 8), (3, 7), (4, 5), (5, 4)])
def test_corners_are_those_of_a_full_enumeration(bases, count, seed):
    values = np.random.default_rng([bases, seed]).random((count, bases))
    corners = corner_weights(values)
    assert_same_points(corners, enumerated(values))
    assert np.allclose(corners.sum(axis=1), 1)
    assert (corners >= 0).all()
    assert len(np.unique(np.round(corners, 9), axis=0)) == len(corners)


DEGENERATE = {
    "two equal policies": np.array([[0.9, 0.1, 0.3], [0.9, 0.1, 0.3], [0.2, 0.8, 0.4]]),
    "all equal policies": np.full((4, 3), 0.4),
    "one for each basis": np.eye(4),
    "all cross at the centre": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]]),
    "three on one line": np.array([[1, 0, 0.5], [0.5, 0.5, 0.5], [0, 1, 0.5]]),
    "parallel": np.array([[0.5, 0.4, 0.3], [0.6, 0.5, 0.4], [0.2, 0.9, 0.1]]),
    "permutations": np.array([[1, 2, 4], [1, 4, 2], [2, 1, 4], [2, 4, 1], [4, 1, 2], [4, 2, 1]]) / 4,
    "corners of a cube": np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T.astype(float),
    "nearly equal": np.array([[0.5, 0.5, 0.1], [0.5 + 1e-14, 0.5, 0.1], [0.1, 0.2, 0.9]]),
    "negative, with costs": np.array([[-1.0, -3.0, 0.5], [-2.0, 1.0, -1.0], [0.1, -1.0, -2.0]]),
    "tiny": np.array([[1e-6, 0, 0], [0, 1e-6, 0], [0, 0, 1e-6]]),
}


@pytest.mark.parametrize("values", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_policies_have_the_right_corners(values):
    corners = corner_weights(values)
    height = (corners @ values.T).max(axis=1)
    for weight in sample_simplex(200, values.shape[1], np.random.default_rng(0)):
        # max_j v_j.w is convex: the cheapest chord over the corners meets it everywhere only if no corner is missing.
        chord = linprog(height, A_eq=np.vstack([corners.T, np.ones(len(corners))]), b_eq=np.append(weight, 1))
        assert chord.fun == pytest.approx((values @ weight).max(), abs=1e-9 * max(1, np.ptp(values)))


def test_two_opposed_policies_meet_in_the_middle():
    np.testing.assert_allclose(corner_weights(np.eye(2)), [[0, 1], [0.5, 0.5], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(corner_weights(np.array([[0.6, 0.0], [0.0, 0.3]])), [[0, 1], [1 / 3, 2 / 3], [1, 0]], atol=1e-12)


def test_a_dominated_policy_adds_no_corner():
    values = np.random.default_rng(3).random((5, 3))
    below = np.vstack([values, values[2] - 0.01])
    assert_same_points(corner_weights(below), corner_weights(values))


@pytest.mark.parametrize("bases", [1, 2, 5])
def test_one_policy_leaves_the_vertices(bases):
    assert_same_points(corner_weights(np.random.default_rng(0).random((1, bases))), np.eye(bases))


@pytest.mark.parametrize("bases", [2, 3, 4])
def test_hull_bound_is_the_linear_program_and_lies_above_the_optimum(random_tensor, optimum_at, bases):
    rewards, kl = random_tensor(0, bases), 0.1
    rng = np.random.default_rng(bases)
    solved = np.vstack([np.eye(bases), sample_simplex(12, bases, rng)])
    weights = sample_simplex(60, bases, rng)
    optima = GibbsOracle(rewards, kl).optimum(solved)
    bound = upper_bound(weights, solved, optima)
    for weight, value in zip(weights, bound, strict=True):
        program = linprog(optima, A_eq=np.vstack([solved.T, np.ones(len(solved))]), b_eq=np.append(weight, 1))
        assert value == pytest.approx(program.fun, abs=1e-8)
    assert (bound >= optimum_at(rewards, weights, kl) - 1e-12).all()
    np.testing.assert_allclose(upper_bound(solved, solved, optima), optima, atol=1e-9)


def test_many_policies_over_two_bases_take_little_memory():
    slope = np.linspace(0, 1, 5000)  # tangents of x^2 (2,500,000 pairs of them)
    values = np.column_stack([2 * slope - slope**2, -(slope**2)])
    corners = corner_weights(values)
    between = 0.5 * (slope[:-1] + slope[1:])
    assert len(corners) == 5001
    np.testing.assert_allclose(np.sort(corners[:, 0])[1:-1], between, atol=1e-9)


def test_hull_bound_is_exact_where_the_optimum_is_linear():
    slope, weights = np.array([0.3, 0.9, 0.5]), sample_simplex(50, 3, np.random.default_rng(0))
    np.testing.assert_allclose(upper_bound(weights, np.eye(3), slope), weights @ slope, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-13, 1e12])
def test_hull_bound_grows_with_the_scale(random_tensor, scale):
    rng = np.random.default_rng(0)
    solved, weights = np.vstack([np.eye(3), sample_simplex(12, 3, rng)]), sample_simplex(60, 3, rng)
    optima = GibbsOracle(random_tensor(0, 3), 0.1).optimum(solved)
    np.testing.assert_allclose(
        upper_bound(weights, solved, optima * scale) / scale, upper_bound(weights, solved, optima), rtol=1e-9
    )


def test_hull_bound_for_one_basis_is_its_optimum():
    np.testing.assert_array_equal(upper_bound(np.ones((3, 1)), np.ones((2, 1)), np.array([0.7, 0.7])), [0.7, 0.7, 0.7])
