"""Captured gain as a target: reached, certified, with as few policies as there can be; and where it cannot be."""

from itertools import combinations

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, plan_portfolio
from palm.portfolio.gains import GainOracle, check_captured_gain, least_gain
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import solve_all
from palm.portfolio.search import cut_search
from palm.simplex import sample_simplex


def share_at(rewards, kl, portfolio, weights, optimum_at, served_at, delta=0.0):
    base = weights @ rewards.mean(axis=(0, 1))
    return (served_at(portfolio, weights) + delta - base) / (optimum_at(rewards, weights, kl) - base)


@pytest.mark.parametrize("method", ["cut", "lazy"])
@pytest.mark.parametrize(("bases", "share"), [(1, 0.9), (2, 0.9), (3, 0.7)])
def test_every_weight_gets_the_share_asked_for(random_tensor, optimum_at, served_at, bases, share, method):
    rewards, kl = random_tensor(2, bases), 0.1
    portfolio = plan_portfolio(GibbsOracle(rewards, kl), captured_gain=share, method=method)
    found = portfolio.certificate
    assert share - 1e-9 <= found.captured_gain <= 1
    assert found.captured_gain_given_delta == found.captured_gain
    weights = np.vstack([sample_simplex(20_000, bases, np.random.default_rng(0)), found.worst_weight_captured])
    shares = share_at(rewards, kl, portfolio, weights, optimum_at, served_at)
    assert shares.min() >= share - 1e-9
    assert shares[-1] == pytest.approx(min(found.captured_gain, 1), abs=1e-9)
    assert 1 <= found.captured_size_at_least <= len(portfolio)
    np.testing.assert_allclose(portfolio.value, GibbsOracle(rewards, kl).solve(portfolio.weights).value, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_no_smaller_part_of_the_pool_captures_as_much(random_tensor, portfolio_of, seed, share):
    oracle = GibbsOracle(random_tensor(seed, 2), 0.1)
    epsilon, delta = check_captured_gain(share, 0.0)
    pool, chosen = cut_search(
        GainOracle(oracle), epsilon=epsilon, delta=delta, pool=solve_all(GainOracle(oracle), grid_of_size(2, 12))
    )
    captured = certify(portfolio_of(oracle, pool.weights[chosen]), oracle, search_bound=False).captured_gain
    assert captured >= share - 1e-9
    for fewer in combinations(range(12), len(chosen) - 1):
        few = portfolio_of(oracle, pool.weights[list(fewer)])
        assert certify(few, oracle, search_bound=False).captured_gain < share


def test_two_specialists_capture_two_thirds_as_known_by_hand(pool_oracle, portfolio_of):
    """Gains over (0.2, 0.2): 0.3 of 0.6 in the middle; beside a delta of 0.1, 0.4 of 0.6."""
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    found = certify(portfolio_of(oracle, np.eye(2)), oracle, delta=0.1, captured_bound=True)
    assert found.captured_gain == pytest.approx(0.5, abs=1e-9)
    assert found.captured_gain_given_delta == pytest.approx(4 / 6, abs=1e-9)
    np.testing.assert_allclose(found.worst_weight_captured_given_delta, [0.5, 0.5], atol=1e-12)
    generalist = certify(portfolio_of(oracle, np.full((1, 2), 0.5)), oracle, captured_bound=True)
    assert generalist.captured_gain == pytest.approx(0.75, abs=1e-9)
    assert generalist.captured_size_at_least == 1  # 0.6 / 0.75 is just enough for the 0.8 of both vertices
    assert check_captured_gain(0.8, 0.1) == pytest.approx((0.25, 0.125))
    assert len(plan_portfolio(oracle, captured_gain=0.5)) == 1  # the generalist: 0.6 of 0.8 at the vertices
    assert len(plan_portfolio(oracle, captured_gain=0.76)) > 1
    assert plan_portfolio(oracle, captured_gain=0.95).certificate.captured_size_at_least == 3


def test_epsilon_given_delta_and_delta_given_epsilon_are_attained_as_known_by_hand(pool_oracle, portfolio_of):
    """In the middle L = 0.5 and OPT = 0.8: (1 + 0.4) 0.5 + 0.1 = 0.8 and (1 + 0.2) 0.5 + 0.2 = 0.8."""
    oracle = pool_oracle([[1, 0], [0, 1], [0.8, 0.8]], reference=[0.2, 0.2])
    found = certify(portfolio_of(oracle, np.eye(2)), oracle, epsilon=0.2, delta=0.1)
    assert found.epsilon == pytest.approx(0.4, abs=1e-9)
    assert found.delta == pytest.approx(0.2, abs=1e-9)
    np.testing.assert_allclose([found.worst_weight, found.worst_weight_delta], np.full((2, 2), 0.5), atol=1e-9)


def test_opposed_bases_leave_nothing_to_gain_in_between(two_sided, optimum_at, served_at):
    with pytest.raises(ValueError, match=r"captured_gain: expected something to gain .* got none at \[0\.5.*, 0\.[45].*\].*delta"):
        plan_portfolio(two_sided(0.3), captured_gain=0.8)
    rewards, kl, delta = np.eye(2)[None], 0.3, 0.01
    portfolio = plan_portfolio(two_sided(kl), captured_gain=0.8, delta=delta)
    found = portfolio.certificate
    assert found.captured_gain == pytest.approx(0, abs=1e-6)
    assert found.captured_gain_given_delta >= 0.8 - 1e-9
    weights = np.vstack([sample_simplex(5000, 2, np.random.default_rng(0)), found.worst_weight_captured_given_delta])
    shares = share_at(rewards, kl, portfolio, weights, optimum_at, served_at, delta)
    assert shares.min() >= 0.8 - 1e-9
    assert shares[-1] == pytest.approx(found.captured_gain_given_delta, abs=1e-9)


def test_where_nothing_can_be_gained_nothing_is_trained():
    portfolio = plan_portfolio(GibbsOracle(np.full((2, 3, 3), 0.4), 0.1), captured_gain=0.9)
    assert len(portfolio) == 0
    assert portfolio.certificate.captured_gain == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_least_gain_is_a_bound_below_every_gain_and_near_the_least(random_tensor, optimum_at, seed):
    rewards, kl = random_tensor(seed, 3), 0.2
    found = least_gain(GibbsOracle(rewards, kl))
    bound, weight = found.gain, found.weight
    weights = np.vstack([sample_simplex(20_000, 3, np.random.default_rng(seed)), weight])
    gains = optimum_at(rewards, weights, kl) - weights @ rewards.mean(axis=(0, 1))
    assert 0 < bound <= gains.min() + 1e-12
    zero = least_gain(GibbsOracle(np.dstack([rewards[:, :, :2], np.full(rewards.shape[:2], 0.5)]), kl)).gain
    assert zero == 0
    assert least_gain(GibbsOracle(np.full((2, 3, 3), 0.4), kl)).weight is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"captured_gain": 0.0}, "captured_gain: expected a share above 0 and at most 1, got 0.0"),
        ({"captured_gain": 1.2}, "captured_gain: expected a share above 0 and at most 1, got 1.2"),
        ({"captured_gain": np.nan}, "captured_gain: expected a share above 0 and at most 1, got nan"),
        ({"captured_gain": True}, "captured_gain: expected a share above 0 and at most 1, got True"),
        ({"captured_gain": 1.0}, "captured_gain, delta: expected a share below 1 or a positive delta, got 1 and 0"),
        ({"captured_gain": 0.9, "size": 2}, "captured_gain, size: expected one of them, got 0.9 and 2"),
        ({"captured_gain": 0.9, "refine": True}, "captured_gain, refine: expected one of them"),
    ],
)
def test_bad_shares_are_refused_by_name(two_sided, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_portfolio(two_sided(0.1), **arguments)
