import numpy as np
import pytest
from scipy.optimize import minimize

import palm.rewards.newton as module
from palm.rewards.simplex_users import (
    Population,
    infer_weights,
    learn_population,
    population_from,
    population_of,
    population_record,
)
from palm.simplex import tangent_basis


def objective(weight, scores, prior):
    """-log posterior of one user, written down from the module's formula up to a constant."""
    away = weight - prior.mean
    barrier = -prior.concentration * (prior.mean * np.log(weight)).sum()
    return np.log1p(np.exp(-scores @ weight)).sum() + 0.5 * away @ prior.precision @ away + barrier


def random_prior(bases, rng):
    tangent = tangent_basis(bases)
    root = rng.normal(size=(bases - 1, bases - 1))
    return Population(rng.dirichlet(np.full(bases, 3.0)), tangent @ root @ root.T @ tangent.T, float(rng.uniform(0.05, 1.0)))


def random_user(bases, pairs, rng):
    """Scores of pairs by a user with a random weight, in logits of some size."""
    scores = rng.normal(size=(pairs, bases)) * rng.uniform(0.5, 5)
    sure = scores @ rng.dirichlet(np.full(bases, 0.5))
    return scores * np.where(rng.random(pairs) < 1 / (1 + np.exp(-sure)), 1, -1)[:, None]


def twenty(seed=0, bases=4):
    rng = np.random.default_rng(seed)
    prior = random_prior(bases, rng)
    users = [random_user(bases, pairs, rng) for pairs in (0, 1, 1, 2, 3, *rng.integers(4, 80, size=15))]
    code = np.repeat(np.arange(20), [len(scores) for scores in users])
    return prior, users, np.vstack(users), code


@pytest.mark.parametrize("bases", [2, 3, 5])
def test_all_users_at_once_are_where_a_general_solver_puts_each(bases):
    prior, users, scores, code = twenty(bases, bases)
    mean, _ = infer_weights(scores, code, 20, prior)
    for found, own in zip(mean, users, strict=True):
        best = minimize(
            objective,
            prior.mean,
            args=(own, prior),
            method="SLSQP",
            bounds=[(1e-9, 1)] * bases,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 500},
        )
        assert objective(found, own, prior) <= best.fun + 1e-9
        np.testing.assert_allclose(found, best.x, atol=1e-4)
        # SLSQP's numerical gradients stop it short; to 1e-6 it is the gradient along the simplex that must vanish.
        polished = minimize(
            lambda z, own=own, start=found: objective(np.abs(start + tangent_basis(bases) @ z), own, prior),
            np.zeros(bases - 1),
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-16, "initial_simplex": 1e-4 * np.vstack([np.zeros(bases - 1), np.eye(bases - 1)])},
        )
        np.testing.assert_allclose(tangent_basis(bases) @ polished.x, 0, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 16 * 30, 2**22])
def test_pairs_in_any_order_and_blocks_of_any_size_give_the_same(monkeypatch, chunk):
    prior, _, scores, code = twenty()
    mean, covariance = infer_weights(scores, code, 20, prior)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    order = np.random.default_rng(1).permutation(len(code))
    again = infer_weights(scores[order], code[order], 20, prior)
    np.testing.assert_allclose(again[0], mean, atol=1e-7)
    np.testing.assert_allclose(again[1], covariance, atol=1e-6)


@pytest.mark.parametrize("chunk", [16 * 30, 2**22])
@pytest.mark.parametrize("start", ["solution", "vertices", "random"])
def test_where_newton_begins_does_not_change_where_it_ends(monkeypatch, start, chunk):
    prior, _, scores, code = twenty()
    scores, code = scores[code != 7], code[code != 7]  # one user without pairs
    mean, covariance = infer_weights(scores, code, 20, prior)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    begin = {
        "solution": mean,
        "vertices": np.eye(mean.shape[1])[np.arange(20) % mean.shape[1]],
        "random": np.random.default_rng(0).dirichlet(np.full(mean.shape[1], 0.1), size=20),
    }[start]
    kept = begin.copy()
    again = infer_weights(scores, code, 20, prior, start=begin)
    np.testing.assert_allclose(again[0], mean, atol=1e-7)
    np.testing.assert_allclose(again[1], covariance, atol=1e-6)
    np.testing.assert_array_equal(again[0][7], prior.mean)
    np.testing.assert_array_equal(begin, kept)


