import numpy as np
import pytest

from palm.portfolio import GibbsOracle
from palm.portfolio.bounds import bound_between, bowls, curvature_of, optima_of
from palm.portfolio.corners import upper_bound
from palm.portfolio.pool import Pool, solve_all
from palm.simplex import sample_simplex


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("bases", "kl"), [(1, 0.1), (2, 0.02), (3, 0.1), (4, 1.0), (6, 0.1)])
def test_the_bound_is_never_below_the_optimum_and_never_above_the_chords(random_tensor, optimum_at, seed, bases, kl):
    rewards = random_tensor(seed, bases) * np.geomspace(1, 0.02, bases)
    oracle = GibbsOracle(rewards, kl)
    rng = np.random.default_rng(seed)
    pool = solve_all(oracle, np.vstack([np.eye(bases), sample_simplex(6, bases, rng)]))
    weights = sample_simplex(300, bases, rng)
    bound, optimum = bound_between(oracle, pool, weights, pool.optimum), optimum_at(rewards, weights, kl)
    assert (bound >= optimum - 1e-10).all()
    assert (bound <= upper_bound(weights, pool.weights, pool.optimum) + 1e-10).all()
    assert (bowls(weights, pool, oracle.most_curvature) >= optimum - 1e-10).all()


def test_a_bowl_is_as_flat_as_the_range_allows_and_no_flatter():
    """Two candidates that differ by r in basis 1: for small d, OPT(w + d) - OPT(w) - J.d is r^2 d^2 / (8 kl), as the bowl says."""
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
    """Basis 3 is basis 2 but for a hair: solves along edge 1-2 speak for edge 1-3, where chords alone know its ends only."""
    rewards = np.random.default_rng(0).random((20, 8, 3))
    rewards[:, :, 1:] = 0.5 + 0.001 * rewards[:, :, 1:]
    oracle = GibbsOracle(rewards, 0.1)
    pool = solve_all(oracle, np.vstack([np.eye(3), [[0.5, 0.5, 0]]]))
    middle = np.array([[0.5, 0.0, 0.5]])
    chord, bound, optimum = (
        upper_bound(middle, pool.weights, pool.optimum),
        bound_between(oracle, pool, middle, pool.optimum),
        oracle.optimum(middle),
    )
    assert chord - optimum > 0.01
    assert 0 <= bound - optimum < 1e-4


def test_an_oracle_that_knows_no_curvature_gets_chords_and_its_slack(pool_oracle):
    oracle = pool_oracle([[1, 0], [0, 1], [0.7, 0.7]], reference=[0.1, 0.1], slack=0.05)
    assert curvature_of(oracle) is None
    pool = solve_all(oracle, np.eye(2))
    assert bound_between(oracle, pool, np.array([[0.5, 0.5]]), optima_of(oracle, pool)) == pytest.approx(1.05)


@pytest.mark.parametrize("seed", range(6))
def test_a_bowl_over_a_policy_that_misses_its_optimum_allows_for_what_it_misses(random_tensor, optimum_at, seed):
    """The policies that are optimal at other weights, and softer than they should be: each misses at its own weight."""
    rewards, kl = random_tensor(seed, 3), 0.2
    oracle, softer = GibbsOracle(rewards, kl), GibbsOracle(rewards, 1.3 * kl)
    rng = np.random.default_rng(seed)
    at = sample_simplex(8, 3, rng)
    other = softer.solve(0.7 * at + 0.3 * sample_simplex(8, 3, rng))
    cost = other.cost / 1.3  # their KL, at this coefficient
    own = (at * other.value).sum(axis=1) - cost
    slack = float((optimum_at(rewards, at, kl) - own).max())
    pool, weights = Pool(at, other.value, cost, own), sample_simplex(400, 3, rng)
    optimum = optimum_at(rewards, weights, kl)
    assert slack > 1e-3
    assert (bowls(weights, pool, oracle.most_curvature, slack) >= optimum - 1e-10).all()
    assert (bowls(weights, pool, oracle.most_curvature) < optimum).any()


def test_what_a_policy_misses_tilts_its_bowl_as_much_as_the_formula_says():
    """One candidate pair, r apart: OPT is kl log cosh of w_1 r / (2 kl) but for a line, a parabola where that is small.

    The tangent of the parabola q t^2 / 2 at s, taken for the policy of weight 0, misses eta = q s^2 / 2 there, and the parabola is
    at t = -s' above it by q (s + s')^2 / 2 = (sqrt(eta) + sqrt(q s'^2 / 2))^2, as the bound says.
    """
    r, kl, s = 0.4, 20.0, 0.5
    oracle = GibbsOracle(np.array([[[0.0, 0.3], [r, 0.3]]]), kl)
    given = oracle.solve(np.array([[0.5 + s, 0.5 - s]]))
    weight = np.array([[0.5, 0.5]])
    own = weight @ given.value[0] - given.cost[0]
    slack = float(oracle.optimum(weight)[0] - own[0])
    pool = Pool(weight, given.value, given.cost, own)
    far = np.array([[0.5 - s, 0.5 + s]])
    bowl = bowls(far, pool, oracle.most_curvature, slack)
    line = far @ given.value[0] - given.cost[0]
    assert (bowl - line) == pytest.approx(oracle.optimum(far) - line, rel=1e-3)
    assert bowl >= oracle.optimum(far) - 1e-12
