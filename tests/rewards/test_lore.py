import re

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from palm.evaluation import accuracy, compare
from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray
from palm.rewards import BradleyTerry, LoRe
from palm.rewards.logistic import Standardised


@pytest.fixture(scope="module")
def fitted(conflicting):
    return LoRe(rank=2).fit(conflicting.seen)


def on_unseen(model, world):
    return accuracy(model, world.unseen_test, model.infer(world.unseen_context))


def test_the_planted_subspace_is_recovered(conflicting, fitted):
    assert np.degrees(subspace_angles(fitted.directions, conflicting.directions)).max() < 6
    guess = np.linalg.qr(np.random.default_rng(99).standard_normal((8, 2)))[0]
    assert np.degrees(subspace_angles(guess, conflicting.directions)).max() > 30  # what no learning would give


def test_seen_users_lie_where_they_were_planted(conflicting, fitted):
    """Up to the order of the bases; users of these pairs are known to about a tenth."""
    planted = conflicting.weights[np.searchsorted(conflicting.ids, fitted.users.ids)]
    apart = min(np.abs(fitted.users.mean[:, order] - planted).mean() for order in ([0, 1], [1, 0]))
    assert apart < 0.1
    assert np.abs(0.5 - planted).mean() > 0.3


def test_unseen_users_are_predicted_nearly_as_well_as_by_the_truth(conflicting, fitted):
    oracle = (conflicting.logits(conflicting.unseen_test) > 0).mean()
    assert on_unseen(fitted, conflicting).overall.mean > oracle - 0.03


def test_conflicting_users_are_served_better_than_by_one_reward_for_everyone(conflicting, fitted):
    one_for_all = on_unseen(BradleyTerry().fit(conflicting.seen), conflicting)
    gain = compare(on_unseen(fitted, conflicting), one_for_all)
    assert gain.low > 0.05
    assert fitted.details["personal_penalty"] is not None


def test_three_bases_are_recovered_too(planted):
    world = planted(bases=3, alpha=0.1, pairs=60)
    model = LoRe(rank=3).fit(world.seen)
    assert np.degrees(subspace_angles(model.directions, world.directions)).max() < 12
    assert on_unseen(model, world).overall.mean > (world.logits(world.unseen_test) > 0).mean() - 0.03


def test_users_who_agree_lose_nothing(planted):
    world = planted(seed=2, alpha=1e4)
    personal, common = (on_unseen(estimator.fit(world.seen), world) for estimator in (LoRe(rank=2), BradleyTerry()))
    assert compare(personal, common).mean > -0.02


@pytest.mark.parametrize("estimator", [LoRe(rank=1), LoRe(rank=3, personal_penalty=np.inf)])
def test_nothing_personal_is_bradley_terry(conflicting, estimator):
    model, plain = estimator.fit(conflicting.seen), BradleyTerry().fit(conflicting.seen)
    for column in model.directions.T:
        np.testing.assert_allclose(column, plain.direction, rtol=1e-9)
    users = model.infer(conflicting.unseen_test)
    expected = plain.margin(conflicting.unseen_test, users)
    np.testing.assert_allclose(model.margin(conflicting.unseen_test, users), expected, atol=1e-4)


def test_margins_are_logits_of_the_raw_directions(conflicting, fitted):
    pairs, users = conflicting.unseen_test, fitted.infer(conflicting.unseen_context)
    weights = users.mean[users.rows(pairs.user)]
    raw = ((pairs.chosen - pairs.rejected) @ fitted.directions * weights).sum(axis=1)
    np.testing.assert_allclose(fitted.margin(pairs, users), raw, atol=1e-4)
    # and sharpness times the calibrated utility, wherever nothing is clipped
    basis = fitted.basis(pairs.items)
    inside = ((basis > 0) & (basis < 1)).all(axis=1)
    kept = inside[pairs.chosen_row] & inside[pairs.rejected_row]
    calibrated = fitted.sharpness * (pairs.difference(basis) * weights).sum(axis=1)
    assert kept.mean() > 0.8
    np.testing.assert_allclose(fitted.margin(pairs, users)[kept], calibrated[kept], atol=1e-4)


def test_the_penalty_with_the_least_held_out_loss_is_taken(fitted):
    losses = fitted.details["held_out_loss"]
    assert float(min(losses, key=losses.get)) == fitted.details["personal_penalty"]
    assert losses["inf"] > min(losses.values()) + 0.1


def test_a_scale_of_the_features_changes_nothing_that_matters(small):
    pairs = small.seen
    items = pairs.items.rows(np.arange(len(pairs.items))) * np.array([100, 0.01, 1, 7]) + np.array([5, 0, -300, 0])
    scaled = PairFeatures.from_items(pairs.user, items, pairs.chosen_row, pairs.rejected_row, group=pairs.group)
    estimator = LoRe(rank=2, penalty=1.0, personal_penalty=3.0)
    first, second = estimator.fit(pairs), estimator.fit(scaled)
    np.testing.assert_allclose(second.margin(scaled, second.users), first.margin(pairs, first.users), rtol=0.02, atol=0.02)


