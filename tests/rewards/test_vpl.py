"""palm.rewards.vpl: what torch trains is what numpy applies, and users are told apart by their pairs."""

import tracemalloc

import numpy as np
import pytest
import torch

from palm.features.pairs import PairFeatures
from palm.rewards import VPL, vpl_model
from palm.rewards import vpl as module
from palm.rewards.episodes import deal, in_order, standardisation


def accuracy(model, pairs, users):
    return float((model.margin(pairs, users) > 0).mean())


def test_unseen_users_are_told_apart_by_their_pairs(conflicting):
    model = VPL(latent=8, hidden=48, steps=1200).fit(conflicting.seen)
    test = conflicting.unseen_test
    nobody = model.infer(test.select(np.array([], dtype=int)), ids=test.ids)
    assert accuracy(model, test, model.infer(conflicting.unseen_context)) > accuracy(model, test, nobody) + 0.05
    assert model.details["active_units"] == (model.users.mean.var(axis=0) > 0.005).sum() >= 1


def test_users_and_rewards_are_those_of_the_trained_module(conflicting):
    """One user at a time through torch's own layers, and attention written out by torch."""
    options = VPL(latent=3, hidden=10, steps=1)
    pairs = in_order(conflicting.seen)
    torch.manual_seed(0)
    part = module._module(options, pairs.width)
    standard = standardisation(pairs)
    model = options._finish(pairs, part, standard, [])
    for user in (0, 5):
        rows = np.flatnonzero(pairs.code == user)
        chosen, rejected = (torch.tensor((side[rows] - standard[0]) / standard[1]) for side in (pairs.chosen, pairs.rejected))
        with torch.no_grad():
            query, key, value = part.attention(part.encoder(torch.cat([chosen, rejected], dim=1))).chunk(3, dim=1)
            pooled = torch.nn.functional.scaled_dot_product_attention(query[None], key[None], value[None])[0].mean(dim=0)
            mean, log_variance = part.head(pooled).chunk(2)
            z = mean.expand(len(rows), -1)
            margin = part.reward(torch.cat([chosen, z], dim=1)) - part.reward(torch.cat([rejected, z], dim=1))
        np.testing.assert_allclose(model.seen.mean[user], mean.numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.diag(model.seen.covariance[user]), log_variance.clamp(-1, 1).exp().numpy(), rtol=1e-4)
        np.testing.assert_allclose(model.margin(pairs, model.seen)[rows], margin[:, 0].numpy(), rtol=1e-3, atol=1e-4)


def test_padding_does_not_reach_a_user(conflicting):
    """Users of different context sizes in one episode are read as each alone."""
    options = VPL(latent=3, hidden=10)
    pairs = in_order(conflicting.seen)
    torch.manual_seed(0)
    part, standard = module._module(options, pairs.width), standardisation(pairs)
    few = pairs.select(np.concatenate([np.flatnonzero(pairs.code == 0)[:3], np.flatnonzero(pairs.code == 1)[:20]]))
    episode = next(deal(few, context=10, batch_users=5, rng=np.random.default_rng(0)))
    together = module._users(options, part, few, standard, episode)[0]
    for user in range(2):
        rows = episode.context[episode.context_user == user]
        alone = type(episode)(1, rows, np.zeros(len(rows), dtype=int), rows, np.zeros(len(rows), dtype=int))
        torch.testing.assert_close(module._users(options, part, few, standard, alone)[0][0], together[user], rtol=1e-4, atol=1e-5)


def test_the_divergences_weight_rises_and_begins_anew():
    weights = [module.annealing(step / 100, 4) for step in range(100)]
    assert weights[0] == weights[25] == weights[50] == weights[75] == 0
    assert min(weights[i] for i in (24, 49, 74, 99)) > 0.99
    assert weights[12] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"latent": 0}, "latent: expected a whole number of at least 1, got 0"),
        ({"cycles": 0}, "cycles: expected a whole number of at least 1, got 0"),
        ({"kl_weight": float("inf")}, "kl_weight: expected at least 0, got inf"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        VPL(**parameters).fit(small.seen)


def test_a_user_of_many_pairs_is_read_in_bounded_memory_and_no_differently(fitted, small, monkeypatch):
    model = fitted("VPL")
    context = small.seen.select(small.seen.user == small.seen.ids[0])
    whole = model.infer(context)
    monkeypatch.setattr(vpl_model, "_LOGITS", 3 * len(context))
    np.testing.assert_allclose(model.infer(context).mean, whole.mean, rtol=1e-5, atol=1e-6)
    monkeypatch.undo()
    rows = np.random.default_rng(0).integers(len(small.seen), size=6000)
    many = PairFeatures.from_items(["a"] * 6000, small.seen.items, small.seen.chosen_row[rows], small.seen.rejected_row[rows])
    tracemalloc.start()
    assert np.isfinite(model.infer(many).mean).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 2**20  # all pairs with all at once: 144 MB for each of several arrays


def test_a_response_against_itself_changes_nobody(fitted, small):
    """By row, or by features alone; among other pairs it is as if it were not there."""
    model, context = fitted("VPL"), small.unseen_context
    plain = model.infer(context)
    same = np.r_[context.chosen, context.chosen], np.r_[context.rejected, context.chosen]
    among = model.infer(PairFeatures(np.r_[context.user, context.user], *same))
    np.testing.assert_allclose(among.mean, plain.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(among.covariance, plain.covariance, rtol=1e-5, atol=1e-6)


def test_the_population_is_of_users_whose_pairs_tell_something(small):
    seen = small.seen
    idle = seen.user == seen.ids[0]
    pairs = PairFeatures.from_items(seen.user, seen.items, seen.chosen_row, np.where(idle, seen.chosen_row, seen.rejected_row))
    model = VPL(latent=3, hidden=10, steps=5).fit(pairs)
    others = model.infer(pairs.select(~idle)).pooled()
    np.testing.assert_allclose(model.population.mean, others.mean, atol=1e-6)
    np.testing.assert_allclose(model.users.mean[0], model.population.mean[0], atol=1e-6)
    nothing = pairs.select(idle)
    np.testing.assert_array_equal(VPL(latent=3, hidden=10, steps=5).fit(nothing).users.mean, [[0, 0, 0]])
