import numpy as np
import pytest

from palm.portfolio import BestOfNOracle, GibbsOracle, certify
from palm.portfolio.cover import greedy_search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import Trials, solve_all
from palm.portfolio.search import cut_search
from palm.portfolio.thin import Looks, _Found, _sparest, thinned


@pytest.mark.parametrize(("bases", "epsilon", "delta"), [(2, 0.02, 0.0), (3, 0.05, 0.0), (3, 0.03, 0.01)])
def test_fewer_policies_are_still_good_enough(random_tensor, portfolio_of, bases, epsilon, delta):
    fewer = 0
    for seed in range(2):
        oracle = GibbsOracle(random_tensor(seed, bases), 0.1)
        pool, trials, chosen = greedy_search(oracle, epsilon=epsilon, delta=delta)
        lines = []
        looks = Looks(1e4)
        joined, few = thinned(oracle, pool, trials, chosen, epsilon=epsilon, delta=delta, looks=looks, advance=lines.append)
        assert len(few) == len(chosen) - len(lines)
        proof = certify(portfolio_of(oracle, joined.weights[few]), oracle, delta=delta, search_bound=False)
        assert proof.epsilon <= epsilon + 1e-8
        solution = oracle.solve(joined.weights[few])
        np.testing.assert_allclose(joined.value[few], solution.value, atol=1e-12)
        np.testing.assert_allclose(joined.optimum[few], solution.optimum, atol=1e-12)
        assert 0 <= looks.left < 1e4
        fewer += len(few) < len(chosen)
    assert fewer >= 1


def test_a_coarse_pool_is_thinned_below_what_its_own_best_part_needs(random_tensor, portfolio_of):
    fewer = 0
    for seed in range(6):
        oracle = GibbsOracle(random_tensor(seed, 2), 0.1)
        pool = solve_all(oracle, grid_of_size(2, 9))
        epsilon = 1.1 * certify(portfolio_of(oracle, pool.weights), oracle, search_bound=False).epsilon
        _, fewest = cut_search(oracle, epsilon=epsilon, delta=0.0, pool=pool)
        trials = Trials(pool.weights, pool.optimum)
        joined, few = thinned(oracle, pool, trials, fewest, epsilon=epsilon, delta=0.0, looks=Looks(1e4))
        assert certify(portfolio_of(oracle, joined.weights[few]), oracle, search_bound=False).epsilon <= epsilon
        fewer += len(few) < len(fewest)
    assert fewer >= 2


def test_without_effort_or_anything_to_spare_nothing_changes(random_tensor):
    oracle = GibbsOracle(random_tensor(0, 3), 0.1)
    pool, trials, chosen = greedy_search(oracle, epsilon=0.05, delta=0.0)
    for looks in (Looks(0), Looks(100)):
        same, few = thinned(oracle, pool, trials, chosen, epsilon=0.05, delta=0.0, looks=looks)
        assert same is pool
        np.testing.assert_array_equal(few, chosen)
        assert looks.left >= 0


def test_the_sparest_policy_is_the_one_whose_neighbours_leave_least():
    oracle = GibbsOracle(np.random.default_rng(0).random((20, 16, 2)), 0.05)
    t = np.array([0.0, 0.45, 0.5, 1.0])  # the two in the middle stand close together
    pool = solve_all(oracle, np.column_stack([t, 1 - t]))
    weights = grid_of_size(2, 101)
    trials = Trials(weights, oracle.optimum(weights))
    order = _sparest(oracle, trials, _Found(pool.weights, pool.value, pool.cost), 0.0)

    def left(policy):
        others = np.delete(np.arange(4), policy)
        served = np.maximum((weights @ pool.value[others].T - pool.cost[others]).max(axis=1), weights @ oracle.reference)
        own = (weights @ pool.value.T - pool.cost).argmax(axis=1) == policy
        return (trials.optimum[own] / served[own]).max() - 1

    assert set(order[:2]) == {1, 2}
    np.testing.assert_array_equal(order, np.argsort([left(policy) for policy in range(4)], kind="stable"))


def test_an_oracle_with_slack_is_thinned_by_its_upper_bound(random_tensor, portfolio_of):
    oracle = BestOfNOracle(random_tensor(0, 2), n=3, kl=0.02)
    pool = solve_all(oracle, grid_of_size(2, 9))
    epsilon = certify(portfolio_of(oracle, pool.weights), oracle, search_bound=False).epsilon * 1.2 + 0.01
    trials = Trials(pool.weights, oracle.upper_bound(pool.weights))
    joined, few = thinned(oracle, pool, trials, np.arange(9), epsilon=epsilon, delta=0.0, looks=Looks(2e4))
    assert len(few) < 9
    assert certify(portfolio_of(oracle, joined.weights[few]), oracle, search_bound=False).epsilon <= epsilon + 1e-9
