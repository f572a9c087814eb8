"""Each bound three ways: recounted from the formulas, against brute force, and where it is tight."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from palm.portfolio import GibbsOracle, certify, plan_portfolio
from palm.portfolio.certify import worst_gap
from palm.portfolio.incompatible import incompatible_on_grid, incompatible_weights
from palm.simplex import sample_simplex, uniform_grid


def random_portfolio(seed, bases, random_tensor, portfolio_of):
    """One of a hundred: rewards, kl, oracle, and 0 to 6 policies that are optimal at random weights."""
    rng = np.random.default_rng([11, seed, bases])
    rewards = random_tensor(seed, bases, prompts=4, candidates=6)
    kl = float(10 ** rng.uniform(-2, 0))
    oracle = GibbsOracle(rewards, kl)
    weights = rng.dirichlet(np.full(bases, rng.choice([0.3, 1.0])), size=seed % 7)
    return rewards, kl, oracle, portfolio_of(oracle, weights)


@pytest.mark.parametrize("bases", [2, 3, 4, 5])
def test_none_of_20000_weights_exceeds_the_certificate_and_the_worst_weight_attains_it(
    bases, random_tensor, portfolio_of, optimum_at, served_at
):
    between_vertices = 0
    for seed in range(25):  # 100 tensors over the four K
        rewards, kl, oracle, portfolio = random_portfolio(seed, bases, random_tensor, portfolio_of)
        found = certify(portfolio, oracle, search_bound=False)

        def gaps(weights, rewards=rewards, kl=kl, portfolio=portfolio):
            optimum, served = optimum_at(rewards, weights, kl), served_at(portfolio, weights)
            gain = optimum - weights @ rewards.mean(axis=(0, 1))
            captured = 1 - (optimum - served) / np.where(gain > 1e-9, gain, np.inf)
            return optimum / served - 1, optimum - served, captured

        random = sample_simplex(20_000, bases, np.random.default_rng(seed))
        epsilon, delta, captured = gaps(random)
        assert epsilon.max() <= found.epsilon + 1e-9
        assert delta.max() <= found.delta + 1e-9
        assert captured.min() >= found.captured_gain - 1e-6
        assert gaps(found.worst_weight[None])[0][0] == pytest.approx(found.epsilon, abs=1e-6)
        assert gaps(found.worst_weight_delta[None])[1][0] == pytest.approx(found.delta, abs=1e-6)
        assert gaps(found.worst_weight_captured[None])[2][0] == pytest.approx(found.captured_gain, abs=1e-6)
        between_vertices += gaps(np.eye(bases))[0].max() < found.epsilon - 1e-3
    assert between_vertices >= 1  # so a certificate that looked at the vertices alone would have failed above


def test_a_ragged_tensor_is_certified_for_the_candidates_it_has(random_tensor, portfolio_of, optimum_at, served_at):
    rewards, kl = random_tensor(0, 3), 0.05
    mask = np.random.default_rng(1).random(rewards.shape[:2]) < 0.5
    mask[:, 0] = True
    portfolio = portfolio_of(oracle := GibbsOracle(rewards, kl, mask=mask), np.eye(3))
    found = certify(portfolio, oracle)
    weights = np.vstack([sample_simplex(5000, 3, np.random.default_rng(2)), found.worst_weight])
    epsilon = optimum_at(rewards, weights, kl, mask) / served_at(portfolio, weights) - 1
    assert epsilon.max() <= found.epsilon + 1e-9
    assert epsilon[-1] == pytest.approx(found.epsilon, abs=1e-9)
    assert certify(portfolio, GibbsOracle(rewards, kl)).epsilon != pytest.approx(found.epsilon, abs=1e-3)


def test_two_specialists_against_a_generalist_have_the_gap_known_by_hand(pool_oracle, portfolio_of):
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    found = certify(portfolio_of(oracle, np.eye(2)), oracle)
    # L = max(w, 1 - w) is 0.5 in the middle, where the generalist gives 0.8 and the reference 0.2.
    assert found.epsilon == pytest.approx(0.8 / 0.5 - 1)
    assert found.delta == pytest.approx(0.3)
    assert found.captured_gain == pytest.approx(0.3 / 0.6)
    for worst in (found.worst_weight, found.worst_weight_delta, found.worst_weight_captured):
        np.testing.assert_allclose(worst, [0.5, 0.5], atol=1e-12)
    assert found.corners == 3
    assert found.size_at_least == 1  # the generalist alone has a gap of 0.25
    np.testing.assert_allclose(certify(portfolio_of(oracle, np.full((1, 2), 0.5)), oracle).epsilon, 0.25)


@pytest.mark.parametrize("kl", [0.05, 0.5])
def test_the_reference_alone_has_the_gap_known_by_hand(two_sided, portfolio_of, kl):
    found = certify(portfolio_of(two_sided(kl), np.zeros((0, 2))), two_sided(kl))
    at_vertex = kl * np.log((np.exp(1 / kl) + 1) / 2)
    assert found.epsilon == pytest.approx(at_vertex / 0.5 - 1)
    assert found.delta == pytest.approx(at_vertex - 0.5)
    assert found.captured_gain == 0
    assert sorted(found.worst_weight) == [0, 1]
    assert found.size_at_least == 0  # nothing needs to be trained for this gap


def test_equal_rewards_leave_nothing_to_gain(portfolio_of):
    oracle = GibbsOracle(np.full((3, 5, 3), 0.3), 0.1)
    for weights in (np.zeros((0, 3)), np.eye(3)):
        found = certify(portfolio_of(oracle, weights), oracle)
        assert (found.epsilon, found.delta) == pytest.approx((0, 0), abs=1e-12)
        assert found.captured_gain == 1
        assert found.size_at_least == 0


def test_one_basis_is_one_number(random_tensor, portfolio_of):
    oracle = GibbsOracle(random_tensor(0, 1), 0.1)
    optimum, reference = oracle.optimum(np.ones((1, 1)))[0], oracle.reference[0]
    bare, served = (certify(portfolio_of(oracle, np.ones((m, 1))), oracle) for m in (0, 1))
    assert bare.epsilon == pytest.approx(optimum / reference - 1)
    assert bare.captured_gain == 0
    assert served.epsilon == pytest.approx(0, abs=1e-12)
    assert served.captured_gain == pytest.approx(1)
    np.testing.assert_array_equal(served.worst_weight, [1.0])


def test_what_is_given_of_one_gap_is_taken_from_the_other(random_tensor, portfolio_of, optimum_at, served_at):
    rewards, kl = random_tensor(3, 3), 0.05
    portfolio = portfolio_of(oracle := GibbsOracle(rewards, kl), np.eye(3))
    whole, found = certify(portfolio, oracle), certify(portfolio, oracle, epsilon=0.05, delta=0.01)
    assert (found.given_epsilon, found.given_delta) == (0.05, 0.01)
    assert 0 < found.epsilon < whole.epsilon
    assert 0 < found.delta < whole.delta
    weights = np.vstack([sample_simplex(5000, 3, np.random.default_rng(0)), found.worst_weight, found.worst_weight_delta])
    optimum, served = optimum_at(rewards, weights, kl), served_at(portfolio, weights)
    left_epsilon, left_delta = optimum - (1 + found.epsilon) * served - 0.01, optimum - 1.05 * served - found.delta
    assert left_epsilon.max() <= 1e-9
    assert left_delta.max() <= 1e-9
    assert left_epsilon[-2] == pytest.approx(0, abs=1e-9)
    assert left_delta[-1] == pytest.approx(0, abs=1e-9)


def test_captured_gain_does_not_depend_on_the_rewards_zero_or_scale(random_tensor, portfolio_of):
    rewards, kl = random_tensor(4, 3), 0.1
    plain, moved = GibbsOracle(rewards, kl), GibbsOracle(0.4 * rewards + 0.6, 0.4 * kl)
    first, second = (certify(portfolio_of(oracle, np.eye(3)), oracle) for oracle in (plain, moved))
    assert first.captured_gain == pytest.approx(second.captured_gain, abs=1e-9)
    assert first.epsilon > 1.5 * second.epsilon  # which is why captured_gain is stated beside epsilon


def test_what_the_oracle_may_miss_is_added_to_the_gap(pool_oracle, portfolio_of):
    values, reference = [[1, 0], [0, 1], [0.8, 0.8]], [0.2, 0.2]
    loose = pool_oracle(values, reference, slack=0.1)
    found = certify(portfolio_of(loose, np.eye(2)), loose)
    assert found.delta == pytest.approx(0.4)
    assert found.epsilon == pytest.approx(0.9 / 0.5 - 1)
    assert any("0.1" in assumption for assumption in found.assumptions)


def test_utility_of_zero_where_more_could_be_had_is_an_infinite_gap(pool_oracle, portfolio_of):
    oracle = pool_oracle([[1, 0], [0, 1]], reference=[0, 0])
    found = certify(portfolio_of(oracle, np.eye(2)[:1]), oracle)
    assert np.isinf(found.epsilon)
    np.testing.assert_allclose(found.worst_weight, [0, 1])
    assert found.delta == pytest.approx(1)


def test_worst_gap_of_a_better_portfolio_than_the_optimum_is_none():
    gap = worst_gap(np.array([0.5, 0.6]), np.array([0.55, 0.7]), np.array([0.1, 0.1]))
    assert (gap.epsilon, gap.delta, gap.captured_gain) == (0, 0, 1)


def test_negative_utilities_are_no_multiplicative_gap_of_0(pool_oracle, portfolio_of):
    """(1 + epsilon) (-1) >= -0.2 for no epsilon of at least 0; nor (1 + epsilon) (-0.2) >= -0.2 for one above 0."""
    oracle = pool_oracle([[-0.2, -0.9], [-0.9, -0.2]], reference=[-1, -1])
    found = certify(portfolio_of(oracle, np.zeros((0, 2))), oracle)
    assert found.delta == pytest.approx(0.8)
    assert found.epsilon == np.inf
    assert found.size_at_least == 0
    assert worst_gap(np.array([-0.2, 0.5]), np.array([-0.2, 0.5]), np.array([-1.0, 0.1])).epsilon == 0
    gap = worst_gap(np.array([-0.2, 0.6]), np.array([-0.2, 0.5]), np.array([-1.0, 0.1]))
    assert (gap.epsilon, gap.at_epsilon) == (np.inf, 0)


@pytest.mark.parametrize("seed", range(6))
def test_no_policy_whatever_is_good_enough_for_two_incompatible_weights(random_tensor, seed):
    """On few candidates every policy can be tried: by linear programs over tangents, or here over a fine net of them."""
    rewards, kl, epsilon = random_tensor(seed, 2, prompts=1, candidates=3), 0.15, 0.01
    oracle = GibbsOracle(rewards, kl)
    apart = incompatible_weights(oracle, np.column_stack([t := np.linspace(0, 1, 21), 1 - t]), epsilon=epsilon, delta=0.0)
    assert len(apart) >= 2
    net = np.array([[i, j, 100 - i - j] for i in range(101) for j in range(101 - i)]) / 100  # all policies, in hundredths
    net = np.vstack([net, [oracle.policy_probabilities(w)[0] for w in sample_simplex(200, 2, np.random.default_rng(0))]])
    cost = kl * np.where(net > 0, net * np.log(np.maximum(net, 1e-300) * 3), 0).sum(axis=1)
    good = (1 + epsilon) * (net @ rewards[0] @ apart.T - cost[:, None]) >= oracle.optimum(apart)
    assert good.any(axis=0).all()
    assert good.sum(axis=1).max() == 1


@pytest.mark.parametrize("seed", range(8))
def test_size_at_least_is_never_above_the_smallest_cover_and_sometimes_equal(random_tensor, seed):
    epsilon = 0.02
    oracle = GibbsOracle(random_tensor(seed, 2, prompts=2, candidates=4), 0.1)
    grid = np.column_stack([t := np.linspace(0, 1, 25), 1 - t])
    solved, optimum = oracle.solve(grid), oracle.optimum(grid)
    good = (1 + epsilon) * (grid @ solved.value.T - solved.cost) >= optimum[:, None]
    free = (1 + epsilon) * (grid @ oracle.reference) >= optimum
    smallest = next(
        size
        for size in range(26)
        if any((good[:, list(columns)].any(axis=1) | free).all() for columns in combinations(range(25), size))
    )
    bound = len(incompatible_weights(oracle, grid, epsilon=epsilon, delta=0.0))
    assert 1 <= bound <= smallest
    assert bound >= smallest - 1
    planned = plan_portfolio(oracle, epsilon=epsilon).certificate
    assert planned.size_at_least <= len(plan_portfolio(oracle, epsilon=epsilon))


def test_size_at_least_is_attained_where_everyone_needs_their_own(pool_oracle):
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    portfolio = plan_portfolio(oracle, epsilon=0.1)
    assert len(portfolio) == 3
    assert portfolio.certificate.size_at_least == 3
    witnesses = portfolio.certificate.incompatible
    assert len(witnesses) == 3
    for one, other in combinations(witnesses, 2):  # no mixture of the three policies serves two of them
        # maximise t over mixtures p: w.(p.values) 1 / OPT(w) >= t for both weights; good enough is t = 1 / (1 + epsilon)
        rows = -(oracle.values @ np.stack([one, other]).T / oracle.optimum(np.stack([one, other]))).T
        program = linprog(
            [0, 0, 0, -1], A_ub=np.column_stack([rows, [1, 1]]), b_ub=[0, 0], A_eq=[[1, 1, 1, 0]], b_eq=[1], bounds=[(0, None)] * 4
        )
        assert -program.fun < 1 / (1 + portfolio.certificate.epsilon)


def test_without_a_search_the_bound_says_only_whether_anything_must_be_trained(pool_oracle, portfolio_of):
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    for weights, least in ((np.vstack([np.eye(2), [0.5, 0.5]]), 1), (np.zeros((0, 2)), 0)):
        found = certify(portfolio_of(oracle, weights), oracle, search_bound=False)
        assert found.size_at_least == least
        assert found.incompatible.shape == (0, 2)


@pytest.mark.parametrize("seed", range(20))
def test_no_portfolio_is_smaller_than_its_own_bound(random_tensor, portfolio_of, seed):
    _, _, oracle, portfolio = random_portfolio(seed, 2 + seed % 4, random_tensor, portfolio_of)
    found = certify(portfolio, oracle)
    assert found.size_at_least <= len(portfolio)
    assert len(found.incompatible) <= found.size_at_least


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epsilon": -0.1}, "epsilon: expected a finite number of at least 0, got -0.1"),
        ({"delta": -1e-3}, "delta: expected a finite number of at least 0, got -0.001"),
        ({"delta": np.inf}, "delta: expected a finite number of at least 0, got inf"),
        ({"epsilon": np.nan}, "epsilon: expected a finite number of at least 0, got nan"),
    ],
)
def test_negative_gaps_are_refused(two_sided, portfolio_of, given, message):
    with pytest.raises(ValueError, match=message):
        certify(portfolio_of(two_sided(0.1), np.eye(2)), two_sided(0.1), **given)


def test_another_number_of_bases_is_refused(two_sided, random_tensor, portfolio_of):
    with pytest.raises(ValueError, match="oracle: expected 2 bases as in the portfolio, got 3"):
        certify(portfolio_of(two_sided(0.1), np.eye(2)), GibbsOracle(random_tensor(0, 3)))


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
def test_a_grid_s_incompatible_weights_are_incompatible_pair_by_pair(random_tensor, bases):
    """Looked at pair by pair along the line between them, on an oracle that counts what it is asked."""
    epsilon, asked = 0.03, []
    oracle = GibbsOracle(random_tensor(3, bases), 0.1)
    bound = oracle.upper_bound
    oracle.upper_bound = lambda weights: asked.append(len(weights)) or bound(weights)
    found = incompatible_on_grid(oracle, epsilon=epsilon, delta=0.002)
    assert max(asked, default=0) <= 4200
    t = np.linspace(0, 1, 201)[:, None]
    for one, other in combinations(found, 2):
        between = t * one + (1 - t) * other
        chord = t[:, 0] * oracle.optimum(one) + (1 - t[:, 0]) * oracle.optimum(other)
        assert ((1 + epsilon) * oracle.optimum(between) + 0.002 < chord).any()
    assert ((1 + epsilon) * (found @ oracle.reference) + 0.002 < oracle.optimum(found)).all()
    assert len(found) >= min(bases, 2) - (bases == 1)


def test_a_grid_finds_more_incompatible_weights_than_the_hardest_corners_do(random_tensor):
    more = 0
    for seed in range(2):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.1)
        portfolio = plan_portfolio(oracle, epsilon=0.05, select="greedy")
        own = incompatible_weights(oracle, portfolio.weights, epsilon=portfolio.certificate.epsilon, delta=0.0)
        assert len(own) <= portfolio.certificate.size_at_least <= len(portfolio)
        more += portfolio.certificate.size_at_least > len(own)
    assert more >= 1


def test_no_bound_exceeds_a_portfolio_that_is_good_enough_itself():
    """Measured policies may give more than any on the oracle's candidates; then no two weights could share one of the oracle's."""
    oracle = GibbsOracle(np.random.default_rng(0).random((20, 8, 3)), 0.1)
    planned = plan_portfolio(oracle, size=2)
    better = replace(planned, value=planned.value * 1.5, certificate=None)
    found = certify(better, oracle, captured_bound=True)
    assert found.epsilon == 0.0
    assert found.size_at_least <= len(better)
    assert found.captured_size_at_least <= len(better)
    assert len(incompatible_weights(oracle, np.eye(3), epsilon=0.0, delta=0.0)) == 3  # what the oracle alone would say


@pytest.mark.parametrize("epsilon", [0.01, 0.05])
def test_policies_at_the_weights_spare_most_questions_and_change_no_answer(random_tensor, epsilon):
    oracle = GibbsOracle(random_tensor(3, 3, prompts=30, candidates=12), 0.1)
    grid, tolerance = uniform_grid(3, 12), {"epsilon": epsilon, "delta": 0.001}
    found, asked = [], []

    class Counting:
        """The oracle; where it trains, nothing is solved to spare questions."""

        def __init__(self, trains):
            self.trains, self.asked = trains, 0

        def __getattr__(self, name):
            return getattr(oracle, name)

        def solve(self, weights):
            assert not self.trains
            return oracle.solve(weights)

        def upper_bound(self, weights):
            self.asked += len(weights)
            return oracle.upper_bound(weights)

    for trains in (True, False):
        counting = Counting(trains)
        found.append(incompatible_weights(counting, grid, **tolerance))
        asked.append(counting.asked)
    np.testing.assert_array_equal(*found)
    assert len(found[0]) > 1
    assert asked[1] < 0.7 * asked[0]
    few = Counting(False)  # the questions that are left count, not those that were spared
    np.testing.assert_array_equal(incompatible_weights(few, grid, **tolerance, looks=asked[1]), found[0])
