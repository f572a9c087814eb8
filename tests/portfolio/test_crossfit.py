import numpy as np
import pytest

import palm.portfolio.crossfit as module
from palm.portfolio import GibbsOracle, cross_fit, plan_portfolio
from palm.simplex import sample_simplex


@pytest.mark.parametrize("bases", [1, 2, 3])
def test_every_prompt_is_judged_by_a_plan_that_did_not_see_it(random_tensor, bases):
    rewards = random_tensor(0, bases, prompts=11)
    found = cross_fit(rewards, 0.1, folds=4, epsilon=0.1, select="greedy")
    assert sorted(np.bincount(found.folds)) == [2, 3, 3, 3]
    for number, portfolio in enumerate(found.portfolios):
        inside = found.folds == number
        plan = plan_portfolio(GibbsOracle(rewards[~inside], 0.1), epsilon=0.1, select="greedy")
        held = GibbsOracle(rewards[inside], 0.1)
        np.testing.assert_array_equal(portfolio.weights, plan.weights)
        np.testing.assert_allclose(portfolio.value, held.solve(plan.weights).value, atol=1e-12)
        np.testing.assert_allclose(portfolio.reference, held.reference, atol=1e-12)
        assert found.planned[number] == plan.certificate.epsilon


@pytest.mark.parametrize("bases", [2, 3, 4])
def test_pooled_gaps_are_the_worst_of_the_means_over_prompts_and_are_attained(random_tensor, bases):
    rewards, mask = random_tensor(1, bases, prompts=8), np.ones((8, 7), dtype=bool)
    mask[3, 4:] = False
    found = cross_fit(rewards, 0.1, mask=mask, folds=3, epsilon=0.15, select="greedy", seed=3)
    weights = np.vstack([np.eye(bases), sample_simplex(20_000, bases, np.random.default_rng(0)), found.worst_weight])
    optimum = served = base = 0.0
    for number, portfolio in enumerate(found.portfolios):
        inside = found.folds == number
        oracle, count = GibbsOracle(rewards[inside], 0.1, mask=mask[inside]), inside.sum()
        optimum, served = optimum + count * oracle.optimum(weights) / 8, served + count * portfolio.served(weights) / 8
        base = base + count * weights @ oracle.reference / 8
    np.testing.assert_allclose(optimum, GibbsOracle(rewards, 0.1, mask=mask).optimum(weights), atol=1e-12)
    epsilon, delta, captured = optimum / served - 1, optimum - served, (served - base) / (optimum - base)
    assert found.exact
    assert epsilon.max() <= found.epsilon + 1e-9
    assert epsilon[-1] == pytest.approx(found.epsilon, abs=1e-9)
    assert found.delta * 0.8 <= delta.max() <= found.delta + 1e-9
    assert found.captured_gain - 1e-9 <= captured.min() <= found.captured_gain + 0.1


def test_too_many_cells_leave_bounds_from_the_folds(random_tensor, monkeypatch):
    rewards = random_tensor(2, 3, prompts=9)
    exact = cross_fit(rewards, 0.1, folds=3, epsilon=0.2, select="greedy")
    monkeypatch.setattr(module, "_MOST_SUMS", 10)
    rough = cross_fit(rewards, 0.1, folds=3, epsilon=0.2, select="greedy")
    assert (exact.exact, rough.exact) == (True, False)
    assert rough.epsilon == max(p.certificate.epsilon for p in rough.portfolios) >= exact.epsilon
    assert rough.delta >= exact.delta
    assert rough.captured_gain <= exact.captured_gain


def test_held_out_prompts_show_a_larger_gap_than_the_plans_claim(random_tensor):
    """On one prompt each the optimum is the prompt's own, which plans made on the others miss by more than they say."""
    for seed in range(3):
        found = cross_fit(random_tensor(seed, 2, 6), 0.05, folds=6, epsilon=0.02, select="greedy")
        assert (found.planned <= 0.02 + 1e-6).all()
        assert max(portfolio.certificate.epsilon for portfolio in found.portfolios) > 0.02


@pytest.mark.parametrize("folds", [1, 6, True, 2.0])
def test_folds_out_of_range_are_refused(random_tensor, folds):
    with pytest.raises(ValueError, match=f"folds: expected a whole number from 2 to the 5 prompts, got {folds}"):
        cross_fit(random_tensor(0, 2), folds=folds)


def test_bad_rewards_and_plans_are_refused_by_name(random_tensor):
    with pytest.raises(ValueError, match="kl: expected a positive number, got 0"):
        cross_fit(random_tensor(0, 2), 0.0)
    with pytest.raises(ValueError, match="size: expected a whole number of at least 1, got 0"):
        cross_fit(random_tensor(0, 2), size=0)
