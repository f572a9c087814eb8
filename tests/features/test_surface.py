"""palm.features.surface: texts as words, and what only their form tells."""

import sys

import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.features.surface import format_features, length_features, tfidf_features
from palm.rewards import BradleyTerry

TEXTS = [("p", f"{animal} {verb} {number}") for number in range(6) for animal in ("cats", "dogs") for verb in ("sleep", "run")]


def test_texts_about_the_same_lie_together():
    features = tfidf_features(TEXTS, dim=8)
    assert features.shape == (24, 8)
    assert features.dtype == np.float32
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = unit @ unit.T
    cats = np.array(["cats" in text for _, text in TEXTS])
    same = cats[:, None] == cats[None]
    assert alike[same].mean() > alike[~same].mean() + 0.2
    np.testing.assert_array_equal(tfidf_features(TEXTS, dim=8), features)


def test_only_the_response_counts_and_messages_are_read_as_text():
    one = tfidf_features(TEXTS, dim=4)
    other = tfidf_features([("another prompt", [{"role": "assistant", "content": text}]) for _, text in TEXTS], dim=4)
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("texts", [[("p", "a"), ("p", "b")], [("p", "same")] * 3])
def test_little_text_gives_little(texts):
    features = tfidf_features(texts, dim=50)
    assert features.shape[0] == len(texts)
    assert np.isfinite(features).all()


def test_one_text_and_a_missing_library_are_said(monkeypatch):
    with pytest.raises(ValueError, match="texts: expected at least two, got 1"):
        tfidf_features(TEXTS[:1])
    monkeypatch.setitem(sys.modules, "sklearn.decomposition", None)
    with pytest.raises(ImportError, match=r"TF-IDF features need scikit-learn: pip install 'palm-align\[text\]'"):
        tfidf_features(TEXTS)


def test_lengths_are_counted():
    np.testing.assert_allclose(np.expm1(length_features([("p", "two words"), ("p", "a\nb\n")])), [[9, 2, 1], [4, 2, 3]], rtol=1e-5)
    assert length_features([]).shape == (0, 3)


def test_a_label_that_the_form_tells_is_found_and_one_that_it_does_not_tell_is_not():
    """The published mistake: chosen as text, rejected as a list of messages."""
    words = np.random.default_rng(0).choice(["alpha", "beta", "gamma", "delta"], size=(200, 5))
    plain = [" ".join(row) for row in words]
    sides = {
        "leaking": (
            [("p", text) for text in plain[:100]],
            [("p", [{"role": "assistant", "content": text}]) for text in plain[100:]],
        ),
        "fair": ([("p", text) for text in plain[:100]], [("p", text) for text in plain[100:]]),
    }
    found = {}
    for name, (chosen, rejected) in sides.items():
        pairs = PairFeatures(["u"] * 100, format_features(chosen), format_features(rejected))
        train, test = pairs.select(np.arange(50)), pairs.select(np.arange(50, 100))
        model = BradleyTerry(penalty=1.0).fit(train)
        margin = model.margin(test, model.infer(test))
        found[name] = ((margin > 0) + 0.5 * (margin == 0)).mean()
    assert found["leaking"] == 1
    assert found["fair"] == pytest.approx(0.5, abs=0.15)