def test_users_without_pairs_have_the_populations_weight_and_spread():
    prior = random_prior(3, np.random.default_rng(0))
    mean, covariance = infer_weights(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), 2, prior)
    np.testing.assert_array_equal(mean, [prior.mean, prior.mean])
    np.testing.assert_allclose(covariance, [prior.covariance] * 2, atol=1e-12)


def test_a_flat_populations_spread_is_known_by_hand():
    # On the segment (w, 1 - w) the barrier is -tau/2 (log w + log(1 - w)), whose curvature at 1/2 is 4 tau.
    assert Population.flat(2, 0.5).covariance == pytest.approx(np.array([[0.5, -0.5], [-0.5, 0.5]]))
    np.testing.assert_array_equal(Population.flat(1).covariance, [[0.0]])


def test_covariances_are_the_inverse_of_a_numerical_hessian():
    prior, users, scores, code = twenty(3)
    mean, covariance = infer_weights(scores, code, 20, prior)
    tangent, step = tangent_basis(4), 1e-4
    for user in (0, 3, 10, 19):
        if mean[user].min() < 5 * step:
            continue

        def loss(z, user=user):
            return objective(mean[user] + step * tangent @ z, users[user], prior)

        axes, hessian = np.eye(3), np.empty((3, 3))
        for i in range(3):
            for j in range(3):
                plus, minus = axes[i] + axes[j], axes[i] - axes[j]
                hessian[i, j] = (loss(plus) - loss(minus) - loss(-minus) + loss(-plus)) / (4 * step**2)
        np.testing.assert_allclose(tangent.T @ covariance[user] @ tangent, np.linalg.inv(hessian), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(covariance.sum(axis=2), 0, atol=1e-10)


def test_posteriors_are_those_of_the_exact_bayesian_up_to_laplace():
    """Importance sampling of the exact posterior of a user with many pairs: mean and spread agree to a tenth."""
    rng = np.random.default_rng(4)
    true = np.array([0.45, 0.35, 0.2])
    scores = rng.normal(size=(400, 3)) * 3
    scores *= np.where(rng.random(400) < 1 / (1 + np.exp(-scores @ true)), 1, -1)[:, None]
    prior = Population.flat(3, 0.1)
    mean, covariance = (array[0] for array in infer_weights(scores, np.zeros(400, dtype=int), 1, prior))
    tangent = tangent_basis(3)
    reduced = tangent.T @ covariance @ tangent
    drawn = rng.multivariate_normal(np.zeros(2), 2 * reduced, size=40_000)
    weights = mean + drawn @ tangent.T
    inside = weights.min(axis=1) > 0
    loss = np.array([objective(weight, scores, prior) for weight in weights[inside]])
    ratio = np.exp(-(loss - loss.min()) + 0.25 * np.einsum("ni,ij,nj->n", drawn[inside], np.linalg.inv(reduced), drawn[inside]))
    ratio /= ratio.sum()
    exact = ratio @ weights[inside]
    spread = (weights[inside] - exact).T @ (ratio[:, None] * (weights[inside] - exact))
    deviation = np.sqrt(np.diag(covariance))
    assert 1 / (ratio**2).sum() > 5000
    assert (np.abs(exact - mean) < 0.15 * deviation).all()
    np.testing.assert_allclose(np.sqrt(np.diag(spread)), deviation, rtol=0.1)
    assert (np.abs(true - mean) < 3 * deviation).all()


def test_contradicting_pairs_leave_a_user_where_the_population_is():
    scores = np.array([[3.0, -1.0, -2.0], [-3.0, 1.0, 2.0]])  # no logit at the centre
    prior = Population.flat(3)
    mean, covariance = infer_weights(scores, np.zeros(2, dtype=int), 1, prior)
    np.testing.assert_allclose(mean[0], prior.mean, atol=1e-6)
    assert np.trace(covariance[0]) < np.trace(prior.covariance)


def test_overwhelming_pairs_put_a_user_at_a_vertex_without_overflow():
    scores = np.tile([[1e4, 0.0, -1e4]], (50, 1))
    mean, covariance = infer_weights(scores, np.zeros(50, dtype=int), 1, Population.flat(3))
    assert mean[0, 0] > mean[0, 1] > mean[0, 2] > 0
    assert np.isfinite(covariance).all()


def test_one_basis_leaves_nothing_to_infer():
    mean, covariance = infer_weights(np.ones((3, 1)), np.array([0, 0, 1]), 2, Population.flat(1))
    np.testing.assert_array_equal(mean, np.ones((2, 1)))
    np.testing.assert_array_equal(covariance, np.zeros((2, 1, 1)))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 2)), r"scores: expected the shape \(n, 3\), got \(2, 2\)"),
        (np.zeros(3), r"scores: expected the shape \(n, 3\), got \(3,\)"),
        (np.array([[0.0, 1, 2], [0, np.nan, 1]]), "scores: expected finite numbers, pair 1 has others"),
        (np.array([[0.0, 1, 2], [0, 1e9, 1]]), r"scores: expected logits of at most 1e\+06 in size, pair 1 has 1e\+09"),
    ],
)
def test_bad_scores_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        infer_weights(scores, np.zeros(len(scores), dtype=int), 1, Population.flat(3))


