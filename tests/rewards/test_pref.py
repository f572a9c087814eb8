"""palm.rewards.pref: unconstrained users of shared bases are recovered, and can feed a portfolio."""

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from scipy.sparse import coo_array, csr_array

from palm.features.pairs import PairFeatures
from palm.rewards import PReF
from palm.rewards.pref import _complete
from palm.rewards.users import UserWeights


def accuracy(model, pairs, users):
    return float((model.margin(pairs, users) > 0).mean())


@pytest.fixture(scope="module")
def unconstrained():
    """Users who want or want the opposite of each of two things: no weights on a simplex over two rewards do."""
    rng = np.random.default_rng(0)
    directions = 3 * np.linalg.qr(rng.normal(size=(12, 2)))[0]
    vectors = rng.choice([-1.0, 1.0], size=(150, 2)) * rng.uniform(0.5, 1.5, size=(150, 2))
    items = rng.standard_normal((800, 12)).astype(np.float32)
    user = np.repeat(np.arange(150), 40)
    first = rng.integers(800, size=len(user))
    second = (first + rng.integers(1, 800, size=len(user))) % 800
    logit = np.einsum("nk,nk->n", (items[first] - items[second]) @ directions, vectors[user])
    wins = rng.random(len(user)) < 1 / (1 + np.exp(-logit))
    pairs = PairFeatures.from_items(
        [f"u{n:03d}" for n in user], items, np.where(wins, first, second), np.where(wins, second, first), group=first.astype(str)
    )
    late = np.tile(np.arange(40) >= 20, 150)
    return directions, pairs.select(user < 100), pairs.select((user >= 100) & ~late), pairs.select((user >= 100) & late)


@pytest.fixture(scope="module")
def fitted(unconstrained):
    return PReF(rank=2).fit(unconstrained[1])


def test_the_planted_subspace_is_recovered(unconstrained, fitted):
    assert np.rad2deg(subspace_angles(fitted.directions, unconstrained[0]).max()) < 15


def test_opposite_users_are_served_where_one_reward_serves_nobody(unconstrained, fitted):
    _, _, context, test = unconstrained
    assert accuracy(fitted, test, fitted.infer(context)) > 0.8
    nobody = fitted.infer(context.select(np.array([], dtype=int)), ids=context.ids)
    assert accuracy(fitted, test, nobody) == pytest.approx(0.5, abs=0.06)


def test_conflicting_simplex_users_are_predicted_too(conflicting):
    model = PReF(rank=2).fit(conflicting.seen)
    users = model.infer(conflicting.unseen_context)
    truth = float((conflicting.logits(conflicting.unseen_test) > 0).mean())
    assert accuracy(model, conflicting.unseen_test, users) > truth - 0.04


def test_without_a_population_users_without_pairs_want_nothing(unconstrained):
    model = PReF(rank=2, penalty=30.0, population=False).fit(unconstrained[1])
    np.testing.assert_array_equal(model.population.mean, [0, 0])
    np.testing.assert_array_equal(model.population.covariance, np.eye(2))


def test_vectors_become_weights_over_bases_and_their_opposites(unconstrained, fitted):
    pairs, users = unconstrained[1], fitted.users
    weights, sharpness = fitted.simplex_weights(users)
    assert weights.shape == (100, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert weights.min() >= 0
    basis = fitted.simplex_basis(pairs.items)
    inside = (basis > 0).all(axis=1) & (basis < 1).all(axis=1)  # where nothing is clipped
    kept = np.flatnonzero(inside[pairs.chosen_row] & inside[pairs.rejected_row])
    rows = users.rows(pairs.user[kept])
    difference = pairs.difference(basis)[kept]
    margin = sharpness[rows] * np.einsum("nk,nk->n", difference, weights[rows])
    np.testing.assert_allclose(margin, fitted.margin(pairs.select(kept), users), atol=1e-6)


def test_a_vector_of_zero_becomes_an_even_weight(fitted):
    zero = UserWeights(np.array(["a"]), np.zeros((1, 2)), np.zeros((1, 2, 2)), "linear")
    weights, sharpness = fitted.simplex_weights(zero)
    np.testing.assert_array_equal(weights, [[0.25] * 4])
    np.testing.assert_array_equal(sharpness, [0])


def test_a_matrix_of_low_rank_is_completed():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 40))
    seen = csr_array(np.where(rng.random(truth.shape) < 0.7, truth, 0.0))
    left, right = _complete(seen, 2, 200, rng)
    np.testing.assert_allclose(left @ right.T, truth, atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=0))  # the root of S on either side


def test_a_judgement_both_ways_is_not_a_missing_one():
    """All others say 1: a missing cell is filled in by their fit, one that is known to be 0 pulls it down."""
    rows, columns = (part.ravel() for part in np.indices((5, 4)))
    values = np.where((rows == 0) & (columns == 0), 0.0, 1.0)
    torn = coo_array((values, (rows, columns)), shape=(5, 4)).tocsr()
    missing = csr_array(torn.toarray())
    assert (torn.nnz, missing.nnz) == (20, 19)
    filled = [
        np.matmul(left, right.T)[0, 0]
        for left, right in (_complete(cells, 1, 100, np.random.default_rng(0)) for cells in (torn, missing))
    ]
    best = np.linalg.svd(torn.toarray())
    np.testing.assert_allclose(filled, [best[1][0] * best[0][0, 0] * best[2][0, 0], 1], atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (1, 5), (3, 4)])
def test_more_bases_than_pairs_or_users_are_zero(shape):
    seen = csr_array(np.full(shape, 0.5))
    left, right = _complete(seen, 6, 10, np.random.default_rng(0))
    assert left.shape == (shape[0], 6)
    assert right.shape == (shape[1], 6)
    np.testing.assert_allclose(left @ right.T, 0.5, atol=1e-9)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank: expected a whole number of at least 1, got 0"),
        ({"rank": 2.0}, r"rank: expected a whole number of at least 1, got 2\.0"),
        ({"penalty": 0.0}, r"penalty: expected a positive number or None, got 0\.0"),
        ({"user_penalty": -1.0}, r"user_penalty: expected a positive number, got -1\.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        PReF(**parameters).fit(small.seen)


def test_weights_off_the_simplex_are_for_other_geometries_only():
    ids, covariance = np.array(["a"]), np.zeros((1, 2, 2))
    with pytest.raises(ValueError, match="mean"):
        UserWeights(ids, np.array([[2.0, -1.0]]), covariance)
    assert UserWeights(ids, np.array([[2.0, -1.0]]), covariance, "linear").mean[0, 0] == 2
    with pytest.raises(ValueError, match="mean: expected finite numbers"):
        UserWeights(ids, np.array([[np.nan, -1.0]]), covariance, "linear")


def test_the_same_seed_gives_the_same_model_where_users_have_as_many_pairs_and_share_no_texts():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(30), 5).astype(str)
    pairs = PairFeatures(user, rng.normal(size=(150, 6)), rng.normal(size=(150, 6)))
    first, second = (PReF(rank=4, penalty=30.0).fit(pairs, seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.directions, second.directions)
    np.testing.assert_array_equal(first.users.mean, second.users.mean)
