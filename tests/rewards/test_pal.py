"""palm.rewards.pal: what torch trains is what numpy applies; new users are fitted, with a posterior, to a frozen model."""

import numpy as np
import pytest
import torch

from palm.features.pairs import PairFeatures
from palm.rewards import PAL
from palm.rewards import pal as module
from palm.rewards.episodes import in_order, standardisation
from palm.rewards.pal_users import posterior

variants = pytest.mark.parametrize("variant", ["A", "B"])


def accuracy(model, pairs, users):
    return float((model.margin(pairs, users) > 0).mean())


@pytest.fixture(scope="module")
def fitted(conflicting):
    models = {}

    def fit(variant):
        if variant not in models:
            models[variant] = PAL(prototypes=2, variant=variant, hidden=32, dim=16, steps=1200).fit(conflicting.seen)
        return models[variant]

    return fit


@variants
def test_unseen_users_are_told_apart_by_their_pairs(conflicting, fitted, variant):
    model, test = fitted(variant), conflicting.unseen_test
    nobody = model.infer(test.select(np.array([], dtype=int)), ids=test.ids)
    assert accuracy(model, test, model.infer(conflicting.unseen_context)) > accuracy(model, test, nobody) + 0.05


@variants
def test_margins_are_those_of_the_trained_module(conflicting, variant):
    options = PAL(prototypes=3, variant=variant, hidden=9, dim=6, steps=1)
    pairs = in_order(conflicting.seen)
    torch.manual_seed(1)
    part, standard = module._module(options, pairs.width, len(pairs.ids)), standardisation(pairs)
    model = options._finish(part, pairs, standard, [])
    weight = torch.softmax(part.logits, dim=1).detach().numpy().astype(float)
    with torch.no_grad():
        expected = options._margin(part, pairs, np.arange(len(pairs)), standard, part.logits[torch.tensor(pairs.code)])
    found = model.margins(pairs, np.arange(len(pairs)), weight[pairs.code])[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)


@variants
def test_derivatives_by_the_weights_are_numerically_right(conflicting, fitted, variant):
    model, pairs = fitted(variant), conflicting.unseen_context
    rows, step = np.arange(20), 1e-3
    weight = np.random.default_rng(0).dirichlet([1.0, 1.0], size=20)
    slope = model.margins(pairs, rows, weight)[1]
    for k in range(2):
        move = step * np.eye(2)[k]
        numerical = (model.margins(pairs, rows, weight + move)[0] - model.margins(pairs, rows, weight - move)[0]) / (2 * step)
        close = np.isclose(slope[:, k], numerical, rtol=0.02, atol=0.02)
        assert close.mean() > 0.8  # a rectifier's kink may lie between


@variants
def test_what_is_read_once_gives_the_margins_of_pairs_one_by_one(conflicting, fitted, variant):
    """Of the users who are going, and with their derivatives; texts and pairs may repeat."""
    model, context = fitted(variant), conflicting.unseen_context.select(np.tile(np.arange(60), 2))
    rows = np.flatnonzero(context.code != 1)
    code, rng = context.code[rows], np.random.default_rng(0)
    weight, going = rng.dirichlet([1.0, 1.0], size=len(context.ids)), rng.random(len(context.ids)) < 0.6
    measure = model.measure(context, rows, code)
    there, margin, slope = measure(weight, going)
    np.testing.assert_array_equal(there, np.flatnonzero(going[code]))
    expected = model.margins(context, rows[there], weight[code[there]])
    np.testing.assert_allclose(margin, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(slope, expected[1], rtol=1e-4, atol=1e-5)


def test_nobody_has_no_pairs_to_measure(fitted, conflicting):
    nothing = conflicting.unseen_context.select(np.array([], dtype=int))
    measure = fitted("A").measure(nothing, np.array([], dtype=int), np.array([], dtype=int))
    there, margin, slope = measure(np.full((1, 2), 0.5), np.array([True]))
    assert len(there) == len(margin) == len(slope) == 0


@variants
def test_inference_ends_where_no_step_helps(conflicting, fitted, variant):
    model, context = fitted(variant), conflicting.unseen_context
    users = model.infer(context)
    precision = np.linalg.inv(model.population.covariance)
    measure = model.measure(context, np.arange(len(context)), context.code)

    def value(weight):
        logits = np.log(np.maximum(weight, 1e-12))
        logits -= logits.mean(axis=1, keepdims=True) - model.population.mean.mean()
        return posterior(measure, context.code, logits, model.population.mean, precision, np.ones(len(logits), dtype=bool))[0]

    best, rng = value(users.mean), np.random.default_rng(0)
    for _ in range(50):
        near = users.mean * np.exp(0.05 * rng.normal(size=users.mean.shape))
        assert (value(near / near.sum(axis=1, keepdims=True)) > best - 1e-3).all()


def test_the_hinge_is_another_loss(small):
    quick = {"hidden": 8, "dim": 4, "steps": 30}
    one, other = PAL(**quick).fit(small.seen), PAL(**quick, hinge=True).fit(small.seen)
    assert np.abs(one.margin(small.seen, one.users) - other.margin(small.seen, other.users)).max() > 1e-3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prototypes": 0}, "prototypes: expected a whole number of at least 1, got 0"),
        ({"variant": "C"}, "variant: expected 'A' or 'B', got 'C'"),
        ({"network_rate": 0.0}, r"network_rate: expected a positive number, got 0\.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        PAL(**parameters).fit(small.seen)


def test_who_else_is_inferred_has_no_part_in_a_user():
    """Some users of noise lie in valleys with a kink, where another step moves them little and their covariance a lot."""
    rng = np.random.default_rng(0)
    pairs = PairFeatures(np.repeat(np.arange(15), 8), rng.normal(size=(120, 4)), rng.normal(size=(120, 4)))
    model = PAL(steps=20).fit(pairs)
    together = model.infer(pairs)
    for user in range(15):
        alone = model.infer(pairs.select(pairs.user == str(user)))
        np.testing.assert_allclose(alone.mean, together.select(alone.ids).mean, atol=1e-6)
        np.testing.assert_allclose(alone.covariance, together.select(alone.ids).covariance, atol=1e-6)
