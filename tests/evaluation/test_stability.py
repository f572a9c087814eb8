"""palm.evaluation.stability: angles between what fits span, whatever their bases are."""

import numpy as np
import pytest

from palm.evaluation.stability import angles_between, same_texts, spanned
from palm.features.store import FeatureArray
from palm.rewards import BradleyTerry, LoRe


@pytest.fixture(scope="module")
def texts():
    return FeatureArray([np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)])


def test_a_span_is_that_of_the_rewards_and_not_of_the_bases(conflicting):
    model, items = LoRe(rank=2).fit(conflicting.seen), conflicting.seen.items
    span = spanned(model, items)
    assert span.shape == (len(items), 2)
    mixed = model.raw(items) @ np.array([[2.0, 1.0], [1.0, 1.0]]) + np.array([3.0, -1.0])  # other bases of it, and constants
    centred = mixed - mixed.mean(axis=0)
    np.testing.assert_allclose(span @ (span.T @ centred), centred, atol=1e-9 * np.abs(centred).max())
    assert spanned(BradleyTerry().fit(conflicting.seen), items) is None


def test_bases_that_agree_span_one_dimension(conflicting):
    alike = LoRe(rank=3, personal_penalty=float("inf")).fit(conflicting.seen)
    assert spanned(alike, conflicting.seen.items).shape[1] == 1


def test_angles_are_those_of_every_two_seeds(texts):
    eye = np.eye(50)
    spans = [eye[:, :2], eye[:, :2] @ np.array([[0.6, 0.8], [-0.8, 0.6]]), eye[:, 1:3], eye[:, :0]]
    found = angles_between(spans, [7, 8, 9, 10])
    assert [pair["seeds"] for pair in found] == [[7, 8], [7, 9], [7, 10], [8, 9], [8, 10], [9, 10]]
    assert found[0]["degrees"] == pytest.approx([0, 0], abs=1e-5)
    assert found[1]["degrees"] == pytest.approx([90, 0], abs=1e-5)
    assert found[2]["degrees"] == []


def test_texts_are_the_same_number_by_number(texts):
    rows = texts.rows(np.arange(50))
    assert same_texts(texts, FeatureArray([rows[:20], rows[20:]]))
    changed = rows.copy()
    changed[-1, -1] += 1
    assert not same_texts(texts, FeatureArray([changed]))
    assert not same_texts(texts, FeatureArray([rows[:-1]]))
