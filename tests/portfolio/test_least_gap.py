"""No m policies leave less than the bound: by dense recount, by brute force over portfolios, and where it is tight by hand."""

import itertools

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, certify, least_gaps
from palm.portfolio.least_gap import _Search, _spread


def recount(oracle, optimum_at, rewards, kl, weights):
    """The least gap that some weights prove, over a dense net of what lies between each two, straight from the formula."""
    optimum = optimum_at(rewards, weights, kl)
    least = float((optimum / (weights @ rewards.mean(axis=(0, 1))) - 1).min())
    share = np.linspace(0, 1, 2001)[:, None]
    for one, other in itertools.combinations(range(len(weights)), 2):
        between = optimum_at(rewards, share * weights[one] + (1 - share) * weights[other], kl)
        chord = share[:, 0] * optimum[one] + (1 - share[:, 0]) * optimum[other]
        least = min(least, float((chord / between - 1).max()))
    return least


@pytest.mark.parametrize("bases", [2, 3, 4])
def test_weights_prove_what_is_said_and_hardly_more(random_tensor, optimum_at, bases):
    rewards, kl = random_tensor(0, bases), 0.1
    bounds = least_gaps(GibbsOracle(rewards, kl), 4)
    assert [bound.size for bound in bounds] == [0, 1, 2, 3, 4]
    for bound in bounds:
        assert len(bound.weights) > bound.size
        dense = recount(None, optimum_at, rewards, kl, bound.weights)
        assert bound.epsilon <= dense + 1e-9
        assert bound.epsilon >= 0.99 * dense
    epsilons = [bound.epsilon for bound in bounds]
    assert all(after <= before for before, after in itertools.pairwise(epsilons))
    assert epsilons[-1] > 0


@pytest.mark.parametrize("bases", [1, 2, 3])
def test_no_portfolio_does_better_than_the_bound(random_tensor, portfolio_of, bases):
    """Portfolios of optimal policies, and of mixtures of these, which are policies too."""
    oracle, rng = GibbsOracle(random_tensor(1, bases), 0.1), np.random.default_rng(0)
    bounds = least_gaps(oracle, 3)
    closest = np.full(4, np.inf)
    for size in range(4):
        for _ in range(150 if size else 1):
            portfolio = portfolio_of(oracle, rng.dirichlet(np.ones(bases), size=size))
            found = certify(portfolio, oracle, search_bound=False).epsilon
            assert found >= bounds[size].epsilon - 1e-9
            closest[size] = min(closest[size], found)
    assert bounds[0].epsilon == pytest.approx(closest[0], rel=1e-7)  # the reference alone: exact
    assert (np.array([bound.epsilon for bound in bounds]) >= 0.4 * closest).all() or bases == 1


def test_two_opposed_bases_are_tight_for_one_policy(two_sided):
    """Whatever serves both vertices has at most OPT(1/2, 1/2) = 1/2 at one of them; the reference has just that."""
    kl = 0.3
    bounds = least_gaps(two_sided(kl), 1)
    by_hand = kl * np.log((np.exp(1 / kl) + 1) / 2) / 0.5 - 1
    for bound in bounds:
        assert bound.epsilon == pytest.approx(by_hand, rel=1e-8)
        assert bound.epsilon < by_hand  # the margin is on the safe side
    np.testing.assert_allclose(np.sort(bounds[1].weights, axis=0), [[0, 0], [1, 1]], atol=1e-9)


def test_a_pool_as_large_as_the_portfolio_needs_nothing_more():
    """Three policies, one per basis: three leave nothing, and the bounds of fewer are those of the pairs, known by hand."""
    oracle = PoolOracle(np.eye(3), np.zeros(3), reference=np.full(3, 0.2))
    bounds = least_gaps(oracle, 3)
    assert bounds[3].epsilon == 0
    # OPT is 1 at the vertices and 1/2 between two: one policy, even a mixture, has at most 1/2 at one of them.
    assert bounds[2].epsilon == pytest.approx(1.0, rel=1e-6)
    assert bounds[0].epsilon == pytest.approx(1 / 0.2 - 1, rel=1e-6)