def test_more_bases_than_users_or_features_are_possible(small):
    model = LoRe(rank=12, penalty=1.0, personal_penalty=3.0).fit(small.seen)
    assert model.directions.shape == (4, 12)
    assert np.isfinite(model.margin(small.seen, model.users)).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank: expected a whole number of at least 1, got 0"),
        ({"penalty": 0.0}, "penalty: expected a positive number or None, got 0.0"),
        ({"penalty": np.inf}, "penalty: expected a positive number or None, got inf"),
        ({"penalty": np.nan}, "penalty: expected a positive number or None, got nan"),
        ({"personal_penalty": -1.0}, "personal_penalty: expected a positive number or None, got -1.0"),
        ({"concentration": 0.0}, "concentration: expected a positive number, got 0.0"),
        ({"concentration": np.inf}, "concentration: expected a positive number, got inf"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        LoRe(**parameters).fit(small.seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds: expected a whole number of at least 1, got 0"),
        ({"kinds": True}, "kinds: expected a whole number of at least 1, got True"),
        ({"penalty": "abc"}, "penalty: expected a positive number or None, got 'abc'"),
        ({"personal_penalties": (0.0, -3.0)}, "personal_penalties: expected positive numbers, one at least, got (0.0, -3.0)"),
        ({"personal_penalties": ()}, "personal_penalties: expected positive numbers, one at least, got ()"),
        ({"steps": 10}, "steps: expected with a published preset only, 'joint', 'anchored'; got 10"),
        ({"preset": "joint", "kinds": 3}, "kinds: expected 1 with the preset 'joint', which has no prior, got 3"),
    ],
)
def test_options_that_would_fail_late_or_be_ignored_are_refused(small, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LoRe(rank=2, **options).fit(small.seen)


def test_the_largest_moment_is_the_pairs_first_eigenvalue():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 12))
    pairs = PairFeatures.from_items(
        np.repeat(["a", "b"], 100), FeatureArray([features]), rng.integers(0, 30, 200), rng.integers(30, 60, 200)
    )
    data = Standardised.of(pairs)
    difference = (features[pairs.chosen_row] - features[pairs.rejected_row]) / data.scale
    wanted = np.linalg.eigvalsh(difference.T @ difference / len(pairs)).max()
    assert data.largest_moment(rounds=200) == pytest.approx(wanted, rel=1e-4)
    assert data.largest_moment() == pytest.approx(wanted, rel=0.1)


def test_tastes_are_found_in_features_that_move_together():
    """Hidden states are like this. With penalties made for independent columns nothing personal was found."""
    rng = np.random.default_rng(1)
    items, users, width = 80, 120, 64
    latent = rng.normal(size=(items, 4)) * [3.0, 1.0, 1.0, 1.0]
    features = latent @ rng.normal(size=(4, width)) + 0.3 * rng.normal(size=(items, width))
    tastes = rng.normal(size=(users, 4)) * [0.5, 1.0, 1.0, 1.0]
    code = np.repeat(np.arange(users), 60)
    first, second = rng.integers(items, size=(2, len(code)))
    second = np.where(first == second, (second + 1) % items, second)
    margin = ((latent[first] - latent[second]) * tastes[code]).sum(axis=1)
    wins = rng.random(len(code)) < 1 / (1 + np.exp(-0.4 * margin))
    chosen, rejected = np.where(wins, first, second), np.where(wins, second, first)
    late = np.tile(np.arange(60) >= 45, users)
    names = np.array([f"u{u:03d}" for u in code])
    made = {
        part: PairFeatures.from_items(names[rows], FeatureArray([features]), chosen[rows], rejected[rows])
        for part, rows in (("train", ~late), ("test", late))
    }
    model = LoRe(rank=4, penalty=100.0).fit(made["train"])
    plain = LoRe(rank=4, penalty=100.0, personal_penalty=np.inf).fit(made["train"])
    right = (model.margin(made["test"], model.seen) > 0).mean()
    assert max(float(penalty) for penalty in model.details["held_out_loss"] if penalty != "inf") > 1e4
    assert right > (plain.margin(made["test"], plain.seen) > 0).mean() + 0.1


def test_two_camps_among_few_users_are_found():
    """Strong penalties are as bad as none here, and the best comes late: the search must not stop before."""
    rng = np.random.default_rng(0)
    items, users = np.eye(30), 30
    taste = 0.1 * rng.standard_normal(30)[None, :] + np.where(np.arange(users) % 2, 1, -1)[:, None] * rng.standard_normal(30)
    rows = np.array([(user, *rng.choice(30, 2, replace=False)) for user in range(users) for _ in range(25)])
    ahead = taste[rows[:, 0], rows[:, 1]] - taste[rows[:, 0], rows[:, 2]] + rng.logistic(size=len(rows)) > 0
    chosen, rejected = np.where(ahead, rows[:, 1], rows[:, 2]), np.where(ahead, rows[:, 2], rows[:, 1])
    ids = np.array([f"u{user:02d}" for user in rows[:, 0]])
    late = np.arange(len(rows)) % 25 >= 15
    unseen = rows[:, 0] >= 20
    pairs = PairFeatures.from_items(ids, items, chosen, rejected)
    model = LoRe(rank=2).fit(pairs.select(np.flatnonzero(~unseen)))
    users_of = model.infer(pairs.select(np.flatnonzero(unseen & ~late)))
    tested = pairs.select(np.flatnonzero(unseen & late))
    common = BradleyTerry().fit(pairs.select(np.flatnonzero(~unseen)))
    right = (model.margin(tested, users_of) > 0).mean()
    assert right > (common.margin(tested, common.infer(tested)) > 0).mean() + 0.1
    assert model.details["personal_penalty"] is not None
