import numpy as np
import pytest

from palm.portfolio import GibbsOracle, plan_portfolio
from palm.portfolio.groups import weights_between


@pytest.fixture(scope="module")
def twins():
    """Bases 0 and 3, 1 and 4, 2 and 5 are nearly the same."""
    rewards = np.random.default_rng(1).random((30, 16, 3))
    noise = 0.01 * np.random.default_rng(2).random((30, 16, 6))
    return GibbsOracle(np.concatenate([rewards, rewards], axis=2) + noise, 0.05)


def test_bases_that_agree_are_merged(twins):
    weights = weights_between(twins, 3)
    for pair in ((0, 3), (1, 4), (2, 5)):
        expected = np.zeros(6)
        expected[list(pair)] = 0.5
        assert (np.abs(weights - expected).max(axis=1) < 1e-12).any()
    assert len(np.unique(weights, axis=0)) == len(weights)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_merging_goes_on_to_the_number_of_groups(twins):
    assert weights_between(twins, 6).shape == (0, 6)
    assert (weights_between(twins, 5) > 0).sum(axis=1).max() == 2
    assert (weights_between(twins, 1)[-1] > 0).all()


def test_fewer_policies_than_bases_lose_no_cliff(random_tensor):
    """One policy fewer than half the bases must not leave what the reference leaves: each size gains on the one before."""
    oracle = GibbsOracle(np.random.default_rng(0).random((40, 24, 12)), 0.1)
    alone = float((oracle.optimum(np.eye(12)) / oracle.reference).max() - 1)
    gaps = [plan_portfolio(oracle, size=size).certificate.epsilon for size in (2, 3)]
    assert gaps[0] < 0.85 * alone
    assert gaps[1] < gaps[0]
