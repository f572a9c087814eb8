import itertools
import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from palm.portfolio import BestOfNOracle, GibbsOracle, certify, plan_portfolio
from palm.portfolio.bestofn import best_of_n, pick_softly
from palm.simplex import sample_simplex, uniform_grid


def by_all_draws(scores, n):
    """Probabilities by listing every sequence of n draws; whoever ties for the best shares."""
    count = len(scores)
    probability = np.zeros(count)
    for draw in itertools.product(range(count), repeat=n):
        best = max(scores[i] for i in draw)
        winners = [i for i in range(count) if abs(scores[i] - best) < 1e-9]
        for i in winners:
            probability[i] += 1 / len(winners) / count**n
    return probability


def divergence(probability):
    return np.where(probability > 0, probability * np.log(np.maximum(probability, 1e-300) * probability.shape[-1]), 0).sum(axis=-1)


def tied_tensor(seed, bases, prompts=4, candidates=6):
    """Rewards of three levels, with candidates that are equal in every basis."""
    rewards = np.random.default_rng([seed, bases]).integers(0, 3, size=(prompts, candidates, bases)) / 2
    rewards[:, -1] = rewards[:, 0]
    return rewards


@pytest.mark.parametrize("scores", [[0.1, 0.4, 0.2, 0.3], [0.5, 0.5, 0.1, 0.9], [0.2, 0.7, 0.7, 0.7], [0.3] * 4, [1.0]])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_probabilities_are_those_of_all_draws_listed(scores, n):
    np.testing.assert_allclose(best_of_n(np.array(scores), n), by_all_draws(scores, n), atol=1e-14)


def test_rounding_breaks_no_tie():
    weights = np.array([0.3, 0.7])
    scores = np.array([[0.1, 0.2], [0.1 + 7e-16, 0.2 - 3e-16], [0.4, 0.0]]) @ weights
    assert scores[0] != scores[1]
    probability = best_of_n(scores, 4)
    assert probability[0] == probability[1]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_value_and_cost_are_sums_over_all_draws(random_tensor, n):
    weights = np.vstack([np.eye(2), sample_simplex(4, 2, np.random.default_rng(0)), [[0.5, 0.5]]])
    for rewards in (random_tensor(0, 2, prompts=3, candidates=4), tied_tensor(1, 2, prompts=3, candidates=4)):
        oracle = BestOfNOracle(rewards, n, kl=0.3)
        solution = oracle.solve(weights)
        for row, weight in enumerate(weights):
            probability = np.array([by_all_draws(prompt @ weight, n) for prompt in rewards])
            np.testing.assert_allclose(oracle.policy_probabilities(weight), probability, atol=1e-14)
            np.testing.assert_allclose(solution.value[row], np.einsum("pn,pnk->k", probability, rewards) / 3, atol=1e-13)
            assert solution.cost[row] == pytest.approx(0.3 * divergence(probability).mean(), abs=1e-13)
            assert solution.optimum[row] == pytest.approx(weight @ solution.value[row] - solution.cost[row], abs=1e-13)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_divergence_is_below_the_known_bound_and_reaches_it_with_many_candidates(random_tensor, n):
    weights = sample_simplex(20, 2, np.random.default_rng(0))
    bound = np.log(n) - (n - 1) / n
    for rewards in (random_tensor(0, 2), tied_tensor(0, 2), random_tensor(0, 2, prompts=1, candidates=5000)):
        oracle = BestOfNOracle(rewards, n, kl=1.0)
        assert oracle.divergence_bound == pytest.approx(bound)
        assert (oracle.solve(weights).cost <= oracle.divergence + 1e-12).all()
        assert oracle.divergence <= bound + 1e-12
    assert oracle.divergence == pytest.approx(bound, abs=2e-3)
    assert f"{oracle.divergence_bound:.4g}" in oracle.assumptions[1]
    assert BestOfNOracle(random_tensor(0, 2), n, kl=1.0).divergence == pytest.approx(
        BestOfNOracle(random_tensor(0, 2), n).slack * 10
    )


