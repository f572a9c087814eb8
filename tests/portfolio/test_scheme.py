import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify
from palm.portfolio.grid import grid_of_size
from palm.portfolio.lazy import lazy_search
from palm.portfolio.pool import solve_all
from palm.portfolio.scheme import Scheme, proven
from palm.portfolio.surrogate import Surrogate, _kernel
from palm.simplex import sample_simplex, uniform_grid


@pytest.fixture(scope="module")
def smooth():
    """bases -> a world of many candidates, whose OPT has no kinks."""
    return lambda bases: GibbsOracle(1 / (1 + np.exp(-np.random.default_rng(bases).normal(size=(60, 40, bases)))), 0.1)


@pytest.mark.parametrize("bases", [2, 3, 4])
def test_the_surrogate_passes_through_what_was_solved_and_is_right_between(smooth, bases):
    oracle = smooth(bases)
    pool = solve_all(oracle, uniform_grid(bases, 3))
    for weights, close in ((pool.weights, 3e-4), (sample_simplex(200, bases, np.random.default_rng(0)), 2e-3)):
        height, slope = Surrogate(pool).tangents(weights)
        truth = oracle.solve(weights)
        np.testing.assert_allclose(height, truth.optimum, atol=close)
        np.testing.assert_allclose(slope, truth.value - truth.value.mean(axis=1, keepdims=True), atol=10 * close)


def test_the_kernel_of_slopes_is_the_kernel_s_derivative():
    rng, h = np.random.default_rng(0), 1e-5
    left, right, length = rng.random((3, 2)), rng.random((4, 2)), 0.7
    full = _kernel(left, right, length).reshape(3, 3, 3, 4)
    for i in range(2):
        step = h * np.eye(2)[i]
        by_left = (_kernel(left + step, right, length) - _kernel(left - step, right, length)).reshape(3, 3, 3, 4) / (2 * h)
        by_right = (_kernel(left, right + step, length) - _kernel(left, right - step, length)).reshape(3, 3, 3, 4) / (2 * h)
        np.testing.assert_allclose(full[1 + i], by_left[0], atol=1e-8)
        np.testing.assert_allclose(full[:, :, 1 + i], by_right[:, :, 0], atol=1e-8)


@pytest.mark.parametrize(("bases", "epsilon", "fewer"), [(3, 0.01, 0.9), (4, 0.05, 0.95)])
def test_looking_ahead_takes_fewer_solves_than_the_largest_gap(smooth, portfolio_of, bases, epsilon, fewer):
    oracle = smooth(bases)
    ahead, claimed = lazy_search(oracle, epsilon=epsilon, delta=0.0)
    plain, _ = lazy_search(oracle, epsilon=epsilon, delta=0.0, ahead=False)
    assert len(ahead) <= fewer * len(plain)
    proof = certify(portfolio_of(oracle, ahead.weights), oracle, search_bound=False)
    assert proof.epsilon <= claimed <= epsilon


def test_a_scheme_that_is_solved_proves_what_it_was_made_for(smooth):
    oracle, epsilon = smooth(3), 0.02
    pool = solve_all(oracle, uniform_grid(3, 2))
    scheme = Scheme(oracle, epsilon, 0.0)._made(pool)
    pool = pool.joined(oracle, np.array([weight for weight, _ in scheme]))
    assert proven(oracle, pool, 0.0)[0] <= epsilon * 1.02
    assert len(scheme) < 20
    np.testing.assert_allclose([expected for _, expected in scheme], pool.optimum[6:], atol=1e-3)


def test_a_surrogate_that_is_always_wrong_is_given_up(smooth):
    oracle = smooth(3)
    pool, scheme = solve_all(oracle, np.eye(3)), Scheme(oracle, 0.01, 0.0)
    asked = 0
    for weight in grid_of_size(3, 45):
        if scheme.following(pool) is None:
            break
        asked += 1
        pool = pool.joined(oracle, weight[None, :])
        pool.optimum[-1] += 1.0  # nothing could have foreseen this
    assert asked <= 7


def test_no_scheme_is_made_where_it_cannot_be(smooth):
    oracle = smooth(3)
    assert Scheme(oracle, 0.0, 0.0).following(solve_all(oracle, np.eye(3))) is None
    many = GibbsOracle(np.random.default_rng(0).random((3, 4, 7)), 0.1)
    assert Scheme(many, 0.1, 0.0).following(solve_all(many, np.eye(7))) is None


@pytest.mark.parametrize("ahead", [True, False])
def test_a_proof_uses_what_was_solved_and_asks_nothing_else(smooth, ahead):
    oracle, solved = smooth(3), []

    class Trained:
        """The same oracle where nothing is known but what was solved."""

        bases, reference, slack, assumptions = 3, oracle.reference, 0.0, ()
        most_curvature = oracle.most_curvature

        def solve(self, weights):
            solved.extend(weights)
            return oracle.solve(weights)

    pool, claimed = lazy_search(Trained(), epsilon=0.05, delta=0.0, ahead=ahead)
    assert claimed <= 0.05
    assert len(solved) == len(pool)
    truth = oracle.optimum(weights := sample_simplex(2000, 3, np.random.default_rng(0)))
    assert (truth <= (1 + claimed) * (weights @ pool.value.T - pool.cost).max(axis=1) + 1e-12).all()
