import math
from itertools import product

import numpy as np
import pytest

from palm.portfolio.grid import grid_of_size, palm_grid, palm_grid_size, random_weights
from palm.simplex import sample_simplex


@pytest.mark.parametrize(("bases", "epsilon", "delta"), [(2, 0.1, 0.05), (3, 0.3, 0.1), (4, 0.8, 0.3), (3, 0.2, 3.0)])
def test_weights_are_distinct_lie_on_the_simplex_and_keep_to_the_bound(bases, epsilon, delta):
    grid = palm_grid(bases, epsilon, delta)
    np.testing.assert_allclose(grid.sum(axis=1), 1)
    assert (grid >= 0).all()
    assert len(np.unique(np.round(grid, 12), axis=0)) == len(grid)
    assert len(grid) <= palm_grid_size(bases, epsilon, delta)
    for vertex in np.eye(bases):
        assert (np.abs(grid - vertex).max(axis=1) < 1e-12).any()


def test_the_grid_for_two_bases_is_known_by_hand():
    # tau = 0.5, so k runs to ceil(ln 2 / ln 1.5) = 2: levels 0, 1, 1/1.5, 1/2.25, on either side.
    levels = np.array([0, 1 / 2.25, 1 / 1.5, 1])
    expected = np.unique(np.round(np.vstack([np.c_[np.ones(4), levels], np.c_[levels, np.ones(4)]]), 12), axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    found = palm_grid(2, 0.5, 0.5)
    assert len(found) == 7
    np.testing.assert_allclose(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-11)


@pytest.mark.parametrize(("bases", "epsilon", "delta"), [(2, 0.1, 0.05), (3, 0.3, 0.1), (4, 0.8, 0.3)])
def test_policies_optimal_on_the_grid_are_good_enough_everywhere(bases, epsilon, delta):
    """The promise for values in [0, 1]^K without KL cost, on pools built to be hard: many policies on a concave front."""
    rng = np.random.default_rng(bases)
    grid, weights = palm_grid(bases, epsilon, delta), sample_simplex(2000, bases, rng)
    for power in (1.05, 2.0, 4.0):
        pool = rng.random((400, bases))
        pool /= np.linalg.norm(pool, ord=power, axis=1, keepdims=True)
        kept = pool[np.unique((grid @ pool.T).argmax(axis=1))]
        optimum, served = (weights @ pool.T).max(axis=1), (weights @ kept.T).max(axis=1)
        assert ((1 + epsilon) * served + delta >= optimum - 1e-12).all()


def test_rounding_down_loses_no_more_than_promised_and_nearly_that_much():
    """The step the promise rests on: every w, scaled to largest entry 1, lies within (1 + epsilon) and tau of a grid weight."""
    epsilon, delta, bases = 0.25, 0.1, 3
    tau = delta / (bases - 1)
    grid = palm_grid(bases, epsilon, delta)
    grid = grid / grid.max(axis=1, keepdims=True)
    weights = sample_simplex(3000, bases, np.random.default_rng(0))
    weights /= weights.max(axis=1, keepdims=True)
    below = (grid[None] <= weights[:, None] + 1e-12) & (
        ((1 + epsilon) * grid[None] >= weights[:, None] - 1e-12) | (weights[:, None] <= tau + 1e-12)
    )
    assert below.all(axis=2).any(axis=1).all()


def test_one_basis_has_one_weight():
    np.testing.assert_array_equal(palm_grid(1, 0.1, 0.0), [[1.0]])
    assert palm_grid_size(1, 0.1, 0.0) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 0.0, 0.1), "epsilon: expected a positive number, got 0.0"),
        ((3, -0.5, 0.1), "epsilon: expected a positive number, got -0.5"),
        ((3, 0.1, 0.0), "delta: expected a positive number for method 'grid', got 0.0"),
        ((8, 0.05, 0.01), r"epsilon: PALM's grid would have [\d,]+ weights for K = 8, more than 200,000; use method 'cut'"),
    ],
)
def test_grids_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        palm_grid(*arguments)


@pytest.mark.parametrize(("bases", "count"), list(product([2, 3, 5], [1, 10, 100, 333])))
def test_a_uniform_grid_is_the_finest_that_fits(bases, count):
    grid = grid_of_size(bases, count)
    steps = round(1 / grid[grid > 0].min())
    assert len(grid) == math.comb(steps + bases - 1, bases - 1)
    assert len(grid) <= max(count, bases)
    assert math.comb(steps + bases, bases - 1) > count


def test_a_uniform_grid_of_one_basis_is_its_weight():
    np.testing.assert_array_equal(grid_of_size(1, 50), [[1.0]])


def test_random_weights_include_the_vertices():
    found = random_weights(3, 10, np.random.default_rng(0))
    assert found.shape == (10, 3)
    np.testing.assert_array_equal(found[:3], np.eye(3))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert random_weights(4, 1, np.random.default_rng(0)).shape == (4, 4)
