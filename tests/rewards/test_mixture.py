"""palm.rewards.mixture: kinds of users are found, and a user's first pairs say which they are of."""

import numpy as np
import pytest

from palm.rewards.lore import LoRe
from palm.rewards.mixture import Mixture, _kind, infer_users, learn_mixture, prior_from, prior_record
from palm.rewards.simplex_users import Population, infer_weights, learn_population
from palm.simplex import tangent_basis


def crowd(users, pairs, centres, rng, *, sharp=6.0):
    """Users near one of some weights, and their pairs: scores, code, weights, kinds."""
    kind = rng.integers(len(centres), size=users)
    weights = np.array([rng.dirichlet(60 * centres[number]) for number in kind])
    code = np.repeat(np.arange(users), pairs)
    scores = sharp * rng.normal(size=(len(code), len(centres[0])))
    chance = 1 / (1 + np.exp(-(scores * weights[code]).sum(axis=1)))
    scores[rng.random(len(code)) > chance] *= -1
    return scores, code, weights, kind


@pytest.fixture(scope="module")
def two():
    """Two kinds, far apart; what a population with one mean describes worst."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    scores, code, _, _ = crowd(300, 15, centres, rng)
    return centres, learn_mixture(scores, code, 300, 2, seed=0), learn_population(scores, code, 300)[0]


def test_kinds_are_found(two):
    centres, mixture, _ = two
    order = np.argsort([-kind.mean[0] for kind in mixture.kinds])
    for centre, number in zip(centres, order, strict=True):
        np.testing.assert_allclose(mixture.kinds[number].mean, centre, atol=0.06)
    np.testing.assert_allclose(mixture.shares, 0.5, atol=0.08)
    assert mixture.shares.sum() == pytest.approx(1)


def test_few_pairs_of_a_new_user_tell_more_under_kinds_than_under_one_mean(two):
    centres, mixture, single = two
    scores, code, weights, _ = crowd(400, 3, centres, np.random.default_rng(1))
    away = {
        name: np.linalg.norm(infer_users(scores, code, 400, prior)[0] - weights, axis=1).mean()
        for name, prior in (("kinds", mixture), ("one", single))
    }
    assert away["kinds"] < 0.8 * away["one"]


def test_posteriors_are_those_of_the_exact_bayesian_up_to_laplace(two):
    """Against quadrature over the simplex, for users between both kinds."""
    _, mixture, _ = two
    rng = np.random.default_rng(2)
    scores, code, _, _ = crowd(6, 4, np.array([[0.4, 0.2, 0.4]]), rng, sharp=3.0)
    mean, covariance = infer_users(scores, code, 6, mixture)
    steps = np.arange(0.5, 150) / 150
    first, second = np.meshgrid(steps, steps)
    inside = first + second < 1
    grid = np.column_stack([first[inside], second[inside], 1 - first[inside] - second[inside]])
    density = np.zeros(len(grid))
    for kind, share in zip(mixture.kinds, mixture.shares, strict=True):
        away = grid - kind.mean
        prior = -0.5 * ((away @ kind.precision) * away).sum(axis=1) + kind.concentration * (np.log(grid) @ kind.mean)
        prior = np.exp(prior - prior.max())
        density += share * prior / prior.sum()
    for user in range(6):
        likelihood = np.exp(-np.logaddexp(0, -(grid @ scores[code == user].T)).sum(axis=1))
        chance = density * likelihood / (density * likelihood).sum()
        exact = chance @ grid
        np.testing.assert_allclose(mean[user], exact, atol=0.05)
        spread = (grid - exact).T @ ((grid - exact) * chance[:, None])
        assert np.trace(covariance[user]) == pytest.approx(np.trace(spread), rel=0.4)


def test_users_without_pairs_have_the_mixtures_mean_and_spread(two):
    _, mixture, _ = two
    mean, covariance = infer_users(np.zeros((0, 3)), np.zeros(0, dtype=int), 2, mixture)
    np.testing.assert_allclose(mean, [mixture.mean] * 2, atol=1e-12)
    np.testing.assert_allclose(covariance, [mixture.covariance] * 2, atol=1e-12)
    tangent = tangent_basis(3)
    spread = tangent.T @ mixture.covariance @ tangent
    inner = sum(s * tangent.T @ k.covariance @ tangent for s, k in zip(mixture.shares, mixture.kinds, strict=True))
    assert np.linalg.eigvalsh(spread - inner).max() > 0.1  # what lies between the kinds


def test_a_mixture_of_one_kind_is_that_kind():
    scores, code, _, _ = crowd(40, 8, np.array([[0.5, 0.3, 0.2]]), np.random.default_rng(3))
    mixture = learn_mixture(scores, code, 40, 1)
    for mine, theirs in zip(infer_users(scores, code, 40, mixture), infer_weights(scores, code, 40, mixture.kinds[0]), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    assert learn_mixture(np.ones((5, 1)), np.zeros(5, dtype=int), 1, 3).mean.tolist() == [1.0]  # one basis: one kind


@pytest.mark.parametrize("users", [1, 2, 5])
def test_fewer_users_than_kinds_still_make_a_prior(users):
    scores, code, _, _ = crowd(users, 4, np.array([[0.5, 0.3, 0.2]]), np.random.default_rng(4))
    mixture = learn_mixture(scores, code, users, 4)
    assert (mixture.shares > 0).all()
    mean, covariance = infer_users(scores, code, users, mixture)
    assert np.isfinite(mean).all()
    assert np.linalg.eigvalsh(covariance).min() > -1e-9


def test_a_kind_of_nobody_is_the_whole_population():
    """Every kind counts it as one user more; what a kind of one user knows is half of it."""
    scores, code, _, _ = crowd(40, 8, np.array([[0.5, 0.3, 0.2]]), np.random.default_rng(5))
    whole, mean, covariance = learn_population(scores, code, 40)
    nobody = _kind(np.zeros(40), mean, covariance, whole)
    np.testing.assert_allclose(nobody.mean, whole.mean, atol=1e-9)
    one = np.eye(40)[3]
    np.testing.assert_allclose(_kind(one, mean, covariance, whole).mean, (mean[3] + whole.mean) / 2, atol=1e-9)


def test_kinds_out_of_range_are_refused():
    with pytest.raises(ValueError, match="kinds: expected at least 1, got 0"):
        learn_mixture(np.ones((1, 2)), np.zeros(1, dtype=int), 1, 0)


@pytest.mark.parametrize("kinds", [1, 2])
def test_priors_are_written_down_and_read(kinds):
    one = Population(np.array([0.7, 0.3]), np.eye(2), 0.1)
    prior = Mixture((one, Population.flat(2)), np.array([0.25, 0.75])) if kinds == 2 else one
    again = prior_from(prior_record(prior))
    scores, code = np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([0, 0])
    np.testing.assert_array_equal(infer_users(scores, code, 1, prior)[0], infer_users(scores, code, 1, again)[0])


def test_lore_takes_kinds_and_keeps_them(conflicting, tmp_path):
    model = LoRe(rank=2, kinds=3, concentration=0.2).fit(conflicting.seen)
    assert isinstance(model.population, Mixture)
    assert [kind.concentration for kind in model.population.kinds] == [0.2] * 3
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    few = conflicting.unseen_context
    np.testing.assert_array_equal(again.infer(few).mean, model.infer(few).mean)
