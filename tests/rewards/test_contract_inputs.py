"""What every method in METHODS makes of little, odd or bad pairs: a correct model, or an error that names what is wrong."""

import numpy as np
import pytest
from quick_methods import estimator

from palm.features.pairs import PairFeatures
from palm.rewards import METHODS

LEARNING = sorted(set(METHODS) - {"Reference"})  # Reference fits nothing and looks at no features
AMORTISED = {"VPL", "VRF"}  # an encoder reads something even in pairs that tell nothing
BASES = {"LoRe": "rank", "PReF": "rank", "VRF": "rank", "PAL": "prototypes", "VPL": "latent"}  # the option that says how many
VARIANTS = [
    *((method, {}) for method in sorted(METHODS)),
    ("LoRe", {"preset": "joint", "steps": 200}),
    ("LoRe", {"preset": "anchored", "steps": 200}),
    ("PAL", {"variant": "B"}),
]
methods = pytest.mark.parametrize("method", sorted(METHODS))
learning = pytest.mark.parametrize("method", LEARNING)
variants = pytest.mark.parametrize(
    ("method", "options"),
    VARIANTS,
    ids=lambda part: part if isinstance(part, str) else "".join(map(str, part.values())) or "default",
)

NOTHING, AGREES = "nothing to learn", "agrees with the pairs"


def pairs_of(small, **changes):
    """The small world's pairs with other `items`, `chosen` or `rejected` rows, or `scores`."""
    seen = small.seen
    parts = {"items": seen.items, "chosen": seen.chosen_row, "rejected": seen.rejected_row, "scores": seen.scores}
    return PairFeatures.from_items(seen.user, **{**parts, **changes})


def contradictory(small):
    """Every pair twice by the same user, either way round."""
    seen = small.seen
    return PairFeatures.from_items(
        np.concatenate([seen.user, seen.user]),
        seen.items,
        np.concatenate([seen.chosen_row, seen.rejected_row]),
        np.concatenate([seen.rejected_row, seen.chosen_row]),
        scores=seen.scores,
    )


ODD = {
    "one pair": (lambda small: small.seen.select(np.array([0])), AGREES),
    "one user": (lambda small: small.seen.select(small.seen.user == small.seen.ids[0]), AGREES),
    "one pair each": (lambda small: small.seen.select(np.unique(small.seen.user, return_index=True)[1]), AGREES),
    "a third compare a response with itself": (
        lambda small: pairs_of(
            small, rejected=np.where(np.arange(len(small.seen)) % 3, small.seen.rejected_row, small.seen.chosen_row)
        ),
        AGREES,
    ),
    "all compare a response with itself": (lambda small: pairs_of(small, rejected=small.seen.chosen_row), NOTHING),
    "all responses alike": (lambda small: pairs_of(small, items=np.ones((60, 4)), scores=np.ones(60)), NOTHING),
    "contradictory": (contradictory, NOTHING),
}


@pytest.mark.parametrize("case", ODD)
@variants
def test_little_and_odd_pairs_give_a_model_all_the_same(method, options, case, small):
    """Finite, agreeing with what there is to agree with, and hardly believing anything where pairs tell nothing."""
    make, expected = ODD[case]
    pairs = make(small)
    model = estimator(method, **options).fit(pairs)
    users = model.infer(pairs)
    margin = model.margin(pairs, users)
    assert np.isfinite(margin).all()
    assert np.isfinite(users.covariance).all()
    nobody = model.infer(pairs.select(np.array([], dtype=int)), ids=pairs.ids)
    assert np.isfinite(model.margin(pairs, nobody)).all()
    same = pairs.chosen_row == pairs.rejected_row
    np.testing.assert_array_equal(margin[same], 0)
    if expected == AGREES:
        assert (margin[~same] > 0).mean() >= 0.5
    elif method != "Reference":  # whose margins are not learned
        assert np.logaddexp(0, -margin).mean() == pytest.approx(np.log(2), abs=0.05)


@pytest.mark.parametrize("method", sorted(BASES))
def test_more_bases_than_features_users_or_pairs_do(method, small):
    for pairs in (small.seen, small.seen.select(np.arange(3))):
        model = estimator(method, **{BASES[method]: 9}).fit(pairs)
        users = model.infer(pairs)
        assert users.mean.shape[1] == 9 > small.seen.width
        assert (model.margin(pairs, users) > 0).mean() > 0.6


