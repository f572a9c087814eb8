import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, certify, plan_portfolio
from palm.simplex import sample_simplex


def test_the_best_policy_is_found_with_its_cost_and_ties_go_to_the_lowest():
    pool = PoolOracle([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.4, 0.4]], [0.1, 0.2, 0.1, 0.0])
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(pool.best(weights), [0, 1, 0])
    solution = pool.solve(weights)
    np.testing.assert_allclose(solution.optimum, [0.8, 0.6, 0.4])
    np.testing.assert_allclose(solution.value, [[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    np.testing.assert_allclose(solution.cost, [0.1, 0.2, 0.1])
    np.testing.assert_allclose(pool.reference, [0.4, 0.4])
    for bound in (pool.optimum, pool.upper_bound, pool.lower_bound):
        np.testing.assert_array_equal(bound(weights), solution.optimum)


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
def test_plans_over_a_pool_hold_against_every_policy_of_it(random_tensor, bases):
    gibbs = GibbsOracle(random_tensor(0, bases), 0.1)
    solved = gibbs.solve(sample_simplex(30, bases, np.random.default_rng(0)))
    pool = PoolOracle(solved.value, solved.cost, reference=gibbs.reference)
    weights = sample_simplex(3000, bases, np.random.default_rng(1))
    best = (weights @ solved.value.T - solved.cost).max(axis=1)
    for wish in ({"epsilon": 0.02}, {"size": 2}, {"epsilon": 0.02, "method": "lazy"}):
        portfolio = plan_portfolio(pool, **wish)
        assert (best / portfolio.served(weights) - 1).max() <= portfolio.certificate.epsilon + 1e-9
        assert {tuple(row) for row in portfolio.value} <= {tuple(row) for row in solved.value}
    whole = plan_portfolio(pool, epsilon=1e-6)
    assert certify(whole, pool).epsilon <= 1e-6 + 1e-9


@pytest.mark.parametrize(
    ("value", "cost", "reference", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0), None, r"value: expected the shape \(n policies, K bases\), none of them 0, got \(0, 2\)"),
        ([0.1, 0.2], [0.0, 0.0], None, r"value: expected the shape .* got \(2,\)"),
        ([["high"]], [0.0], None, "value, cost: expected numbers"),
        ([[0.1, 0.2]], [0.0, 0.0], None, r"cost: expected the shape \(1,\), one per policy, got \(2,\)"),
        ([[0.1, np.nan]], [0.0], None, "value: expected finite numbers, got nan of policy 0"),
        ([[0.1, 0.2], [0.1, 0.3]], [0.0, np.inf], None, "cost: expected finite numbers, got inf of policy 1"),
        ([[0.1, 0.2], [0.1, 0.3]], [0.0, -0.1], None, "cost: expected at least 0, got -0.1 of policy 1"),
        ([[0.1, 0.2], [0.1, -0.3]], [0.0, 0.1], None, "value: expected at least 0, got -0.3 of policy 1"),
        ([[0.1, 0.2]], [0.1], [0.1, -0.2], "reference: expected at least 0, got -0.2 for basis 1"),
        ([[0.1, 0.2]], [0.1], None, "reference: expected its value .* as 0 policies of the pool, not one, cost 0"),
        ([[0.1, 0.2], [0.2, 0.1]], [0.0, 0.0], None, "reference: expected its value .* as 2 policies of the pool, not one, cost 0"),
        ([[0.1, 0.2]], [0.1], [0.1], r"reference: expected 2 finite numbers, got \[0.1\]"),
        ([[0.1, 0.2]], [0.1], [0.1, np.nan], "reference: expected 2 finite numbers"),
    ],
)
def test_bad_pools_are_refused_by_name(value, cost, reference, message):
    with pytest.raises(ValueError, match=message):
        PoolOracle(value, cost, reference=reference)


def test_weights_of_another_number_of_bases_are_refused():
    with pytest.raises(ValueError, match="weights: expected 2 columns, one per basis, got 3"):
        PoolOracle([[0.1, 0.2]], [0.0]).solve(np.eye(3))
