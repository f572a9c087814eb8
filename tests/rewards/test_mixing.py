"""palm.rewards.mixing: how a population's weights are spread, from judgements alone, against the weights that made them."""

import numpy as np
import pytest

from palm.rewards.mixing import population_moments
from palm.rewards.simplex_users import infer_weights, learn_population


def crowd(alpha, users, pairs, rng):
    """Users' weights, and the scores of their pairs as they judged them."""
    bases = len(alpha)
    weights = rng.dirichlet(alpha, users)
    code = np.repeat(np.arange(users), pairs)
    scores = 3.0 * rng.standard_normal((len(code), bases))
    chance = 1 / (1 + np.exp(-(scores * weights[code]).sum(axis=1)))
    return weights, scores * np.where(rng.random(len(code)) < chance, 1.0, -1.0)[:, None], code


def guess(users, bases):
    return np.full((users, bases), 1.0 / bases)


@pytest.mark.parametrize(
    ("alpha", "users", "pairs"),
    [
        ((0.3,) * 4, 500, 40),
        ((0.3,) * 4, 1000, 8),
        ((0.1, 0.1), 400, 30),
        ((10.0, 10.0, 10.0), 400, 30),
        ((4.0, 1.0, 1.0), 400, 20),
    ],
)
def test_mean_and_covariance_are_those_of_the_weights(alpha, users, pairs):
    weights, scores, code = crowd(alpha, users, pairs, np.random.default_rng(0))
    mean, covariance = population_moments(scores, code, guess(users, len(alpha)))
    np.testing.assert_allclose(mean, weights.mean(axis=0), atol=0.03)
    assert np.trace(covariance) == pytest.approx(np.trace(np.cov(weights.T)), rel=0.25)  # 400 users tell no more
    np.testing.assert_allclose(covariance, np.cov(weights.T), atol=0.015)
    np.testing.assert_allclose(covariance.sum(axis=0), 0, atol=1e-12)


def test_it_is_the_maximum_of_its_likelihood():
    """Against another solver: projected ascent over masses, on the same points."""
    from palm.rewards import mixing

    _, scores, code = crowd((0.5, 0.5), 40, 10, np.random.default_rng(1))
    points, spread = mixing._points(2, guess(40, 2), 0)
    likelihood = mixing._likelihoods(scores, code, 40, points)

    def total(mass):
        return np.log(likelihood @ mass).sum() + spread @ np.log(np.maximum(mass, 1e-300))

    mean, covariance = population_moments(scores, code, guess(40, 2), rounds=20_000, tolerance=1e-12)
    mass = np.full(len(points), 1 / len(points))
    for _ in range(20_000):  # exponentiated gradient
        slope = likelihood.T @ (1 / (likelihood @ mass)) + spread / np.maximum(mass, 1e-300)
        mass = mass * np.exp(0.02 * (slope - slope.max()) / len(likelihood))
        mass /= mass.sum()
    other = mass @ points
    np.testing.assert_allclose(mean, other, atol=2e-3)
    np.testing.assert_allclose(covariance, (points - other).T @ (mass[:, None] * (points - other)), atol=2e-3)
    assert total(mass) >= total(np.full(len(points), 1 / len(points)))


def test_nobody_and_nothing_said_leave_a_spread_over_the_simplex():
    nobody = population_moments(np.zeros((0, 3)), np.zeros(0, dtype=int), np.zeros((0, 3)))
    silent = population_moments(np.zeros((0, 3)), np.zeros(0, dtype=int), guess(5, 3))
    for mean, covariance in (nobody, silent):
        np.testing.assert_allclose(mean, 1 / 3, atol=0.05)
        assert 0.2 < np.trace(covariance) < 0.35  # that of Dirichlet(1/2) is 0.267


def test_one_user_does_not_make_everyone_like_them():
    scores = np.tile([4.0, -4.0], (50, 1))  # wants the first basis only
    mean, covariance = population_moments(scores, np.zeros(50, dtype=int), guess(1, 2))
    assert 0.6 < mean[0] < 0.95
    assert np.trace(covariance) > 0.05


def test_users_may_come_in_any_order_and_be_many():
    rng = np.random.default_rng(3)
    weights, scores, code = crowd((0.3,) * 3, 300, 400, rng)  # 120,000 pairs: not every user is asked
    order = rng.permutation(len(code))
    first = population_moments(scores, code, guess(300, 3))
    again = population_moments(scores[order], code[order], guess(300, 3))
    np.testing.assert_allclose(again[1], first[1], atol=1e-9)
    assert np.trace(first[1]) == pytest.approx(np.trace(np.cov(weights.T)), rel=0.15)


def test_users_of_thousands_of_pairs_tell_what_they_want():
    """Their best point's log-likelihood is near -900: beside it, not beside 0, a point is impossible."""
    weights, scores, code = crowd((4.0, 1.0, 1.0), 20, 3000, np.random.default_rng(5))
    mean, covariance = population_moments(scores, code, guess(20, 3))
    np.testing.assert_allclose(mean, weights.mean(axis=0), atol=0.05)
    assert np.trace(covariance) < 2 * np.trace(np.cov(weights.T))


def test_impossible_judgements_are_no_numbers_out_of_range():
    scores = np.array([[900.0, -900.0], [-900.0, 900.0]] * 4)  # one user who contradicts themselves for certain
    mean, covariance = population_moments(scores, np.zeros(8, dtype=int), guess(1, 2))
    assert np.isfinite(mean).all()
    assert np.isfinite(covariance).all()


def test_regions_of_a_learned_population_hold_new_users():
    """Of users who were not among those it is learned from: a normal prior learned from its own posteriors held three quarters."""
    rng = np.random.default_rng(4)
    _, scores, code = crowd((0.3,) * 4, 500, 20, rng)
    population = learn_population(scores, code, 500)[0]
    fresh, scores, code = crowd((0.3,) * 4, 500, 3, rng)
    mean, covariance = infer_weights(scores, code, 500, population)
    away = fresh - mean
    distance = np.einsum("uk,ukl,ul->u", away, np.linalg.pinv(covariance), away)
    assert distance.mean() / 3 == pytest.approx(1.0, abs=0.15)