@methods
def test_pairs_that_tell_nothing_leave_a_user_as_someone_without_pairs(method, fitted, small):
    """A response against itself tells nothing; a pair and its contrary tell only that the user is undecided."""
    model, seen = fitted(method), small.seen
    nobody = model.infer(seen.select(np.array([], dtype=int)), ids=seen.ids)
    told = model.infer(pairs_of(small, rejected=seen.chosen_row))
    if method != "VRF":
        np.testing.assert_allclose(told.mean, nobody.mean, atol=1e-6)
        np.testing.assert_allclose(told.covariance, nobody.covariance, atol=1e-6)
    torn = model.infer(contradictory(small))
    for users in (told, torn):
        assert np.isfinite(users.covariance).all()
        assert np.isfinite(model.margin(seen, users)).all()
    if method not in AMORTISED:
        assert np.abs(model.margin(seen, torn)).mean() <= np.abs(model.margin(seen, nobody)).mean() + 1e-9


@learning
def test_no_pairs_are_refused(method, small):
    with pytest.raises(ValueError, match="features: expected at least one pair, got none"):
        estimator(method).fit(small.seen.select(np.array([], dtype=int)))


@learning
def test_features_that_are_not_finite_are_refused(method, small):
    items = small.seen.items.rows(np.arange(len(small.seen.items)))
    items[7, 2] = np.nan
    bad = PairFeatures.from_items(small.seen.user, items, small.seen.chosen_row, small.seen.rejected_row)
    with pytest.raises(ValueError, match="features: expected finite numbers, row 7 has others"):
        estimator(method).fit(bad)


@learning
def test_features_that_are_not_finite_are_refused_after_the_fit_too(method, fitted, small):
    model = fitted(method)
    users = model.infer(small.seen)
    items = small.seen.items.rows(np.arange(len(small.seen.items)))
    row = int(small.seen.chosen_row[3])
    items[row] = np.nan
    bad = PairFeatures.from_items(small.seen.user, items, small.seen.chosen_row, small.seen.rejected_row)
    message = f"features: expected finite numbers, row {row} has others"
    with pytest.raises(ValueError, match=message):
        model.margin(bad, users)
    if model.geometry != "none":
        with pytest.raises(ValueError, match=message):
            model.infer(bad)


@learning
def test_a_user_asked_for_twice_is_named(method, fitted, small):
    with pytest.raises(ValueError, match="ids: expected every user once, got 'b' 2 times"):
        fitted(method).infer(small.unseen_context, ids=np.array(["a", "b", "b"]))


@methods
def test_ids_that_are_none_are_named(method, fitted, small):
    for ids, message in (
        ("u1", "ids: expected a list or array of ids, got the text 'u1'"),
        (["a", None], "ids: expected ids, got None at position 1"),
        (["a", "a\0"], "ids: expected ids without NUL characters"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(method).infer(small.unseen_context, ids=ids)


@methods
def test_users_without_a_weight_are_named_where_weights_matter(method, fitted, small):
    model = fitted(method)
    some = model.infer(small.seen.select(small.seen.user == small.seen.ids[0]))
    if model.geometry == "none":
        np.testing.assert_array_equal(model.margin(small.seen, some), model.margin(small.seen, model.infer(small.seen)))
        return
    with pytest.raises(ValueError, match=f"users: no weight for user '{small.seen.ids[1]}'; infer it from pairs first"):
        model.margin(small.seen, some)


@learning
def test_pairs_made_of_features_that_are_not_finite_are_refused(method, small):
    chosen = small.seen.chosen.copy()
    chosen[5] = np.inf
    with pytest.raises(ValueError, match="chosen: expected finite features, row 5 has others"):
        estimator(method).fit(PairFeatures(small.seen.user, chosen, small.seen.rejected))


def test_scores_that_are_not_finite_are_refused(small):
    scores = np.zeros(len(small.seen.items))
    scores[6] = np.nan
    with pytest.raises(ValueError, match="scores: expected finite numbers, text 6 has another"):
        pairs_of(small, scores=scores)
