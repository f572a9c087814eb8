from dataclasses import replace

import numpy as np
import pytest
from planted_users import plant

from palm.portfolio import GibbsOracle, Portfolio, certify


@pytest.fixture(scope="session")
def rewards():
    """(P, N, K) rewards in [0, 1] of the planning prompts."""
    return np.random.default_rng(0).beta(0.5, 0.8, size=(6, 8, 3))


@pytest.fixture(scope="session")
def oracle(rewards):
    return GibbsOracle(rewards, 0.1)


@pytest.fixture(scope="session")
def planned(oracle):
    """Three policies, each leaning to one basis, certified."""
    weights = 0.6 * np.eye(3) + 0.4 / 3
    solution = oracle.solve(weights)
    ids = ("policy-0", "policy-1", "policy-2")
    three = Portfolio(weights, solution.value, solution.cost, oracle.reference, oracle.kl, ids)
    return replace(three, certificate=certify(three, oracle))


@pytest.fixture(scope="session")
def conflicting():
    """Users of whom each wants one of two unrelated things."""
    return plant(alpha=0.05)
