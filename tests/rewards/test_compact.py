import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.rewards.compact import Compact
from palm.rewards.logistic import Standardised, column_scales


def _pairs(texts, pairs=40, width=6):
    """Judgements among few texts, or with two texts each; one column is constant, one far from 0."""
    rng = np.random.default_rng(texts)
    items = rng.normal(size=(texts, width)) * np.array([1, 1e-2, 50, 1, 0, 1]) + np.array([0, 0, 0, 300, 2, 0])
    first = rng.integers(texts, size=pairs) if texts < 2 * pairs else rng.permutation(texts)[:pairs]
    second = (first + rng.integers(1, texts, size=pairs)) % texts
    user = [f"u{n % 5}" for n in range(pairs)]
    return PairFeatures.from_items(user, items.astype(np.float32), first, second)


@pytest.mark.parametrize(("texts", "rows"), [(12, 12), (200, 40)])
def test_scores_and_gradient_are_those_of_the_features_themselves(texts, rows):
    pairs = _pairs(texts)
    data = Standardised.of(pairs)
    assert data.compact.matrix.shape == (rows, 6)
    assert data.compact.matrix.dtype == np.float32
    plain = Standardised(pairs, data.scale)  # nothing in memory
    rng = np.random.default_rng(1)
    directions, per_pair = rng.normal(size=(6, 3)), rng.normal(size=(40, 3))
    np.testing.assert_allclose(data.scores(directions), plain.scores(directions), atol=2e-3)
    np.testing.assert_allclose(data.gradient(per_pair), plain.gradient(per_pair), atol=2e-3)
    exact = (pairs.chosen.astype(np.float64) - pairs.rejected) / data.scale
    np.testing.assert_allclose(data.scores(directions), exact @ directions, atol=1e-4)
    np.testing.assert_allclose(data.gradient(per_pair), exact.T @ per_pair, atol=1e-4)
    assert (data.gradient(per_pair)[4] == 0).all()  # the constant column


@pytest.mark.parametrize("texts", [12, 200])
def test_some_of_the_pairs_are_read_from_the_same_matrix(texts):
    data = Standardised.of(_pairs(texts))
    rng = np.random.default_rng(2)
    rows = np.array([3, 7, 3, 39])  # one of them twice
    some = data.select(rows)
    assert some.compact.matrix is data.compact.matrix
    directions, per_pair = rng.normal(size=(6, 2)), rng.normal(size=(4, 2))
    np.testing.assert_array_equal(some.scores(directions), data.scores(directions)[rows])
    spread = np.zeros((40, 2))
    np.add.at(spread, rows, per_pair)
    np.testing.assert_allclose(some.gradient(per_pair), data.gradient(spread), atol=1e-5)


def test_what_is_too_large_stays_on_disk():
    pairs = _pairs(200)
    mean, scale = column_scales(pairs)
    needed = 40 * 6 * 4  # one row per pair, of six float32
    assert Compact.of(pairs, mean, scale, largest=needed) is not None
    assert Compact.of(pairs, mean, scale, largest=needed - 1) is None
