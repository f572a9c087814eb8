import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify
from palm.portfolio.cover import Certifier, first_pool, greedy_search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import Pool, Trials, covers_of, solve_all


@pytest.fixture(scope="module")
def many_prompts():
    return GibbsOracle(np.random.default_rng(3).random((100, 12, 4)), 0.1)


@pytest.mark.parametrize("count", [0, 5, 40])
def test_a_choice_fails_where_its_certificate_says_and_only_then(many_prompts, portfolio_of, count):
    """With few corners, and with many, which are tried in the order of a part of the prompts."""
    pool = solve_all(many_prompts, np.random.default_rng(count).dirichlet(np.ones(4), count)) if count else first_pool(many_prompts)
    chosen = np.arange(count)
    proof = certify(portfolio_of(many_prompts, pool.weights[chosen]), many_prompts, search_bound=False)
    assert len(Certifier(many_prompts, proof.epsilon + 1e-7, 0.0).failures(pool, chosen)) == 0
    certifier = Certifier(many_prompts, proof.epsilon * 0.999, 0.0)
    failures = certifier.failures(pool, chosen)
    assert np.abs(failures.weights - proof.worst_weight).max(axis=1).min() < 1e-9
    np.testing.assert_allclose(failures.optimum, many_prompts.optimum(failures.weights))
    assert 0 < certifier.looks <= proof.corners


def test_every_corner_is_looked_at_before_a_choice_passes(many_prompts):
    pool = solve_all(many_prompts, np.random.default_rng(0).dirichlet(np.ones(4), 60))
    certifier = Certifier(many_prompts, 10.0, 0.0)
    assert len(certifier.failures(pool, np.arange(60))) == 0
    assert certifier.looks > 300


@pytest.mark.parametrize(
    ("bases", "epsilon", "delta"), [(1, 0.05, 0.0), (2, 0.01, 0.0), (3, 0.05, 0.0), (3, 0.0, 0.02), (5, 0.15, 0.01)]
)
def test_greedy_search_is_good_enough_everywhere_without_a_policy_to_spare_on_its_tests(
    random_tensor, portfolio_of, bases, epsilon, delta
):
    oracle = GibbsOracle(random_tensor(7, bases), 0.1)
    pool, tests, chosen = greedy_search(oracle, epsilon=epsilon, delta=delta)
    proof = certify(portfolio_of(oracle, pool.weights[chosen]), oracle, delta=delta, search_bound=False)
    assert proof.epsilon <= epsilon + 1e-8
    needs, covers = covers_of(pool, tests, oracle.reference, epsilon, delta)
    assert covers[needs][:, chosen].any(axis=1).all()
    for policy in chosen:
        assert not covers[needs][:, np.setdiff1d(chosen, policy)].any(axis=1).all()


def test_a_given_pool_is_kept_to_and_one_that_is_not_good_enough_is_refused(random_tensor):
    oracle = GibbsOracle(random_tensor(1, 3), 0.05)
    pool = solve_all(oracle, grid_of_size(3, 60))
    assert len(greedy_search(oracle, epsilon=0.1, delta=0.0, pool=pool)[0]) == len(pool)
    poor = Pool(pool.weights[:2], pool.value[:2], pool.cost[:2], pool.optimum[:2] + 1)
    with pytest.raises(
        ValueError, match=r"epsilon, delta: expected a gap that the pool's policies can reach, got 0.1 and 0, .* weight \["
    ):
        greedy_search(oracle, epsilon=0.1, delta=0.0, pool=poor)


def test_what_covers_what_by_hand():
    pool = Pool(np.eye(2), np.array([[1.0, 0.0], [0.2, 0.9]]), np.array([0.1, 0.0]), np.array([0.9, 0.9]))
    tests = Trials(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.array([0.9, 0.9, 0.6]))
    needs, covers = covers_of(pool, tests, np.array([0.5, 0.5]), 0.2, 0.0)
    np.testing.assert_array_equal(needs, [True, True, False])  # 1.2 x 0.5 is 0.6
    np.testing.assert_array_equal(
        covers, [[True, False], [False, True], [False, True]]
    )  # 1.2 (0.9 | 0.2), (-0.1 | 0.9), (0.4 | 0.55)
