import numpy as np
import pytest

from palm.evaluation import accuracy, compare
from palm.features.pairs import PairFeatures
from palm.rewards import Calibration, PopulationModel, SimplexModel, UserWeights
from palm.rewards.simplex_users import Population


@pytest.fixture
def model():
    """Two bases that are the features themselves, in logits."""
    nobody = UserWeights(np.zeros(0), np.zeros((0, 2)), np.zeros((0, 2, 2)))
    calibration = Calibration(np.zeros(2), np.ones(2))
    return SimplexModel("Made", np.eye(2), calibration, 1.0, Population.flat(2), nobody, ("a", "b"), {})


@pytest.fixture
def users():
    return UserWeights(np.array(["ann", "bob", "cat"]), np.array([[1.0, 0], [0, 1], [0.5, 0.5]]), np.zeros((3, 2, 2)))


@pytest.fixture
def held_out():
    """Margins by user: ann 2, -1, 0 (a tie), 3; bob 1."""
    difference = np.array([[2, -5], [-1, 9], [0, 4], [-7, 1], [3, 0.0]])
    return PairFeatures(["ann", "ann", "ann", "bob", "ann"], difference, np.zeros((5, 2)))


def test_users_count_once_and_ties_half(model, users, held_out):
    found = accuracy(model, held_out, users)
    assert found.ids.tolist() == ["ann", "bob"]
    np.testing.assert_allclose(found.per_user, [2.5 / 4, 1.0])
    assert found.overall.mean == pytest.approx((2.5 / 4 + 1) / 2)
    surprise = np.log1p(np.exp(-np.array([2.0, -1, 0, 3]))).mean(), np.log1p(np.exp(-1.0))
    assert found.loss.mean == pytest.approx(np.mean(surprise))
    assert (found.overall.count, found.pairs) == (2, 5)
    assert found.record()["users"] == 2


def test_a_coin_is_right_half_the_time(users):
    coin = PopulationModel("Coin", np.zeros(2), Calibration(np.zeros(1), np.ones(1)), {})
    pairs = PairFeatures(["ann", "bob"], np.ones((2, 2)), np.zeros((2, 2)))
    found = accuracy(coin, pairs, users)
    assert found.overall.mean == 0.5
    assert found.loss.mean == pytest.approx(np.log(2))


def test_comparisons_are_paired_by_user(model, held_out, users):
    first = accuracy(model, held_out, users)
    swapped = UserWeights(users.ids, users.mean[:, ::-1], users.covariance)
    second = accuracy(model, held_out, swapped)
    gain = compare(first, second)
    assert gain.mean == pytest.approx((first.per_user - second.per_user).mean())
    assert compare(first, first).high == 0


def test_what_cannot_be_compared_is_refused(model, held_out, users):
    first = accuracy(model, held_out, users)
    second = accuracy(model, held_out.select(held_out.user == "ann"), users)
    with pytest.raises(ValueError, match="first, second: expected accuracies of the same users, got 2 and 1, of which 1 in both"):
        compare(first, second)


def test_no_pairs_and_unknown_users_are_refused(model, held_out, users):
    with pytest.raises(ValueError, match="features: expected at least one held-out pair, got none"):
        accuracy(model, held_out.select(np.array([], dtype=int)), users)
    with pytest.raises(ValueError, match="users: no weight for user 'bob'"):
        accuracy(model, held_out, users.select(np.array(["ann", "cat"])))
