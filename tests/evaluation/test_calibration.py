"""palm.evaluation.calibration: stated chances and regions against what is observed."""

import numpy as np
import pytest

from palm.evaluation.calibration import basis_angles, logit_coverage, region_coverage, reliability
from palm.features.pairs import PairFeatures
from palm.rewards import BradleyTerry
from palm.rewards.simplex_users import Population, infer_weights
from palm.rewards.users import UserWeights


@pytest.fixture(scope="module")
def judged():
    """Logits of one reward, judged by chance."""
    rng = np.random.default_rng(0)
    difference = rng.normal(size=(6000, 3))
    wins = rng.random(6000) < 1 / (1 + np.exp(-difference @ [2.0, -1.0, 0.5]))
    return PairFeatures(["u"] * 6000, np.where(wins[:, None], difference, -difference), np.zeros((6000, 3)))


def test_a_fitted_likelihood_is_reliable_and_an_exaggerated_one_is_not(judged):
    model = BradleyTerry(penalty=1.0).fit(judged.select(np.arange(3000)))
    held_out = judged.select(np.arange(3000, 6000))
    users = model.infer(held_out)
    found = reliability(model, held_out, users)
    assert found.error < 0.03
    assert found.count.sum() == 3000
    assert (np.diff(found.stated) > 0).all()
    loud = type(model)(model.method, 5 * model.direction, model.calibration, model.details)
    assert reliability(loud, held_out, users).error > 0.08
    assert reliability(model, held_out, users, bins=1).error == pytest.approx(abs(found.stated.mean() - found.observed.mean()))


def test_regions_of_users_drawn_from_the_prior_hold_what_they_say():
    """Users and judgements drawn from the model itself; Laplace's approximation with 60 pairs."""
    rng = np.random.default_rng(1)
    weights = rng.dirichlet([4.0, 3.0, 3.0], size=400)
    code = np.repeat(np.arange(400), 60)
    scores = rng.normal(size=(len(code), 3)) * 3
    margin = np.einsum("nk,nk->n", scores, weights[code])
    scores *= np.where(rng.random(len(code)) < 1 / (1 + np.exp(-margin)), 1, -1)[:, None]
    prior = Population.flat(3, 0.5)
    users = UserWeights(np.array([f"u{n:03d}" for n in range(400)]), *infer_weights(scores, code, 400, prior))
    assert region_coverage(users, weights, level=0.9) == pytest.approx(0.9, abs=0.06)
    assert region_coverage(users, weights, level=0.5) == pytest.approx(0.5, abs=0.1)
    sure = UserWeights(users.ids, users.mean, users.covariance / 100)
    assert region_coverage(sure, weights) < 0.3


def test_intervals_of_logits_hold_what_they_say():
    """True weights drawn from the posterior itself."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(300, 3, 3)) * 0.2
    ids, mean = np.array([f"u{n:03d}" for n in range(300)]), rng.normal(size=(300, 3))
    users = UserWeights(ids, mean, root @ root.transpose(0, 2, 1), geometry="linear")
    weights = users.mean + np.einsum("ukl,ul->uk", root, rng.normal(size=(300, 3)))
    code = np.repeat(np.arange(300), 40)
    scores = rng.normal(size=(len(code), 3))
    truth = np.einsum("nk,nk->n", scores, weights[code])
    assert logit_coverage(scores, users, code, truth, level=0.9) == pytest.approx(0.9, abs=0.03)
    assert logit_coverage(scores, users, code, truth, level=0.5) == pytest.approx(0.5, abs=0.05)
    assert logit_coverage(scores, users, code, truth + 10) < 0.02
    with pytest.raises(ValueError, match=r"level: expected a number between 0 and 1, got 0\.0"):
        logit_coverage(scores, users, code, truth, level=0.0)
    with pytest.raises(ValueError, match="scores: expected at least one pair, got none"):
        logit_coverage(scores[:0], users, code[:0], truth[:0])


def test_angles_between_rewards_do_not_see_directions_that_no_text_moves_along():
    first, second = np.eye(3)[:, :1], np.array([[1.0], [0.0], [1.0]])
    assert basis_angles(first, second) == pytest.approx([45])
    flat = np.random.default_rng(0).normal(size=(50, 3)) * [1, 1, 0]
    assert basis_angles(first, second, flat) == pytest.approx([0], abs=1e-5)
    assert basis_angles(np.eye(3)[:, :2], np.eye(3)[:, 1:]) == pytest.approx([90, 0], abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, m, u: reliability(m, p, u, bins=0), "bins: expected at least 1, got 0"),
        (
            lambda p, m, u: reliability(m, p.select(np.array([], dtype=int)), u),
            "pairs: expected at least one held-out pair",
        ),
        (
            lambda p, m, u: region_coverage(u, np.zeros((2, 1))),
            r"truth: expected the shape \(1, 1\) of the users' weights",
        ),
        (lambda p, m, u: region_coverage(u, np.ones((1, 1)), level=1.0), r"level: expected a number between 0 and 1, got 1\.0"),
        (lambda p, m, u: basis_angles(np.eye(2), np.eye(3)), "first, second: expected directions of equal width"),
    ],
)
def test_bad_arguments_are_refused(judged, call, message):
    model = BradleyTerry(penalty=1.0).fit(judged)
    with pytest.raises(ValueError, match=message):
        call(judged, model, model.infer(judged))
