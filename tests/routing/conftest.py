from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, Portfolio, certify


@pytest.fixture(scope="session")
def oracle():
    return GibbsOracle(np.random.default_rng(0).beta(0.5, 0.8, size=(6, 8, 3)), 0.1)


@pytest.fixture(scope="session")
def portfolio(oracle):
    """Four certified policies for three bases: three specialists and a generalist."""
    weights = np.vstack([0.7 * np.eye(3) + 0.1, np.full((1, 3), 1 / 3)])
    solution = oracle.solve(weights)
    four = Portfolio(weights, solution.value, solution.cost, oracle.reference, oracle.kl, ("a", "b", "c", "all"))
    return replace(four, certificate=certify(four, oracle))


@pytest.fixture(scope="session")
def empty(portfolio, oracle):
    """A portfolio of no policies: the reference for everyone."""
    none = replace(portfolio, weights=np.zeros((0, 3)), value=np.zeros((0, 3)), cost=np.zeros(0), ids=(), certificate=None)
    return replace(none, certificate=certify(none, oracle))


@pytest.fixture(scope="session")
def many():
    """Weights all over the simplex, its vertices among them."""
    return np.vstack([np.eye(3), np.random.default_rng(1).dirichlet(np.full(3, 0.6), size=800)])
