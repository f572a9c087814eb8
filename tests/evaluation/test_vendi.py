"""palm.evaluation.vendi: the score from its definition, and the number of policies that write differently."""

import numpy as np
import pytest

from palm.evaluation.vendi import as_if_same, different_policies, feature_kernel, vendi, word_kernel


def test_score_of_known_kernels() -> None:
    assert vendi(np.ones((5, 5))) == pytest.approx(1)
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.kron(np.eye(3), np.ones((4, 4)))) == pytest.approx(3)  # three texts, four times each
    c = 0.6  # two texts with similarity c: eigenvalues (1 + c) / 2 and (1 - c) / 2
    high, low = (1 + c) / 2, (1 - c) / 2
    assert vendi(np.array([[1, c], [c, 1]])) == pytest.approx(np.exp(-high * np.log(high) - low * np.log(low)))


def test_shares_count_texts() -> None:
    """A text that counts three times is a text that is there three times."""
    kernel = word_kernel(["a b c", "c d", "e f a"])
    thrice = kernel[np.ix_([0, 0, 0, 1, 2], [0, 0, 0, 1, 2])]
    assert vendi(kernel, np.array([0.6, 0.2, 0.2])) == pytest.approx(vendi(thrice))


def test_words_are_weighed_by_how_rare_they_are() -> None:
    kernel = word_kernel(["The cat", "the cat", "the dog", "fish swim", ""])
    assert kernel[0, 1] == pytest.approx(1)
    assert 0 < kernel[0, 2] < 0.5  # they share the commonest word
    assert kernel[0, 3] == 0
    assert kernel[4].tolist() == [0, 0, 0, 0, 1]
    idf = np.log(6 / (1 + np.array([3, 2]))) + 1  # the, cat: in 3 and 2 of 5 texts
    rare = np.log(6 / 2) + 1  # dog
    assert kernel[0, 2] == pytest.approx(idf[0] ** 2 / np.hypot(*idf) / np.hypot(idf[0], rare))
    repeated = word_kernel(["a a a b", "a b"])
    a, b = (1 + np.log(3)), 1.0
    assert repeated[0, 1] == pytest.approx((a + b) / np.hypot(a, b) / np.sqrt(2))


def test_texts_that_have_nothing_in_them_are_alike() -> None:
    assert vendi(word_kernel(["", " ", ""])) == pytest.approx(1)
    assert vendi(word_kernel(["", "", "a", "a"])) == pytest.approx(2)
    assert vendi(feature_kernel(np.ones((5, 3)))) == pytest.approx(1)


def test_features_are_compared_around_their_mean() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(6, 4))
    kernel = feature_kernel(features + 100)
    np.testing.assert_allclose(kernel, feature_kernel(features), atol=1e-9)
    centred = features - features.mean(axis=0)
    assert kernel[1, 2] == pytest.approx(centred[1] @ centred[2] / np.linalg.norm(centred[1]) / np.linalg.norm(centred[2]))


def test_policies_that_differ_are_counted() -> None:
    apart = word_kernel(["a b", "c d", "e f", "g h"])
    assert different_policies(apart, np.array([0, 0, 1, 1])) == pytest.approx(2)
    alike = word_kernel(["a b", "c d", "a b", "c d"])
    assert different_policies(alike, np.array([0, 0, 1, 1])) == pytest.approx(1)
    half = word_kernel(["a b", "c d", "a b", "e f"])  # half of what each writes is its own: entropies log 3 - ... by hand
    pooled = -(0.5 * np.log(0.5) + 2 * 0.25 * np.log(0.25))
    assert different_policies(half, np.array([0, 0, 1, 1])) == pytest.approx(np.exp(pooled - np.log(2)))


def test_policies_count_equally_however_much_they_write() -> None:
    few = word_kernel(["a b", "c d"])
    many = word_kernel(["a b", "a b", "a b", "c d"])
    assert different_policies(many, np.array([0, 0, 0, 1])) == pytest.approx(different_policies(few, np.array([0, 1])))


def test_dealing_at_random_says_what_chance_gives() -> None:
    """Equal policies lie within what dealing gives, different ones above; texts stay with their prompt."""
    rng = np.random.default_rng(0)

    def texts(words: np.ndarray) -> list[str]:
        return [" ".join(rng.choice(words, size=6)) for _ in range(30)]

    same, other = np.arange(40).astype(str), np.arange(30, 70).astype(str)
    policy, prompt = np.repeat([0, 1], 30), np.tile(np.repeat(np.arange(10), 3), 2)
    alike, unlike = word_kernel(texts(same) + texts(same)), word_kernel(texts(same) + texts(other))
    assert different_policies(alike, policy) < as_if_same(alike, policy, prompt, draws=40).max()
    assert different_policies(unlike, policy) > as_if_same(unlike, policy, prompt, draws=40).max() + 0.05
    alone = as_if_same(unlike, policy, np.arange(60), draws=3)  # one text a prompt: nothing can be dealt
    np.testing.assert_allclose(alone, different_policies(unlike, policy))


@pytest.mark.parametrize(
    ("kernel", "share", "message"),
    [
        (np.ones((2, 3)), None, r"kernel: expected finite numbers in the shape \(n, n\)"),
        (np.zeros((0, 0)), None, "n at least 1"),
        (np.full((2, 2), np.nan), None, "kernel: expected finite numbers"),
        (2 * np.eye(2), None, "kernel: expected 1 on the diagonal, got 2 to 2"),
        (np.array([[1, 0.5], [0.2, 1]]), None, "kernel: expected a symmetric one"),
        (np.eye(2), np.array([0.5, 0.4]), "share: expected 2 numbers of at least 0 that sum to 1"),
        (np.eye(2), np.ones(3) / 3, "share: expected 2 numbers"),
    ],
)
def test_what_is_no_kernel(kernel: np.ndarray, share: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vendi(kernel, share)


def test_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="texts: expected at least one, got none"):
        word_kernel([])
    with pytest.raises(ValueError, match=r"features: expected finite numbers in the shape \(n, d\)"):
        feature_kernel(np.array([[np.inf]]))