@pytest.fixture(scope="module")
def crowd():
    """300 users around one weight, twelve pairs each to learn from and forty to test on."""
    rng = np.random.default_rng(5)
    weights = rng.dirichlet([6.0, 3.0, 1.0], size=300)
    code = np.repeat(np.arange(300), 52)
    scores = rng.normal(size=(len(code), 3)) * 4
    sure = (scores * weights[code]).sum(axis=1)
    scores *= np.where(rng.random(len(code)) < 1 / (1 + np.exp(-sure)), 1, -1)[:, None]
    late = np.tile(np.arange(52) >= 12, 300)
    return weights, (scores[~late], code[~late]), (scores[late], code[late])


def test_the_populations_mean_and_spread_are_learned_from_its_users(crowd):
    weights, (scores, code), _ = crowd
    population, mean, covariance = learn_population(scores, code, 300)
    np.testing.assert_allclose(population.mean, [0.6, 0.3, 0.1], atol=0.04)
    spread = np.sqrt(np.diag(population.covariance))
    np.testing.assert_allclose(spread, weights.std(axis=0), rtol=0.2)
    again = infer_weights(scores, code, 300, population)
    np.testing.assert_array_equal(mean, again[0])
    np.testing.assert_array_equal(covariance, again[1])


def test_a_learned_population_serves_users_of_few_pairs_better_than_a_flat_one(crowd):
    weights, (scores, code), (held_out, held_code) = crowd
    learned = learn_population(scores, code, 300)[1]
    flat = infer_weights(scores, code, 300, Population.flat(3))[0]

    def loss(mean):
        return np.log1p(np.exp(-(held_out * mean[held_code]).sum(axis=1))).mean()

    assert loss(weights) < loss(learned) < loss(flat) - 0.01
    assert np.abs(learned - weights).mean() < 0.7 * np.abs(flat - weights).mean()


def test_weights_without_a_prior_are_a_population_with_one_uniform_user_more():
    """population_of: mean and covariance of the users' weights and of the uniform distribution on the simplex, of weight one."""
    rng = np.random.default_rng(6)
    weights = rng.dirichlet([5.0, 2.0, 1.0], size=7)
    drawn = rng.dirichlet(np.ones(3), size=400_000)
    share = np.concatenate([np.full(7, 1 / 8), np.full(len(drawn), 1 / 8 / len(drawn))])
    everyone = np.concatenate([weights, drawn])
    mean = share @ everyone
    population = population_of(weights)
    np.testing.assert_allclose(population.mean, mean, atol=1e-3)
    np.testing.assert_allclose(population.covariance, (everyone - mean).T * share @ (everyone - mean), atol=1e-3)


def test_a_population_can_be_written_down():
    prior = random_prior(3, np.random.default_rng(0))
    back = population_from(population_record(prior))
    np.testing.assert_array_equal(back.mean, prior.mean)
    np.testing.assert_array_equal(back.precision, prior.precision)
    assert back.concentration == prior.concentration
