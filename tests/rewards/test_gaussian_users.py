"""palm.rewards.gaussian_users: every user's vector is where a general solver puts it, and populations are learned."""

import numpy as np
import pytest
from scipy.optimize import minimize

import palm.rewards.newton as module
from palm.rewards.gaussian_users import GaussianPopulation, infer_gaussian, learn_gaussian


def objective(vector, scores, prior):
    """-log posterior of one user, from the module's formula."""
    away = vector - prior.mean
    return np.log1p(np.exp(-scores @ vector)).sum() + 0.5 * away @ np.linalg.inv(prior.covariance) @ away


def some(bases=4, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(bases, bases))
    prior = GaussianPopulation(rng.normal(size=bases), root @ root.T + 0.2 * np.eye(bases))
    counts = (0, 1, 1, 2, 3, *rng.integers(4, 80, size=15))
    users = []
    for count in counts:
        scores = rng.normal(size=(count, bases)) * rng.uniform(0.5, 3)
        users.append(scores * np.where(rng.random(count) < 1 / (1 + np.exp(-scores @ rng.normal(size=bases))), 1, -1)[:, None])
    return prior, users, np.vstack(users), np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize("bases", [1, 2, 5])
def test_all_users_at_once_are_where_a_general_solver_puts_each(bases):
    prior, users, scores, code = some(bases)
    mean, _ = infer_gaussian(scores, code, len(users), prior)
    for user, own in enumerate(users):
        alone = minimize(objective, prior.mean, (own, prior), method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(mean[user], alone.x, atol=1e-5)


def test_covariances_are_the_inverse_of_a_numerical_hessian():
    prior, users, scores, code = some(3)
    mean, covariance = infer_gaussian(scores, code, len(users), prior)
    axes, step = np.eye(3), 1e-4
    for user in (0, 3, 10, 19):
        hessian = np.empty((3, 3))
        for i in range(3):
            for j in range(3):
                terms = [(1, axes[i] + axes[j]), (-1, axes[i] - axes[j]), (-1, axes[j] - axes[i]), (1, -axes[i] - axes[j])]
                total = sum(sign * objective(mean[user] + step * move, users[user], prior) for sign, move in terms)
                hessian[i, j] = total / (4 * step**2)
        np.testing.assert_allclose(covariance[user], np.linalg.inv(hessian), rtol=1e-3, atol=1e-6)


def test_users_without_pairs_have_the_populations_mean_and_covariance():
    prior, users, scores, code = some()
    mean, covariance = infer_gaussian(scores, code, len(users), prior)
    np.testing.assert_array_equal(mean[0], prior.mean)
    np.testing.assert_allclose(covariance[0], prior.covariance, atol=1e-12)
    nobody = infer_gaussian(np.zeros((0, 4)), np.zeros(0, dtype=int), 2, prior)
    np.testing.assert_array_equal(nobody[0], [prior.mean] * 2)


@pytest.mark.parametrize("chunk", [1, 16 * 30, 2**22])
@pytest.mark.parametrize("start", [None, "solution", "far"])
def test_order_blocks_and_beginning_change_nothing(monkeypatch, chunk, start):
    prior, users, scores, code = some()
    mean, covariance = infer_gaussian(scores, code, len(users), prior)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    order = np.random.default_rng(1).permutation(len(code))
    begin = {None: None, "solution": mean, "far": 5 * np.ones_like(mean)}[start]
    again = infer_gaussian(scores[order], code[order], len(users), prior, start=begin)
    np.testing.assert_allclose(again[0], mean, atol=1e-6)
    np.testing.assert_allclose(again[1], covariance, atol=1e-6)


def test_overwhelming_pairs_do_not_overflow():
    prior = GaussianPopulation.ridge(2, 1e-3)
    mean, covariance = infer_gaussian(np.array([[1e6, 0.0]] * 50), np.zeros(50, dtype=int), 1, prior)
    assert np.isfinite(mean).all()
    assert np.isfinite(covariance).all()
    assert mean[0, 0] > 0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3)), r"scores: expected the shape \(n, 2\), got \(2, 3\)"),
        (np.array([[0.0, 1.0], [np.nan, 0.0]]), "scores: expected finite numbers, pair 1 has others"),
        (np.array([[0.0, 1.0], [-1e9, 0.0]]), r"scores: expected logits of at most 1e\+06 in size, pair 1 has 1e\+09"),
    ],
)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        infer_gaussian(scores, np.zeros(len(scores), dtype=int), 1, GaussianPopulation.ridge(2, 1.0))


@pytest.mark.parametrize("covariance", [np.zeros((2, 2)), np.diag([1.0, -1.0]), np.eye(3), np.full((2, 2), np.nan)])
def test_a_covariance_that_is_none_is_refused(covariance):
    with pytest.raises(ValueError, match=r"covariance: expected a positive definite \(2, 2\) matrix"):
        GaussianPopulation(np.zeros(2), covariance)


def test_the_populations_mean_and_spread_are_learned_from_its_users():
    """Up to what Laplace's approximation shrinks them: a mode lies nearer to the prior than the posterior's mean."""
    rng = np.random.default_rng(5)
    truth = GaussianPopulation(np.array([1.0, -0.5]), np.array([[0.8, 0.3], [0.3, 0.4]]))
    vectors = rng.multivariate_normal(truth.mean, truth.covariance, size=600)
    code = np.repeat(np.arange(600), 40)
    scores = rng.normal(size=(len(code), 2)) * 2
    margin = np.einsum("nk,nk->n", scores, vectors[code])
    scores *= np.where(rng.random(len(code)) < 1 / (1 + np.exp(-margin)), 1, -1)[:, None]
    population, mean, _ = learn_gaussian(scores, code, 600, GaussianPopulation.ridge(2, 1.0))
    np.testing.assert_allclose(population.mean, truth.mean, rtol=0.2)
    np.testing.assert_allclose(population.covariance, truth.covariance, rtol=0.5)
    np.testing.assert_array_equal(mean, infer_gaussian(scores, code, 600, population)[0])
    again = GaussianPopulation.from_record(population.record())
    np.testing.assert_array_equal(again.covariance, population.covariance)


def test_one_user_does_not_make_a_sure_population():
    scores = np.array([[3.0, 0.0]] * 30)
    population = learn_gaussian(scores, np.zeros(30, dtype=int), 1, GaussianPopulation.ridge(2, 1.0))[0]
    assert population.covariance[0, 0] > 0.3
    assert population.covariance[1, 1] > 0.3
