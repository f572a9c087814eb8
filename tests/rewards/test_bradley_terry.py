import numpy as np
import pytest
from scipy.optimize import minimize

from palm.features.pairs import PairFeatures
from palm.rewards import BradleyTerry


def logistic_regression(pairs, penalty):
    """Ridge logistic regression without intercept on differences of standardised features, by BFGS."""
    items = pairs.items.rows(np.arange(len(pairs.items))).astype(float)
    scale = items.std(axis=0)
    difference = (pairs.chosen - pairs.rejected).astype(float) / scale

    def loss(v):
        return np.logaddexp(0, -difference @ v).sum() + 0.5 * penalty * v @ v

    return minimize(loss, np.zeros(len(scale)), method="BFGS", options={"gtol": 1e-8}).x / scale


@pytest.mark.parametrize("penalty", [0.3, 10.0, 1000.0])
def test_the_direction_is_that_of_plain_logistic_regression(conflicting, penalty):
    model = BradleyTerry(penalty=penalty).fit(conflicting.seen)
    np.testing.assert_allclose(model.direction, logistic_regression(conflicting.seen, penalty), rtol=5e-3, atol=2e-3)
    pairs = conflicting.unseen_test
    expected = (pairs.chosen - pairs.rejected) @ model.direction
    np.testing.assert_allclose(model.margin(pairs, model.infer(pairs)), expected, atol=1e-4)


def test_a_single_feature_has_the_solution_known_by_hand():
    """Of 100 equal pairs 80 are won: without penalty the logit of the difference 2 is log 4."""
    high, low = np.ones((80, 1)), -np.ones((80, 1))
    pairs = PairFeatures(["u"] * 100, np.vstack([high, low[:20]]), np.vstack([low, high[:20]]))
    model = BradleyTerry(penalty=1e-9).fit(pairs)
    assert model.direction[0] == pytest.approx(np.log(4) / 2, rel=1e-3)


def test_what_everyone_wants_is_recovered(planted):
    world = planted(alpha=1e4, pairs=80)
    model = BradleyTerry().fit(world.seen)
    common = world.directions.mean(axis=1)
    cosine = model.direction @ common / np.linalg.norm(model.direction) / np.linalg.norm(common)
    assert cosine > 0.99


def test_the_penalty_with_the_least_held_out_loss_is_taken(conflicting):
    details = BradleyTerry().fit(conflicting.seen).details
    assert str(details["penalty"]) == min(details["held_out_loss"], key=details["held_out_loss"].get)
    assert details["pairs"] == len(conflicting.seen)


def test_judgements_by_coin_get_a_heavier_penalty_than_clear_ones(planted):
    coin, clear = (BradleyTerry().fit(planted(sharpness=s, alpha=1e4, users=30).seen) for s in (1e-6, 10.0))
    assert coin.details["penalty"] >= 100 > clear.details["penalty"]


def test_a_constant_feature_is_left_out(conflicting):
    pairs = conflicting.seen
    items = np.column_stack([pairs.items.rows(np.arange(len(pairs.items))), np.full(len(pairs.items), 3.0)])
    wide = PairFeatures.from_items(pairs.user, items, pairs.chosen_row, pairs.rejected_row)
    model = BradleyTerry(penalty=1.0).fit(wide)
    assert model.direction[-1] == 0
    np.testing.assert_allclose(model.direction[:-1], BradleyTerry(penalty=1.0).fit(pairs).direction, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalty", [0.0, -1.0, np.nan, np.inf])
def test_penalties_out_of_range_are_refused(small, penalty):
    with pytest.raises(ValueError, match=f"penalty: expected a positive number or None, got {penalty}"):
        BradleyTerry(penalty=penalty).fit(small.seen)