def test_slack_only_weakens_the_bound(pool_oracle):
    values, reference = [[1, 0], [0, 1], [0.7, 0.7]], [0.3, 0.3]
    exact, loose = (least_gaps(pool_oracle(values, reference, slack), 2) for slack in (0.0, 0.05))
    for tight, weak in zip(exact, loose, strict=True):
        assert weak.epsilon <= tight.epsilon
    assert loose[1].epsilon < exact[1].epsilon
    half = least_gaps(pool_oracle(np.eye(2), [0.1, 0.1], 0.05), 1)  # from below at the vertices, from above in the middle
    assert half[1].epsilon == pytest.approx(1 / (0.5 + 0.05) - 1, rel=1e-6)


def test_where_the_reference_is_best_nothing_is_proven():
    for bound in least_gaps(GibbsOracle(np.full((3, 4, 2), 0.5), 0.1), 2):
        assert bound.epsilon == 0
        assert bound.weights.shape == (0, 2)


def test_a_reference_worth_nothing_leaves_a_gap_without_bound():
    oracle = PoolOracle([[1.0, 0.0], [0.0, 1.0]], [0.1, 0.1], reference=[0.0, 0.0])
    assert least_gaps(oracle, 0)[0].epsilon == np.inf
    assert 0 < least_gaps(oracle, 1)[1].epsilon < np.inf


def test_weights_that_are_given_are_looked_at_and_moving_them_never_proves_less(random_tensor):
    oracle = GibbsOracle(random_tensor(2, 3), 0.05)
    still, moved = least_gaps(oracle, 4, steps=0), least_gaps(oracle, 4)
    assert all(one.epsilon >= other.epsilon - 1e-12 for one, other in zip(moved, still, strict=True))
    assert sum(one.epsilon for one in moved[2:]) > 1.01 * sum(one.epsilon for one in still[2:])
    again = least_gaps(oracle, 4, among=moved[4].weights, candidates=3, steps=0)
    assert again[4].epsilon >= moved[4].epsilon - 1e-9


def test_the_choice_among_few_weights_is_near_the_best_of_all_choices():
    rng = np.random.default_rng(3)
    for _ in range(20):
        apart = rng.random((12, 12))
        apart, alone = np.maximum(apart, apart.T), rng.random(12) + 0.3
        np.fill_diagonal(apart, np.inf)

        def proves(rows, apart=apart, alone=alone):
            return min(apart[np.ix_(rows, rows)].min(), alone[list(rows)].min())

        for size, rows in enumerate(_spread(apart, alone, 4), start=1):
            best = max(proves(every) for every in itertools.combinations(range(12), size))
            assert len(set(rows.tolist())) == size
            assert proves(rows) >= 0.75 * best
        assert proves(_spread(apart, alone, 4)[0]) == alone.max()


def test_shares_between_two_weights_come_near_the_best_one(random_tensor, optimum_at):
    rewards = random_tensor(4, 3)
    search, weights = _Search(GibbsOracle(rewards, 0.03)), np.random.default_rng(0).dirichlet(np.ones(3), size=12)
    optimum = optimum_at(rewards, weights, 0.03)
    found = search.pairs(weights[:6], weights[6:], optimum[:6], optimum[6:])
    share = np.linspace(0, 1, 3001)[:, None]
    for row in range(6):
        between = optimum_at(rewards, share * weights[row] + (1 - share) * weights[row + 6], 0.03)
        best = ((share[:, 0] * optimum[row] + (1 - share[:, 0]) * optimum[row + 6]) / between).max() - 1
        assert 0.97 * best <= found[row] <= best + 1e-7


def test_a_negative_size_is_refused(two_sided):
    with pytest.raises(ValueError, match="most: expected at least 0, got -1"):
        least_gaps(two_sided(0.1), -1)
