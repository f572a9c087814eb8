import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.rewards.logistic import Standardised, fit_directions, fit_population, log_loss


@pytest.fixture
def data(small):
    return Standardised.of(small.seen)


def test_columns_are_read_with_unit_variance(small, data):
    items = small.seen.items.rows(np.arange(len(small.seen.items)))
    np.testing.assert_allclose(data.scale, items.std(axis=0), rtol=1e-5)
    directions = np.random.default_rng(0).normal(size=(4, 3))
    expected = ((small.seen.chosen - small.seen.rejected) / items.std(axis=0)) @ directions
    np.testing.assert_allclose(data.scores(directions), expected, rtol=1e-3, atol=1e-4)


def test_constant_columns_are_taken_out():
    items = np.column_stack([np.arange(6.0), np.full(6, 4.0), 4e3 + 1e-3 * np.arange(6), 1e-9 * np.arange(6), np.arange(6.0) ** 2])
    pairs = PairFeatures.from_items(["a"] * 3, items, np.array([0, 1, 2]), np.array([3, 4, 5]))
    data = Standardised.of(pairs)
    assert np.isinf(data.scale).tolist() == [False, True, True, True, False]
    first = np.eye(5)[:, :1]
    np.testing.assert_allclose(data.scores(first)[:, 0], -3 / np.arange(6).std(), rtol=1e-5)
    np.testing.assert_array_equal(data.scores(np.eye(5)[:, 1:4]), 0)


def test_one_outlier_takes_no_other_column_out():
    """A column is constant beside its own mean or what is usual, not beside the largest one."""
    rng = np.random.default_rng(4)
    items = rng.normal(size=(50, 4)) * [1.0, 1.0, 1.0, 1e-3] + [0.0, 0.0, 1e5, 7.0]
    items[3, 0], items[:, 2] = 1e20, 1e5
    data = Standardised.of(PairFeatures.from_items(["a"] * 25, items, np.arange(25), np.arange(25, 50)))
    assert np.isinf(data.scale).tolist() == [False, False, True, False]
    assert np.isfinite(data.scores(np.ones((4, 1)))).all()


def test_features_too_small_to_divide_by_are_constant():
    items = np.random.default_rng(5).normal(size=(50, 2)) * 1e-39
    data = Standardised.of(PairFeatures.from_items(["a"] * 25, items, np.arange(25), np.arange(25, 50)))
    assert np.isinf(data.scale).all()
    np.testing.assert_array_equal(data.scores(np.ones((2, 1))), 0)


def test_the_gradient_is_the_transpose_of_the_scores(data):
    rng = np.random.default_rng(1)
    directions, per_pair = rng.normal(size=(4, 2)), rng.normal(size=(len(data.pairs), 2))
    assert (data.scores(directions) * per_pair).sum() == pytest.approx((directions * data.gradient(per_pair)).sum(), rel=1e-4)


@pytest.mark.parametrize("repeats", [1, 40], ids=["pair by pair", "every user's reward of every text"])
def test_fitted_directions_cannot_be_improved_in_any_direction(small, repeats):
    """The objective of the docstring, written down plainly, has no lower value nearby (it is convex, so none anywhere)."""
    rng = np.random.default_rng(2)
    data = Standardised.of(small.seen.select(np.tile(np.arange(len(small.seen)), repeats)))
    weights = rng.dirichlet(np.ones(2), size=len(data.pairs.ids))
    centre = rng.normal(size=4)
    difference = (data.pairs.chosen - data.pairs.rejected) / data.scale

    def objective(v):
        margin = (difference @ v * weights[data.pairs.code]).sum(axis=1)
        return log_loss(margin).sum() + 0.5 * 2.0 * ((v - centre[:, None]) ** 2).sum()

    found, loss = fit_directions(data, weights, np.zeros((4, 2)), penalty=2.0, centre=centre, steps=500, tolerance=1e-12)
    assert loss == pytest.approx(log_loss((difference @ found * weights[data.pairs.code]).sum(axis=1)).sum(), rel=1e-5)
    for _ in range(50):
        step = rng.normal(size=(4, 2))
        assert objective(found) <= objective(found + 1e-2 * step / np.linalg.norm(step))


def test_a_warm_start_ends_where_a_cold_one_does(data):
    cold = fit_population(data, 1.0)
    np.testing.assert_allclose(fit_population(data, 1.0, cold + 0.5), cold, atol=2e-3)


def test_log_loss_does_not_overflow():
    np.testing.assert_allclose(log_loss(np.array([-1e4, -1.0, 0.0, 1e4])), [1e4, np.log1p(np.e), np.log(2), 0])
