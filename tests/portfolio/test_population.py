from itertools import combinations

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, Population, keep_for_users
from palm.portfolio.population import check_welfare
from palm.rewards.users import UserWeights
from palm.simplex import sample_simplex


def world(seed, users=9, pool=8):
    oracle = GibbsOracle(np.random.default_rng(seed).beta(0.5, 0.8, size=(5, 7, 3)), 0.05)
    solution = oracle.solve(sample_simplex(pool, 3, np.random.default_rng([seed, 1])))
    weights = np.random.default_rng([seed, 2]).dirichlet(np.full(3, 0.4), size=users)
    return oracle, solution, weights


def power_mean(ratio, power):
    return np.exp(np.log(ratio).mean()) if power == 0 else (ratio**power).mean() ** (1 / power)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("welfare", [None, 1.0, 0.5, 0.0, -1.0, -20.0])
def test_the_choice_is_the_best_of_all_and_says_what_it_is_worth(seed, welfare):
    oracle, solution, weights = world(seed)
    population = Population.of(weights, oracle)
    size = 1 + seed % 3
    found = keep_for_users(population, solution.value, solution.cost, oracle.reference, size=size, welfare=welfare)

    def worth(few):
        served = np.maximum((weights @ solution.value.T - solution.cost)[:, list(few)].max(axis=1), weights @ oracle.reference)
        optimum = oracle.optimum(weights)
        return -(optimum - served).mean() if welfare is None else power_mean(served / optimum, welfare)

    assert len(found.chosen) <= size
    assert (-found.regret if welfare is None else found.welfare) == pytest.approx(worth(found.chosen), abs=1e-12)
    assert worth(found.chosen) == pytest.approx(max(worth(few) for few in combinations(range(8), size)), abs=1e-9)
    assert found.proven


def test_lower_powers_trade_the_mean_ratio_for_the_worst():
    gains = []
    for seed in range(6):
        oracle, solution, weights = world(seed, users=40, pool=40)
        population = Population.of(weights, oracle)
        ratios = []
        for welfare in (1.0, -5.0, -60.0):
            pool = solution.value, solution.cost, oracle.reference
            chosen = keep_for_users(population, *pool, size=2, welfare=welfare).chosen
            served = np.maximum((weights @ solution.value.T - solution.cost)[:, chosen].max(axis=1), weights @ oracle.reference)
            ratios.append(served / population.optimum)
        mean, worst = [r.mean() for r in ratios], [r.min() for r in ratios]
        assert mean[0] >= mean[1] >= mean[2] - 1e-9
        assert worst[0] <= worst[2] + 1e-9
        gains.append(worst[2] - worst[0])
    assert max(gains) > 0.01


def test_powers_are_means_of_any_order_and_overflow_nowhere():
    population = Population(np.eye(2), np.array([1.0, 0.5]))
    served = np.array([0.5, 0.4])  # ratios 0.5 and 0.8
    for power in (1.0, 0.3, 0.0, -1.0, -7.0):
        assert population.welfare(served, power) == pytest.approx(power_mean(np.array([0.5, 0.8]), power))
    assert population.welfare(served, 1e-9) == pytest.approx(population.welfare(served, 0.0), rel=1e-6)
    assert population.welfare(served, -1e6) == pytest.approx(0.5, rel=1e-5)
    assert population.welfare(np.array([0.0, 0.4]), -3.0) < 1e-8
    assert Population(np.eye(2), np.zeros(2)).welfare(np.zeros(2), -1.0) == 1  # who can have nothing misses nothing
    assert population.regret(served) == pytest.approx(0.3)


@pytest.mark.parametrize("power", [-30.0, -1e3, -1e4, -1e5, -1e12])
@pytest.mark.parametrize("exact", [True, False])
def test_steep_powers_are_taken_of_numbers_that_differ(power, exact):
    oracle, solution, _ = world(3)
    users = sample_simplex(80, 3, np.random.default_rng(1))
    population = Population.of(users, oracle)
    utility, free = users @ solution.value.T - solution.cost, users @ oracle.reference
    choice = keep_for_users(population, solution.value, solution.cost, oracle.reference, size=2, welfare=power, exact=exact)
    pairs = combinations(range(len(solution.value)), 2)
    best = max(population.welfare(np.maximum(utility[:, pair].max(axis=1), free), power) for pair in pairs)
    assert choice.welfare == pytest.approx(best, rel=1e-9)


def test_posterior_draws_count_by_their_mean_and_raise_what_could_be_had():
    oracle, solution, weights = world(3)
    draws = 0.5 * weights[:, None] + 0.5 * sample_simplex(9 * 6, 3, np.random.default_rng(0)).reshape(9, 6, 3)
    sure, unsure = Population.of(draws.mean(axis=1), oracle), Population.of(draws, oracle)
    np.testing.assert_allclose(unsure.weights, sure.weights, atol=1e-12)
    np.testing.assert_allclose(unsure.optimum, [oracle.optimum(d).mean() for d in draws], atol=1e-12)
    assert (unsure.optimum > sure.optimum).all()
    policies = solution.value, solution.cost, oracle.reference
    one, other = (keep_for_users(p, *policies, size=2) for p in (sure, unsure))
    np.testing.assert_array_equal(one.chosen, other.chosen)
    expected = np.mean(
        [
            oracle.optimum(d).mean()
            - max((d @ solution.value[one.chosen].T - solution.cost[one.chosen]).mean(axis=0).max(), (d @ oracle.reference).mean())
            for d in draws
        ]
    )
    assert other.regret == pytest.approx(expected)


def test_fitted_weights_are_users_and_linear_ones_are_refused():
    oracle, _, weights = world(0)
    ids, none = np.array([f"u{i}" for i in range(9)]), np.zeros((9, 3, 3))
    np.testing.assert_array_equal(
        Population.of(UserWeights(ids, weights, none), oracle).weights, Population.of(weights, oracle).weights
    )
    with pytest.raises(ValueError, match="users: expected weights on the simplex, got those of a 'linear' model"):
        Population.of(UserWeights(ids, weights - 2, none, "linear"), oracle)


@pytest.mark.parametrize("welfare", [1.01, np.nan, np.inf, -np.inf, True])
def test_powers_that_are_no_welfare_are_refused(welfare):
    with pytest.raises(ValueError, match="welfare: expected a finite power of at most 1"):
        check_welfare(welfare)


@pytest.mark.parametrize("power", [None, 1.0, 0.5, 0.0, -1.0, -20.0])
def test_losses_order_choices_as_regret_and_welfare_do(power):
    rng = np.random.default_rng(0)
    population = Population(np.tile([[0.5, 0.5]], (12, 1)), rng.uniform(0.5, 1, size=12))
    table = population.optimum[:, None] * rng.uniform(0.2, 1, size=(12, 200))  # 200 ways to serve 12 users
    losses = population.losses(table, power).sum(axis=0)
    worth = [population.regret(served) if power is None else -power_mean(served / population.optimum, power) for served in table.T]
    np.testing.assert_array_equal(np.argsort(losses), np.argsort(worth))
