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


MARKS = [("p", "!!!"), ("p", "???"), ("p", "!!! ...")]
DIFFERENT = [("p", "alpha"), ("p", "beta"), ("p", "gamma")]


@pytest.mark.parametrize(
    ("texts", "alike"),
    [
        ([("p", "a"), ("p", "b")], [[1, 0], [0, 1]]),
        ([("p", "same")] * 3, np.ones((3, 3))),
        (DIFFERENT, np.eye(3)),
        (MARKS, [[1, 0, 1], [0, 0, 0], [1, 0, 1]]),
        ([*MARKS[:2], ("p", "alpha")], np.eye(3)),
        ([("p", "one word"), ("p", "one word"), ("p", " ")], [[1, 1, 0], [1, 1, 0], [0, 0, 0]]),
    ],
)
def test_with_fewer_texts_than_numbers_lengths_are_1_and_angles_are_kept(texts, alike):
    """Nothing is reduced: what is the same lies together, what has nothing in common at right angles, what has nothing at 0."""
    features = tfidf_features(texts, dim=50)
    assert features.shape[0] == len(texts)
    np.testing.assert_allclose(features @ features.T, alike, atol=1e-6)


def test_the_weights_are_those_of_scikit_learn_with_both_parts_alike_in_length():
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = [text for _, text in TEXTS]
    words = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b").fit_transform(plain)
    characters = TfidfVectorizer(sublinear_tf=True, min_df=3, analyzer="char_wb", ngram_range=(3, 4)).fit_transform(plain)
    features = tfidf_features(TEXTS, dim=1000)
    expected = (words @ words.T + characters @ characters.T).toarray() / 2
    np.testing.assert_allclose(features @ features.T, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (TEXTS, {"dim": 0}, "dim: expected at least 1, got 0"),
        (TEXTS, {"dim": -2}, "dim: expected at least 1, got -2"),
        ([("p", " "), ("p", "\n")], {}, "texts: expected words or other characters in some response, got none in 2"),
    ],
)
def test_nothing_to_read_and_nothing_to_keep_are_said(texts, options, message):
    with pytest.raises(ValueError, match=message):
        tfidf_features(texts, **options)


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
