"""palm.portfolio.nearby: pools around a choice."""

from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, nearby, plan_portfolio, refine_weights
from palm.portfolio.fixed_size import fixed_size_search, gap_of
from palm.portfolio.nearby import nearby_search, neighbours
from palm.portfolio.pool import solve_all
from palm.portfolio.portfolio import Portfolio
from palm.simplex import sample_simplex


def certified(oracle, weights, delta=0.0):
    solution = oracle.solve(weights)
    names = tuple(str(number) for number in range(len(weights)))
    portfolio = Portfolio(weights, solution.value, solution.cost, oracle.reference, oracle.kl, names)
    return certify(portfolio, oracle, delta=delta, search_bound=False).epsilon


def test_neighbours_of_one_weight_are_all_exchanges():
    found = neighbours(np.array([[0.7, 0.25, 0.05]]), 0.1)
    expected = [
        [0.7, 0.25, 0.05],
        *([0.8, 0.15, 0.05], [0.9, 0.05, 0.05], [0.75, 0.25, 0.0]),  # to the first; all that the third has, once
        *([0.6, 0.35, 0.05], [0.5, 0.45, 0.05], [0.7, 0.3, 0.0]),
        *([0.6, 0.25, 0.15], [0.5, 0.25, 0.25], [0.7, 0.15, 0.15], [0.7, 0.05, 0.25]),
    ]
    assert len(found) == len(expected)
    for weight in expected:
        assert (np.abs(found - weight).max(axis=1) < 1e-12).sum() == 1
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("bases", [2, 3, 5])
def test_neighbours_lie_on_the_simplex_and_are_distinct(bases):
    weights = np.vstack([np.eye(bases), sample_simplex(4, bases, np.random.default_rng(0))])
    found = neighbours(weights, 0.05)
    np.testing.assert_array_equal(found[: len(weights)], weights)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert len(np.unique(np.round(found, 9), axis=0)) == len(found)
    nearest = np.abs(found[:, None] - weights[None]).max(axis=2).min(axis=1)
    assert nearest.max() == pytest.approx(0.1)


@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_a_choice_from_a_coarse_pool_gets_better(random_tensor, delta):
    better = 0
    for seed in range(4):
        oracle = GibbsOracle(random_tensor(seed, 4, prompts=40, candidates=16), 0.1)
        pool, chosen = fixed_size_search(oracle, size=4, delta=delta)
        before = certified(oracle, pool.weights[chosen], delta)
        larger, few = nearby_search(oracle, pool, chosen, size=4, delta=delta)
        after = certified(oracle, larger.weights[few], delta)
        assert after <= before + 1e-12
        assert after == pytest.approx(gap_of(oracle, larger, few, delta), abs=1e-12)
        assert len(few) <= 4
        np.testing.assert_array_equal(larger.weights[: len(pool)], pool.weights)
        again = oracle.solve(larger.weights)
        np.testing.assert_allclose(larger.value, again.value, atol=1e-12)
        np.testing.assert_allclose(larger.cost, again.cost, atol=1e-12)
        better += after < before * 0.97
    assert better >= 2


def test_the_choice_stays_where_nothing_better_is_found(random_tensor):
    oracle = GibbsOracle(random_tensor(0, 2), 0.1)
    pool, chosen = fixed_size_search(oracle, size=3)
    moved = refine_weights(oracle, pool.weights[chosen]).weights  # for K = 2 the best there is
    pool = solve_all(oracle, moved)
    larger, few = nearby_search(oracle, pool, np.arange(3), size=3)
    np.testing.assert_array_equal(few, np.arange(3))
    assert len(larger) > 3


@pytest.mark.parametrize("case", ["one basis", "no policies", "no gap", "no bound", "too many", "too many policies"])
def test_nothing_is_solved_where_nothing_can_be_gained(random_tensor, monkeypatch, case):
    rewards = random_tensor(0, 1 if case == "one basis" else 3)
    if case == "no gap":
        rewards[:] = rewards[:, :1]  # all candidates alike: the reference is as good as anything
    if case == "no bound":
        rewards[:, :, 0] = 0  # nothing to be had at a vertex
    if case == "too many":
        monkeypatch.setattr(nearby, "_MOST", 11)
    if case == "too many policies":
        monkeypatch.setattr(nearby, "_MOST_POLICIES", 0)
    oracle = GibbsOracle(rewards, 0.1)
    pool = solve_all(oracle, np.eye(oracle.bases))
    chosen = np.arange(0 if case == "no policies" else 1)
    monkeypatch.setattr(nearby, "solve_all", None)
    if case == "no bound":
        monkeypatch.setattr(nearby, "gap_of", lambda *_: np.inf)
    same, few = nearby_search(oracle, pool, chosen, size=1)
    assert same is pool
    assert few is chosen


@pytest.mark.parametrize(("most", "looked"), [(24, True), (23, False)])
def test_as_many_neighbours_as_allowed_are_looked_at(random_tensor, monkeypatch, most, looked):
    monkeypatch.setattr(nearby, "_MOST", most)  # two policies, three bases: 2 x 2 x 3 x 2
    oracle = GibbsOracle(random_tensor(0, 3), 0.1)
    pool = solve_all(oracle, np.eye(3))
    assert (len(nearby_search(oracle, pool, np.arange(2), size=2)[0]) > 3) == looked


def test_moving_keeps_the_better_of_both_choices(random_tensor, monkeypatch):
    """The first choice may move to a smaller gap than the one that is better unmoved: K = 4, two policies."""
    oracle = GibbsOracle(random_tensor(0, 4, prompts=40, candidates=16), 0.1)
    for worse in (None, 0, 1):  # whichever choice is spoilt, the other is kept
        asked = []

        def spoilt(oracle, weights, worse=worse, asked=asked, **given):
            moved = refine_weights(oracle, weights, **given)
            asked.append(moved.after)
            return replace(moved, after=9.0) if len(asked) - 1 == worse else moved

        monkeypatch.setattr("palm.portfolio.plan.refine_weights", spoilt)
        found = plan_portfolio(oracle, size=2, refine=True).certificate.epsilon
        assert len(asked) == 2
        assert found == pytest.approx(min(asked) if worse is None else asked[1 - worse], abs=1e-12)
