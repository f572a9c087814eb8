import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.features.store import FeatureArray


@pytest.fixture
def pairs():
    """Five pairs of three users over six texts; two texts are shared."""
    items = np.arange(18, dtype=np.float32).reshape(6, 3) ** 2
    return PairFeatures.from_items(
        ["b", "a", "b", "ß-用户", "a"],
        items,
        np.array([0, 1, 0, 5, 4]),
        np.array([1, 2, 3, 0, 3]),
        group=["g1", "g1", "g2", "g3", "g3"],
        scores=np.linspace(-1, 1, 6),
    )


def test_both_sides_come_back_as_they_were_given():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(4, 3)).astype(np.float32)
    pairs = PairFeatures(user=["u"] * 4, chosen=chosen, rejected=rejected, chosen_score=np.arange(4), rejected_score=-np.arange(4))
    np.testing.assert_array_equal(pairs.chosen, chosen)
    np.testing.assert_array_equal(pairs.rejected, rejected)
    np.testing.assert_array_equal(pairs.difference(pairs.scores[:, None])[:, 0], 2 * np.arange(4))
    assert (len(pairs), pairs.width, len(pairs.items)) == (4, 3, 8)


def test_users_are_counted_once_and_coded_in_sorted_order(pairs):
    assert pairs.ids.tolist() == ["a", "b", "ß-用户"]
    np.testing.assert_array_equal(pairs.ids[pairs.code], pairs.user)
    with pytest.raises(ValueError, match="read-only"):
        pairs.code[0] = 3


def test_ids_are_opaque_strings():
    ids = ["e\u0301", "\u00e9", " a", "a", "A", "🙂" * 40, "7", "\u200dzero"]  # equal to look at is not equal
    pairs = PairFeatures(ids, np.ones((8, 1)), np.zeros((8, 1)))
    assert pairs.user.tolist() == ids
    assert len(pairs.ids) == 8
    numbered = PairFeatures(np.array([10, 9]), np.ones((2, 1)), np.zeros((2, 1)))
    assert numbered.user.tolist() == ["10", "9"]


def test_some_pairs_keep_everything_that_is_theirs(pairs):
    for rows, kept in ((np.array([3, 1]), [3, 1]), (pairs.user == "a", [1, 4]), (np.array([], dtype=int), [])):
        part = pairs.select(rows)
        assert part.user.tolist() == pairs.user[kept].tolist()
        assert part.group.tolist() == pairs.group[kept].tolist()
        np.testing.assert_array_equal(part.chosen, pairs.chosen[kept])
        np.testing.assert_array_equal(part.rejected, pairs.rejected[kept])
        assert part.items is pairs.items
        assert part.scores is pairs.scores


def test_difference_takes_rejected_from_chosen(pairs):
    per_text = np.random.default_rng(0).normal(size=(6, 2))
    expected = [per_text[c] - per_text[r] for c, r in zip([0, 1, 0, 5, 4], [1, 2, 3, 0, 3], strict=True)]
    np.testing.assert_array_equal(pairs.difference(per_text), expected)


def test_no_pairs_are_possible():
    none = PairFeatures([], np.zeros((0, 3)), np.zeros((0, 3)))
    assert (len(none), none.ids.tolist(), none.chosen.shape) == (0, [], (0, 3))
    assert len(PairFeatures.from_items([], np.zeros((0, 3)), [], [])) == 0


def test_row_numbers_may_be_a_list_and_features_as_large_as_float32_is():
    largest = float(np.finfo(np.float32).max)
    items = np.array([[largest], [-largest]])
    np.testing.assert_array_equal(PairFeatures.from_items(["a"], items, [0], [1]).chosen, [[largest]])
    np.testing.assert_array_equal(PairFeatures(["a"], items[:1], items[1:]).rejected, [[-largest]])


