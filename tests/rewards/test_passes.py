from dataclasses import replace

import numpy as np
import pytest
from planted_users import plant

from palm.rewards import LoRe, compact, passes
from palm.rewards.logistic import Standardised, log_loss
from palm.rewards.passes import descend_by_passes, weakly_penalised
from palm.rewards.simplex_users import Population, infer_weights


@pytest.fixture(scope="module")
def world():
    """Wide features, and nearly two texts to every pair."""
    return plant(width=120, users=40, pairs=30, alpha=0.05, texts=4000)


@pytest.fixture
def data(world, monkeypatch):
    monkeypatch.setattr(compact, "_LARGE", 0)
    return Standardised.of(world.seen)


def _begin(data, rank=3):
    rng = np.random.default_rng(0)
    return {
        "directions": np.zeros((len(data.scale), rank)),
        "weights": rng.dirichlet(np.ones(rank), size=len(data.pairs.ids)),
        "centre": np.zeros(len(data.scale)),
        "prior": Population.flat(rank, 0.1),
    }


def _total(data, directions, weights, penalty, centre):
    """The loss with penalties, from the pairs' own features."""
    pairs = data.pairs
    features = (pairs.items.rows(pairs.chosen_row) - pairs.items.rows(pairs.rejected_row)) / data.scale
    margin = ((features @ directions) * weights[pairs.code]).sum(axis=1)
    return log_loss(margin).sum() + penalty / 2 * ((directions - centre[:, None]) ** 2).sum()


def test_passes_go_most_of_the_way_that_many_rounds_of_l_bfgs_go(data):
    begin = _begin(data)
    directions, weights, total = descend_by_passes(data, **begin, penalty=0.05, rng=np.random.default_rng(1))
    assert total == pytest.approx(_total(data, directions, weights, 0.05, begin["centre"]), rel=1e-5)
    at_first = _total(data, begin["directions"], begin["weights"], 0.05, begin["centre"])
    least = LoRe(rank=3)._descend(data, directions, weights, begin["centre"], 0.05, rounds=40)[2]
    assert least <= total < least + 0.1 * (at_first - least)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_a_pass_is_adam_on_the_loss_with_penalties(data, monkeypatch):
    """Textbook Adam, with its bias corrections and a rate that falls linearly, on features taken pair by pair."""
    monkeypatch.setattr(passes, "_PASSES", 2)
    monkeypatch.setattr(passes, "_BATCH", 100)
    monkeypatch.setattr(passes, "_REACH", 4.0)
    rng = np.random.default_rng(3)
    begin = {**_begin(data), "centre": rng.normal(size=len(data.scale)) * 0.05}
    begin["directions"] = rng.normal(size=begin["directions"].shape) * 0.01
    found, weights, _ = descend_by_passes(data, **begin, penalty=200.0, rng=np.random.default_rng(1))

    pairs, orders = data.pairs, np.random.default_rng(1)
    features = (pairs.items.rows(pairs.chosen_row) - pairs.items.rows(pairs.rejected_row)) / data.scale
    v, w, steps, most = begin["directions"], begin["weights"], 0, 2 * 8  # 780 pairs in batches of 100
    mean = square = np.zeros_like(v)
    for _ in range(2):
        order, scores = orders.permutation(len(pairs)), np.zeros((len(pairs), 3))
        for start in range(0, len(pairs), 100):
            batch = order[start : start + 100]
            x, own = features[batch], w[pairs.code[batch]]
            scores[batch] = x @ v
            wrong = 1 / (1 + np.exp((scores[batch] * own).sum(axis=1)))
            gradient = 200.0 / len(pairs) * (v - begin["centre"][:, None]) - x.T @ (wrong[:, None] * own) / len(batch)
            steps += 1
            mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
            rate = 4 / len(v) * (1 - steps / (most + 1))
            v = v - rate * (mean / (1 - 0.9**steps)) / (np.sqrt(square / (1 - 0.999**steps)) + 1e-12)
        w = infer_weights(scores, pairs.code, len(w), begin["prior"], start=w, tolerance=1e-3)[0]
    np.testing.assert_allclose(found, v, atol=0.02 * np.abs(v).max())
    exact = infer_weights(features @ v, pairs.code, len(w), begin["prior"], tolerance=1e-8)[0]
    np.testing.assert_allclose(weights, exact, atol=0.05)


def test_the_penalty_draws_bases_to_the_centre(data):
    rng = np.random.default_rng(2)
    begin = {**_begin(data), "centre": rng.normal(size=len(data.scale)) * 0.01}
    begin["directions"] = np.repeat(begin["centre"][:, None], 3, axis=1)
    away = [
        np.abs(descend_by_passes(data, **begin, penalty=penalty, rng=np.random.default_rng(1))[0] - begin["centre"][:, None]).max()
        for penalty in (0.05, 1e3)
    ]
    assert 0 < away[1] < 0.2 * away[0]


def test_what_does_not_help_is_taken_back(data, monkeypatch):
    begin = _begin(data)
    good = descend_by_passes(data, **begin, penalty=0.05, rng=np.random.default_rng(1))
    monkeypatch.setattr(passes, "_REACH", 1e7)
    again = {**begin, "directions": good[0], "weights": good[1]}
    directions, _, total = descend_by_passes(data, **again, penalty=0.05, rng=np.random.default_rng(1))
    assert np.array_equal(directions, good[0])
    assert total == pytest.approx(good[2], rel=1e-6)


def test_they_are_for_weak_penalties_and_a_text_to_each_pair(data, world):
    most = 1e-4 * len(data.pairs)
    assert weakly_penalised(data, most)
    assert not weakly_penalised(data, 1.01 * most)
    assert not weakly_penalised(replace(data, compact=None), most)
    assert not weakly_penalised(replace(data, compact=replace(data.compact, span=None)), most)
    shared = plant(width=120, users=40, pairs=30, alpha=0.05, texts=100).seen
    assert not weakly_penalised(Standardised.of(shared), most)


def test_a_weakly_penalised_fit_uses_them_and_repeats_itself(data, world, monkeypatch):
    made = LoRe(rank=3, penalty=0.05, personal_penalty=0.05, restarts=0, rounds=1)
    models = [made.fit(world.seen, seed=1) for _ in range(2)]
    assert np.array_equal(models[0].directions, models[1].directions)
    monkeypatch.setattr("palm.rewards.lore.weakly_penalised", lambda data, penalty: False)
    plain = made.fit(world.seen, seed=1)

    def loss(model):
        return log_loss(model.margin(world.seen, model.users)).mean()

    assert loss(models[0]) < loss(plain)
