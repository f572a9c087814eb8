"""Targets are reached whatever the rewards' scale and zero: nothing is rounding but what is small for the numbers at hand."""

import logging

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, extend, least_gaps, plan_portfolio, refine_weights
from palm.portfolio.gains import GainOracle
from palm.portfolio.rounding import size_of, slack_of
from palm.simplex import sample_simplex


def test_the_size_is_the_largest_number_that_is_rounded(two_sided):
    assert size_of(two_sided(1.0)) == pytest.approx(1.0)
    assert size_of(two_sided(0.1)) == pytest.approx(0.1 * np.log((np.exp(10) + 1) / 2))
    assert size_of(GainOracle(two_sided(0.1))) == size_of(two_sided(0.1))
    np.testing.assert_allclose(slack_of(np.array([0.0, 2.0]), 1.0, 3.0), [3e-15, 1e-7 + 3e-15])


@pytest.mark.parametrize("method", ["cut", "lazy"])
@pytest.mark.parametrize("scale", [1e-13, 1e-8, 1e6, 1e100])
def test_targets_are_reached_at_every_scale(random_tensor, optimum_at, served_at, scale, method):
    rewards, kl = random_tensor(2, 3) * scale, 0.2 * scale
    weights = sample_simplex(3000, 3, np.random.default_rng(0))
    oracle = GibbsOracle(rewards, kl)
    gap = plan_portfolio(oracle, epsilon=0.1, method=method)
    assert (optimum_at(rewards, weights, kl) / served_at(gap, weights)).max() - 1 <= gap.certificate.epsilon + 1e-9 <= 0.1 + 1e-8
    unscaled = plan_portfolio(GibbsOracle(rewards / scale, 0.2), epsilon=0.1, method=method)
    assert len(gap) == len(unscaled)
    share = plan_portfolio(oracle, captured_gain=0.7, method=method)
    base = weights @ oracle.reference
    shares = (served_at(share, weights) - base) / (optimum_at(rewards, weights, kl) - base)
    assert shares.min() >= share.certificate.captured_gain - 1e-9 >= 0.7 - 1e-8
    assert share.certificate.captured_size_at_least >= 2


@pytest.mark.parametrize("spread", [1e-3, 1e-5, 1e-6])
def test_shares_of_small_gains_over_a_large_reference_are_reached(random_tensor, spread):
    portfolio = plan_portfolio(GibbsOracle(0.5 + spread * random_tensor(2, 3), spread / 5), captured_gain=0.8)
    assert len(portfolio) > 1
    assert portfolio.certificate.captured_gain >= 0.8 - 1e-7


def test_what_cannot_be_told_from_rounding_is_none_or_said_to_be_missed(random_tensor, caplog):
    nothing = plan_portfolio(GibbsOracle(0.5 + 1e-8 * random_tensor(2, 3), 0.1), captured_gain=0.9)
    assert len(nothing) == 0
    assert nothing.certificate.captured_gain == 1
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        fixed = plan_portfolio(GibbsOracle(random_tensor(2, 3), 0.1), captured_gain=0.95, method="vertices")
    assert fixed.certificate.captured_gain < 0.9
    assert "captured_gain: 0.95 was asked for, 0." in caplog.text


def test_refinement_and_bounds_do_not_depend_on_the_scale(random_tensor):
    rewards, start = random_tensor(1, 3), sample_simplex(3, 3, np.random.default_rng(0))
    found = []
    for scale in (1.0, 1e-8):
        oracle = GibbsOracle(rewards * scale, 0.1 * scale)
        refined, bound = refine_weights(oracle, start), least_gaps(oracle, 2)[2]
        found.append((refined.before, refined.after, bound.epsilon))
    assert found[0][1] < 0.9 * found[0][0]
    np.testing.assert_allclose(found[1][::2], found[0][::2], rtol=1e-6)
    assert found[1][1] <= found[0][1] * 1.01


def test_an_extension_closes_the_gap_at_a_small_scale(random_tensor):
    rewards, scale = random_tensor(1, 3) * 1e-8, 1e-8
    before = plan_portfolio(GibbsOracle(rewards[:, :, :2], 0.2 * scale), epsilon=0.03)
    after = extend(before, GibbsOracle(rewards, 0.2 * scale), epsilon=0.03)
    assert after.certificate.epsilon <= 0.03 + 1e-9


def test_the_proof_that_no_fewer_will_do_holds_at_a_small_scale():
    oracle = PoolOracle(np.eye(3) * 1e-9, np.zeros(3), reference=np.full(3, 1e-10))
    found = plan_portfolio(oracle, epsilon=0.1).certificate
    assert found.size_at_least == 3
