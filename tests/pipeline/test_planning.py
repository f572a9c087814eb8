"""The section `plan` reaches the planner: what is wished is what is planned."""

import numpy as np
import pytest

from palm.pipeline.config import PlanConfig
from palm.pipeline.planning import check_plan, plan_as_wished
from palm.portfolio import GibbsOracle, Population, keep_for_users, plan_portfolio
from palm.progress import silent
from palm.simplex import sample_simplex

TENSOR = np.random.default_rng(0).beta(0.5, 0.8, size=(20, 16, 3))
NAMES = ("one", "two", "three")


def planned(oracle, wish, users=None):
    check_plan(wish, users=users is not None)
    return plan_as_wished(oracle, wish, names=NAMES, users=users, seed=3, track=silent)


def test_policies_for_users_are_the_best_for_these_users():
    oracle = GibbsOracle(TENSOR, 0.1)
    users = sample_simplex(40, 3, np.random.default_rng(0)) @ np.diag([1, 0, 0]) * 0.2 + [0, 0.4, 0.4]
    users /= users.sum(axis=1, keepdims=True)
    wish = PlanConfig(kl=0.1, size=2, select="population", curve=0)
    portfolio, curve = planned(oracle, wish, users)
    assert curve == []
    population = Population.of(users, oracle)
    everyone = plan_portfolio(oracle, size=2)
    assert population.regret(portfolio.served(users)) < population.regret(everyone.served(users))
    fair, _ = planned(oracle, PlanConfig(kl=0.1, size=2, select="population", welfare=-50.0, curve=0), users)
    assert population.welfare(fair.served(users), -50.0) >= population.welfare(portfolio.served(users), -50.0)
    assert keep_for_users(population, fair.value, fair.cost, oracle.reference, size=2).regret >= population.regret(
        portfolio.served(users)
    )


@pytest.mark.parametrize(
    ("wish", "given"),
    [
        ({"captured_gain": 0.8}, {"captured_gain": 0.8}),
        ({"size": 3, "refine": True}, {"size": 3, "refine": True}),
        ({"epsilon": 0.1, "method": "random", "weights": 40}, {"epsilon": 0.1, "method": "random", "weights": 40, "seed": 3}),
        ({"epsilon": 0.1, "method": "lazy", "most_solves": 7}, {"epsilon": 0.1, "method": "lazy", "most_solves": 7}),
        ({"epsilon": 0.03, "delta": 0.02, "select": "greedy"}, {"epsilon": 0.03, "delta": 0.02, "select": "greedy"}),
    ],
)
def test_a_wish_is_the_planners_own_arguments(wish, given):
    oracle = GibbsOracle(TENSOR, 0.1)
    found, curve = planned(oracle, PlanConfig(kl=0.1, curve=1, **wish))
    expected = plan_portfolio(oracle, names=NAMES, **given)
    np.testing.assert_array_equal(found.weights, expected.weights)
    assert found.solves == expected.solves
    assert found.bases == NAMES
    assert [point.size for point in curve] == [0, 1]
