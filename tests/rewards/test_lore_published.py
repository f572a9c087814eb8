"""palm.rewards.lore_published: the published fits of LoRe, as presets to compare with."""

import numpy as np
import pytest

from palm.rewards import LoRe, load_reward_model
from palm.rewards import lore_published as module
from palm.rewards.logistic import Standardised, fit_population
from palm.rewards.lore_published import fit_published


def accuracy(model, pairs, users):
    return float((model.margin(pairs, users) > 0).mean())


def test_the_joint_fit_follows_an_independent_autograd(small):
    """Three steps of torch's Adam on the loss as printed, per pair and per user, give the same bases and weights."""
    import torch

    data = Standardised.of(small.seen)
    directions, weights = fit_published(data, 3, "joint", np.ones(4), steps=3, seed=5)
    rng = np.random.default_rng(5)
    bases = torch.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    logits = torch.tensor(rng.standard_normal((len(small.seen.ids), 3)), requires_grad=True)
    difference = torch.tensor((small.seen.chosen - small.seen.rejected) / data.scale)
    adam = torch.optim.Adam([bases, logits], lr=0.5)
    divisor = 100 * np.sqrt(4 / 4096)
    for _ in range(3):
        loss = torch.zeros((), dtype=torch.float64)
        for user in range(len(small.seen.ids)):
            own = difference[torch.from_numpy(small.seen.code == user)]
            margin = own @ bases @ torch.softmax(logits[user], dim=0) / divisor
            loss = loss + torch.log1p(torch.exp(-margin)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    np.testing.assert_allclose(directions, bases.detach().numpy() / divisor, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights, torch.softmax(logits, dim=1).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_anchors_gradient_is_numerically_right():
    rng = np.random.default_rng(0)
    bases, reference = rng.normal(size=(6, 3)), rng.normal(size=6)

    def away(values):
        cosine = reference @ values / np.linalg.norm(values, axis=0) / np.linalg.norm(reference)
        return (1 - cosine).mean()

    for index in np.ndindex(*bases.shape):
        step = np.zeros_like(bases)
        step[index] = 1e-6
        numerical = (away(bases + step) - away(bases - step)) / 2e-6
        assert module._away_from(bases, reference)[index] == pytest.approx(numerical, abs=1e-8)


def test_the_anchor_turns_every_basis_to_the_reference(small):
    data = Standardised.of(small.seen)
    reference = fit_population(data, 10.0)
    directions, _ = fit_published(data, 3, "anchored", reference, steps=400)
    cosine = reference @ directions / np.linalg.norm(directions, axis=0) / np.linalg.norm(reference)
    free = fit_published(data, 3, "joint", reference, steps=400)[0]
    assert cosine.min() > 0.9
    assert (reference @ free / np.linalg.norm(free, axis=0) / np.linalg.norm(reference)).min() < 0.9


def test_bases_that_nobody_weighs_are_dropped(small, monkeypatch):
    monkeypatch.setattr(module, "_UNUSED", 0.9)
    monkeypatch.setattr(module, "softmax", lambda logits, axis: np.tile([0.95, 0.03, 0.02], (len(logits), 1)))
    directions, weights = fit_published(Standardised.of(small.seen), 3, "anchored", np.ones(4), steps=2)
    assert directions.shape == (4, 1)
    np.testing.assert_array_equal(weights, np.ones((len(small.seen.ids), 1)))


@pytest.mark.parametrize(("preset", "steps"), [("joint", 400), ("anchored", 600)])
def test_presets_are_models_like_any_other(conflicting, tmp_path, preset, steps):
    model = LoRe(rank=2, preset=preset, steps=steps).fit(conflicting.seen, seed=2)
    assert model.method == "LoRe"
    assert model.details["preset"] == preset
    test, context = conflicting.unseen_test, conflicting.unseen_context
    users = model.infer(context)
    assert accuracy(model, conflicting.seen, model.users) > 0.7
    assert accuracy(model, test, users) > 0.65
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(load_reward_model(tmp_path).margin(test, users), model.margin(test, users))
    again = LoRe(rank=2, preset=preset, steps=steps).fit(conflicting.seen, seed=2)
    np.testing.assert_array_equal(again.users.mean, model.users.mean)


def test_ours_beats_the_published_fit_with_few_pairs(planted):
    world = planted(users=90, pairs=12, width=24, bases=3)
    ours, theirs = LoRe(rank=3).fit(world.seen), LoRe(rank=3, preset="joint").fit(world.seen)
    scores = [accuracy(model, world.unseen_test, model.infer(world.unseen_context)) for model in (ours, theirs)]
    assert scores[0] > scores[1] + 0.02


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"preset": "both"}, "preset: expected 'convex', 'joint', 'anchored', got 'both'"),
        ({"steps": 0}, "steps: expected a whole number of at least 1 or None, got 0"),
    ],
)
def test_unknown_presets_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        LoRe(**parameters).fit(small.seen)


@pytest.mark.parametrize("preset", ["joint", "anchored"])
def test_what_is_known_of_users_lies_between_the_population_and_nothing(small, preset):
    model = LoRe(rank=3, preset=preset, steps=300).fit(small.seen)
    spread = np.trace(model.population.covariance)
    assert 0 < spread < 1
    ids, first = np.unique(small.unseen_context.user, return_index=True)
    nothing = model.infer(small.unseen_context.select(np.zeros(0, dtype=int)), ids=ids)
    np.testing.assert_allclose(nothing.mean, np.tile(model.population.mean, (len(ids), 1)), atol=1e-12)
    one, all_of_them = model.infer(small.unseen_context.select(first)), model.infer(small.unseen_context)
    traces = [np.trace(users.covariance, axis1=1, axis2=2) for users in (nothing, one, all_of_them)]
    np.testing.assert_allclose(traces[0], spread, rtol=1e-9)
    assert (traces[1] <= traces[0] + 1e-12).all()
    assert (traces[2] <= traces[1] + 1e-12).mean() > 0.7  # taken at different weights
    assert traces[2].mean() < 0.99 * traces[0].mean()


def test_seen_users_covariance_is_that_at_their_trained_weights(small, tmp_path):
    """Against the information matrix by numerical differences of the log-likelihood."""
    model = LoRe(rank=3, preset="joint", steps=300).fit(small.seen)
    user = model.users.ids[0]
    scores = model.pair_scores(small.seen)[small.seen.user == user]
    weight, step = model.users.mean[0], 1e-4
    tangent = np.linalg.svd(np.ones((1, 3)))[2][1:].T

    def loss(point):
        return np.logaddexp(0, -scores @ (weight + tangent @ point)).sum()

    unit = step * np.eye(2)
    hessian = np.array([[(loss(a + b) - loss(a - b) - loss(b - a) + loss(-a - b)) / (4 * step**2) for b in unit] for a in unit])
    prior = np.linalg.inv(tangent.T @ model.population.covariance @ tangent)
    np.testing.assert_allclose(model.users.covariance[0], tangent @ np.linalg.inv(hessian + prior) @ tangent.T, rtol=1e-4)
    model.save_pretrained(tmp_path)
    again = load_reward_model(tmp_path)
    np.testing.assert_array_equal(again.infer(small.unseen_context).covariance, model.infer(small.unseen_context).covariance)
