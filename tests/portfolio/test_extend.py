"""A portfolio for one more basis: members stay, the gap is closed, and no more is added than is needed."""

from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, extend, plan_portfolio
from palm.simplex import sample_simplex


@pytest.mark.parametrize(("bases", "epsilon", "delta"), [(1, 0.03, 0.0), (2, 0.03, 0.0), (3, 0.08, 0.0), (2, 0.0, 0.01)])
def test_members_stay_and_the_gap_is_closed_for_every_weight(random_tensor, optimum_at, served_at, bases, epsilon, delta):
    rewards, kl = random_tensor(1, bases + 1), 0.2
    before = plan_portfolio(GibbsOracle(rewards[:, :, :bases], kl), epsilon=epsilon, delta=delta)
    after = extend(before, GibbsOracle(rewards, kl), name="new", epsilon=epsilon, delta=delta)
    kept = len(before)
    assert after.ids[:kept] == before.ids
    assert len(set(after.ids)) == len(after) > kept
    np.testing.assert_array_equal(after.weights[:kept, :-1], before.weights)
    np.testing.assert_array_equal(after.weights[:kept, -1], np.zeros(kept))
    np.testing.assert_allclose(after.value[:kept, :-1], before.value, atol=1e-9)  # the same policies, on the same candidates
    np.testing.assert_allclose(after.cost[:kept], before.cost, atol=1e-9)
    assert after.bases == (*before.bases, "new")
    assert after.certificate.epsilon <= epsilon + 1e-9
    weights = sample_simplex(20_000, bases + 1, np.random.default_rng(0))
    served = served_at(after, weights)
    assert (optimum_at(rewards, weights, kl) - (1 + epsilon) * served - delta).max() <= 1e-9
    assert after.solves > before.solves


def test_no_more_is_added_than_whole_planning_takes_and_the_first_stage_alone_would_take_more(random_tensor):
    oracle = GibbsOracle(random_tensor(7, 3, prompts=20), 0.1)
    before = plan_portfolio(GibbsOracle(random_tensor(7, 3, prompts=20)[:, :, :2], 0.1), epsilon=0.05)
    after = extend(before, oracle, epsilon=0.05)
    assert len(after) - len(before) <= len(plan_portfolio(oracle, epsilon=0.05))


def test_a_basis_that_repeats_another_adds_nothing():
    first = np.random.default_rng(0).random((6, 8, 1))
    before = plan_portfolio(GibbsOracle(first, 0.1), epsilon=0.01)
    after = extend(before, GibbsOracle(np.repeat(first, 2, axis=2), 0.1), epsilon=0.01)
    assert after.ids == before.ids
    assert after.certificate.epsilon <= 0.01
    assert after.bases == ("basis-0", "basis-1")


def test_an_empty_portfolio_can_be_extended(random_tensor):
    before = plan_portfolio(GibbsOracle(np.full((5, 7, 2), 0.4), 0.1), epsilon=0.01)
    assert len(before) == 0
    rewards = np.dstack([np.full((5, 7, 2), 0.4), random_tensor(0, 1)])
    after = extend(before, GibbsOracle(rewards, 0.1), epsilon=0.05)
    assert len(after) >= 1
    assert after.certificate.epsilon <= 0.05


def test_calibration_and_names_go_on(random_tensor):
    rewards = random_tensor(2, 3)
    calibrated = replace(plan_portfolio(GibbsOracle(rewards[:, :, :2], 0.2), epsilon=0.1), calibration=np.array([[0, 1], [2, 5.0]]))
    after = extend(calibrated, GibbsOracle(rewards, 0.2), calibration=(-1, 3), epsilon=0.1)
    np.testing.assert_array_equal(after.calibration, [[0, 1], [2, 5], [-1, 3]])
    plain = replace(calibrated, calibration=None)
    for portfolio, arguments, message in (
        (calibrated, {}, "calibration: expected two numbers, since the portfolio's other bases have theirs, got None"),
        (plain, {"calibration": (0, 1)}, r"calibration: expected none, as the portfolio's other bases have none, got \(0, 1\)"),
        (plain, {"name": "basis-1"}, r"name: expected another name .*, got 'basis-1'"),
        (plain, {"epsilon": 0.0}, "epsilon, delta: expected numbers of at least 0 and one of them positive, got 0.0 and 0.0"),
        (plain, {"epsilon": np.nan}, "epsilon, delta: expected numbers .*, got nan and 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            extend(portfolio, GibbsOracle(rewards, 0.2), **arguments)
    with pytest.raises(ValueError, match="oracle: expected 3 bases, one more than the portfolio's, got 2"):
        extend(plain, GibbsOracle(rewards[:, :, :2], 0.2))


def test_another_oracle_than_the_plan_s_is_refused(random_tensor):
    rewards = random_tensor(2, 3)
    before = plan_portfolio(GibbsOracle(rewards[:, :, :2], 0.2), epsilon=0.1)
    with pytest.raises(ValueError, match=r"oracle: expected kl = 0\.2 as the portfolio was planned with, got 0.1"):
        extend(before, GibbsOracle(rewards, 0.1), epsilon=0.1)
    for other in (rewards[:, :, ::-1], random_tensor(3, 3)):
        with pytest.raises(ValueError, match=r"oracle: expected the portfolio's bases first, in order and on the same prompts"):
            extend(before, GibbsOracle(other, 0.2), epsilon=0.1)
    measured = replace(before, origin="measured", reference=before.reference + 0.01)
    assert extend(measured, GibbsOracle(rewards, 0.2), epsilon=0.1).certificate.epsilon <= 0.1 + 1e-9