X = np.ones((2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chosen": np.array([[1.0, 2, 3], [1, np.nan, 0]])}, "chosen: expected finite features, row 1 has others"),
        ({"rejected": np.array([[1.0, np.inf, 3], [1, 0, 0]])}, "rejected: expected finite features, row 0 has others"),
        ({"chosen": np.ones((3, 3))}, r"chosen: expected the shape \(2, d\) for 2 pairs, got \(3, 3\)"),
        ({"rejected": np.ones(2)}, r"rejected: expected the shape \(2, d\) for 2 pairs, got \(2,\)"),
        ({"chosen": np.zeros((2, 0))}, r"chosen: expected the shape \(2, d\) for 2 pairs, got \(2, 0\)"),
        ({"rejected": np.ones((2, 4))}, r"rejected: expected the shape \(2, 3\) of chosen, got \(2, 4\)"),
        ({"chosen": np.full((2, 3), "x")}, "chosen: expected real numbers, got dtype <U1"),
        ({"chosen": np.full((2, 3), None)}, "chosen: expected real numbers, got dtype object"),
        ({"chosen": np.full((2, 3), 1 + 5j)}, "chosen: expected real numbers, got dtype complex128"),
        (
            {"rejected": np.array([[0, 0, 0], [0, -1e39, 0]])},
            r"rejected: expected features within float32's range, 3\.4e38 either way, row 1 has others",
        ),
        ({"group": ["g"]}, "group: expected 2 ids, got 1"),
        ({"group": "gh"}, "group: expected a list or array of ids, got the text 'gh'"),
        ({"user": "ab"}, "user: expected a list or array of ids, got the text 'ab'"),
        ({"user": ["a", None]}, "user: expected ids, got None at position 1"),
        ({"user": np.array([np.nan, 1.0])}, "user: expected ids, got nan at position 0"),
        ({"user": ["a", "a\0"]}, r"user: expected ids without NUL characters, got 'a\\x00' at position 1"),
        ({"user": [["a"], ["b"]]}, r"user: expected a list or array of ids, got the shape \(2, 1\)"),
        ({"chosen_score": np.ones(2)}, "chosen_score, rejected_score: expected both or neither, got one"),
        (
            {"chosen_score": np.ones(3), "rejected_score": np.ones(1)},
            r"chosen_score: expected one score per pair, 2 .* got .*\(3,\)",
        ),
        ({"chosen_score": np.ones(2), "rejected_score": np.ones(1)}, r"rejected_score: expected one score per pair, 2 .*\(1,\)"),
        (
            {"chosen_score": np.ones(2), "rejected_score": np.array([0, np.nan])},
            "scores: expected finite numbers, text 3 has another",
        ),
    ],
)
def test_bad_pairs_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairFeatures(**{"user": ["a", "b"], "chosen": X, "rejected": X, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chosen": np.array([0, 2])}, "chosen: expected row numbers from 0 to 1, got 0 to 2"),
        ({"rejected": np.array([-1, 0])}, "rejected: expected row numbers from 0 to 1, got -1 to 0"),
        ({"rejected": np.array([0])}, "rejected: expected 2 row numbers, got 1"),
        ({"chosen": [0.9, 1.0]}, "chosen: expected whole row numbers, got dtype float64"),
        ({"user": "ab"}, "user: expected a list or array of ids, got the text 'ab'"),
        ({"items": np.full((2, 3), 1j)}, "features: expected real numbers, got complex128"),
        ({"scores": np.ones(3)}, r"scores: expected one per text, 2 of them, got the shape \(3,\)"),
        ({"items": np.ones(3)}, r"features: expected parts of the shape \(n, d\) with equal d, got \[\(3,\)\]"),
    ],
)
def test_bad_row_numbers_are_refused_by_name(arguments, message):
    given = {"user": ["a", "b"], "items": X, "chosen": np.array([0, 1]), "rejected": np.array([1, 0]), **arguments}
    with pytest.raises(ValueError, match=message):
        PairFeatures.from_items(**given)


def test_features_in_several_parts_are_pairs_too():
    parts = FeatureArray([np.zeros((2, 3)), np.ones((1, 3))])
    pairs = PairFeatures.from_items(["a"], parts, np.array([2]), np.array([1]))
    np.testing.assert_array_equal(pairs.chosen - pairs.rejected, np.ones((1, 3)))