@pytest.mark.parametrize("kl", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("n", [2, 4])
def test_no_rule_that_an_optimiser_finds_is_better_than_the_bound_and_the_best_attains_it(kl, n):
    """Rules by what they give: every set of k candidates has at most the probability that one of n draws is in it."""
    for scores in ([0.9, 0.1, 0.5, 0.55], [0.4, 0.4, 0.8, 0.1]):
        scores = np.array(scores)
        sets = [list(few) for size in range(1, 4) for few in itertools.combinations(range(4), size)]
        limits = [{"type": "ineq", "fun": lambda p, few=few: 1 - (1 - len(few) / 4) ** n - p[few].sum()} for few in sets]
        found = [
            minimize(
                lambda p, scores=scores: kl * (p * np.log(np.maximum(p, 1e-300) * 4)).sum() - p @ scores,
                start,
                bounds=[(1e-12, 1)] * 4,
                constraints=[{"type": "eq", "fun": lambda p: p.sum() - 1}, *limits],
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 500},
            )
            for start in (np.full(4, 0.25), best_of_n(scores, n))
        ]
        best = -min(result.fun for result in found)
        assert pick_softly(scores, n, kl) == pytest.approx(best, abs=1e-6)


def test_the_bound_is_tight_for_small_kl_and_the_gibbs_optimum_for_many_draws(random_tensor):
    rewards = random_tensor(2, 3)
    weights = sample_simplex(30, 3, np.random.default_rng(1))
    hard = BestOfNOracle(rewards, 4, kl=1e-4)
    np.testing.assert_allclose(hard.upper_bound(weights), hard.optimum(weights), atol=1e-9)
    many = BestOfNOracle(rewards, 10_000, kl=0.2)
    np.testing.assert_allclose(many.upper_bound(weights), GibbsOracle(rewards, 0.2).optimum(weights), atol=1e-9)
    one = BestOfNOracle(rewards, 1, kl=0.2)
    np.testing.assert_allclose(one.upper_bound(weights), weights @ one.reference, atol=1e-12)
    np.testing.assert_allclose(one.solve(weights).cost, 0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kl", [0.05, 0.5])
def test_no_best_of_n_policy_of_any_weight_is_above_the_bound_however_much_ties(random_tensor, seed, kl):
    rewards = tied_tensor(seed, 3) if seed % 2 else random_tensor(seed, 3)
    oracle = BestOfNOracle(rewards, 2 + seed % 3, kl)
    policies = oracle.solve(np.vstack([uniform_grid(3, 12), sample_simplex(100, 3, np.random.default_rng(seed))]))
    weights = np.vstack([uniform_grid(3, 12), sample_simplex(200, 3, np.random.default_rng(seed + 1))])
    utility = weights @ policies.value.T - policies.cost
    bound = oracle.upper_bound(weights)
    assert (utility.max(axis=1) <= bound + 1e-12).all()
    assert (oracle.lower_bound(weights) <= bound + 1e-12).all()
    assert (weights @ oracle.reference <= oracle.lower_bound(weights)).all()
    assert (bound <= GibbsOracle(rewards, kl).optimum(weights) + 1e-12).all()
    assert (bound - oracle.optimum(weights) <= oracle.slack + 1e-12).all()
    halfway = oracle.upper_bound(0.5 * (weights[:-1] + weights[1:]))
    assert (halfway <= 0.5 * (bound[:-1] + bound[1:]) + 1e-12).all()


def test_a_policy_for_another_weight_can_be_better_where_ties_save_kl():
    """Why the bound is not the best-of-n policy's own utility: shared ties at another weight cost less, at hardly less value."""
    rewards = np.array([[[0.5, 0.50], [0.5, 0.51]]])
    oracle = BestOfNOracle(rewards, 4, kl=1.0)
    weight = np.array([[0.5, 0.5]])
    other = oracle.solve(np.array([[1.0, 0.0]]))
    assert (weight @ other.value.T - other.cost)[0, 0] > oracle.optimum(weight)[0] + 0.1
    assert oracle.upper_bound(weight)[0] >= (weight @ other.value.T - other.cost)[0, 0]


def test_missing_candidates_count_for_nothing(random_tensor):
    rewards = random_tensor(3, 3)
    mask = np.random.default_rng(0).random(rewards.shape[:2]) < 0.6
    mask[:, 2] = True
    weights = sample_simplex(10, 3, np.random.default_rng(0))
    ragged = BestOfNOracle(np.where(mask[:, :, None], rewards, np.nan), 3, 0.1, mask=mask)
    alone = [BestOfNOracle(rewards[p : p + 1, mask[p]], 3, 0.1) for p in range(len(rewards))]
    for name in ("value", "cost", "optimum"):
        parts = np.mean([getattr(o.solve(weights), name) for o in alone], axis=0)
        np.testing.assert_allclose(getattr(ragged.solve(weights), name), parts, atol=1e-12)
    np.testing.assert_allclose(ragged.upper_bound(weights), np.mean([o.upper_bound(weights) for o in alone], axis=0), atol=1e-12)
    np.testing.assert_allclose(ragged.reference, np.mean([o.reference for o in alone], axis=0), atol=1e-12)
    assert ragged.divergence == pytest.approx(np.mean([o.divergence for o in alone]))
    probability = ragged.policy_probabilities(weights[0])
    assert (probability[~mask] == 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1)


def test_blocks_give_the_same_as_all_at_once(random_tensor, monkeypatch):
    oracle, weights = BestOfNOracle(random_tensor(5, 3), 3), sample_simplex(9, 3, np.random.default_rng(0))
    whole, bound = oracle.solve(weights), oracle.upper_bound(weights)
    monkeypatch.setattr("palm.portfolio.bestofn._BLOCK", 14)
    np.testing.assert_allclose(oracle.solve(weights).value, whole.value, atol=1e-14)
    np.testing.assert_allclose(oracle.upper_bound(weights), bound, atol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_of_best_of_n_policies_is_certified_against_every_rule(random_tensor, seed):
    rewards = tied_tensor(seed, 3, candidates=8) + 0.1 if seed % 2 else random_tensor(seed, 3)
    oracle = BestOfNOracle(rewards, 3, 0.1)
    portfolio = plan_portfolio(oracle, size=3)
    weights = sample_simplex(3000, 3, np.random.default_rng(seed))
    assert len(portfolio) <= 3
    assert portfolio.kl == 0.1
    gaps = oracle.upper_bound(weights) / portfolio.served(weights) - 1
    assert gaps.max() <= portfolio.certificate.epsilon + 1e-9
    assert gaps.max() >= 0.5 * portfolio.certificate.epsilon
    few = certify(portfolio, oracle, search_bound=False)
    assert few.epsilon == pytest.approx(portfolio.certificate.epsilon, abs=1e-12)
    assert any("allows for" in assumption for assumption in few.assumptions)


def test_a_gap_that_choosing_hard_cannot_reach_is_refused_with_what_it_leaves(random_tensor):
    with pytest.raises(ValueError, match=r"epsilon, delta: expected at least what the oracle's slack leaves, a gap of 0\.\d+ at w"):
        plan_portfolio(BestOfNOracle(random_tensor(0, 2), 4, kl=1.0), epsilon=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n: expected a whole number of at least 1, got 0"),
        ({"n": 2.5}, "n: expected a whole number of at least 1, got 2.5"),
        ({"n": True}, "n: expected a whole number of at least 1, got True"),
        ({"kl": 0.0}, "kl: expected a positive number, got 0.0"),
        ({"reward_tensor": np.zeros((2, 0, 3))}, r"reward_tensor: .* none of them 0, got \(2, 0, 3\)"),
        ({"reward_tensor": np.full((1, 2, 2), np.nan)}, "reward_tensor: expected finite numbers, got nan"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        BestOfNOracle(**{"reward_tensor": np.full((2, 3, 2), 0.5), "n": 2, **arguments})


def test_bounds_raise_no_warning_whatever_memory_held_before(random_tensor, monkeypatch):
    def dirty(like):
        return np.full(like.shape, np.inf)

    monkeypatch.setattr(np, "empty_like", dirty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(BestOfNOracle(random_tensor(0, 3), 4, 0.1).upper_bound(np.eye(3))).all()


def test_ties_do_not_depend_on_the_scale():
    scores = np.array([0.3, 0.1, 0.1 + 1e-16, 0.2])
    np.testing.assert_allclose(best_of_n(scores * 1e-13, 3), best_of_n(scores, 3), atol=1e-15)
