import numpy as np
import pytest

from palm.portfolio import GibbsOracle
from palm.portfolio.bounds import SmoothOracle, bound_between, bowls
from palm.portfolio.corners import upper_bound
from palm.portfolio.pool import solve_all
from palm.simplex import sample_simplex


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("bases", "kl"), [(1, 0.1), (2, 0.02), (3, 0.1), (4, 1.0), (6, 0.1)])
def test_the_bound_is_never_below_the_optimum_and_never_above_the_chords(random_tensor, optimum_at, seed, bases, kl):
    rewards = random_tensor(seed, bases) * np.geomspace(1, 0.02, bases)
    oracle = GibbsOracle(rewards, kl)
    rng = np.random.default_rng(seed)
    pool = solve_all(oracle, np.vstack([np.eye(bases), sample_simplex(6, bases, rng)]))
    weights = sample_simplex(300, bases, rng)
    bound, optimum = bound_between(oracle, pool, weights), optimum_at(rewards, weights, kl)
    assert (bound >= optimum - 1e-10).all()
    assert (bound <= upper_bound(weights, pool.weights, pool.optimum) + 1e-10).all()
    assert (bowls(weights, pool, oracle.most_curvature) >= optimum - 1e-10).all()


def test_a_bowl_is_as_flat_as_the_range_allows_and_no_flatter():
    """Two candidates that differ by r in basis 1: for small steps d, OPT(w + d) - OPT(w) - J.d is r^2 d^2 / (8 kl), which the bowl says."""
    r, kl, step = 0.4, 0.5, 1e-3
    oracle = GibbsOracle(np.array([[[0.1, 0.3], [0.1 + r, 0.3]]]), kl)
    np.testing.assert_allclose(oracle.most_curvature, [[r**2 / (4 * kl), 0], [0, 0]], atol=1e-15)
    pool = solve_all(oracle, np.array([[0.0, 1.0]]))  # there both candidates are equally likely
    weight = np.array([[step, 1 - step]])
    tangent = weight @ pool.value[0] - pool.cost[0]
    excess = oracle.optimum(weight) - tangent
    assert bowls(weight, pool, oracle.most_curvature) - tangent == pytest.approx(excess, rel=1e-4)


def test_ranges_are_those_of_the_candidates_there_are():
    rewards = np.array([[[0.0, 0.5], [0.4, 0.5], [1.0, 0.9]], [[0.2, 0.1], [0.2, 0.3], [0.2, 0.2]]])
    mask = np.array([[True, True, False], [True, True, True]])
    np.testing.assert_allclose(GibbsOracle(rewards, 0.25, mask=mask).most_curvature, [[0.16 / 2, 0], [0, 0.04 / 2]])


def test_a_flat_basis_needs_no_solve_of_its_own_between():
    """Basis 3 is basis 2 but for a hair: solves along the edge 1-2 speak for the edge 1-3, where chords alone know its ends only."""
    rewards = np.random.default_rng(0).random((20, 8, 3))
    rewards[:, :, 1:] = 0.5 + 0.001 * rewards[:, :, 1:]
    oracle = GibbsOracle(rewards, 0.1)
    pool = solve_all(oracle, np.vstack([np.eye(3), [[0.5, 0.5, 0]]]))
    middle = np.array([[0.5, 0.0, 0.5]])
    chord, bound, optimum = (
        upper_bound(middle, pool.weights, pool.optimum),
        bound_between(oracle, pool, middle),
        oracle.optimum(middle),
    )
    assert chord - optimum > 0.01
    assert 0 <= bound - optimum < 1e-4


def test_an_oracle_that_knows_no_curvature_gets_chords_and_its_slack(pool_oracle):
    oracle = pool_oracle([[1, 0], [0, 1], [0.7, 0.7]], reference=[0.1, 0.1], slack=0.05)
    assert not isinstance(oracle, SmoothOracle)
    pool = solve_all(oracle, np.eye(2))
    assert bound_between(oracle, pool, np.array([[0.5, 0.5]])) == pytest.approx(1.05)
