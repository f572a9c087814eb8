"""palm.rewards.vrf: the published loss, part by part, and users read from their pairs as Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from palm.features.pairs import PairFeatures
from palm.rewards import VRF
from palm.rewards import vrf as module
from palm.rewards.episodes import deal, in_order, standardisation

QUICK = {"rank": 3, "dim": 5, "hidden": 12, "steps": 1}


def accuracy(model, pairs, users):
    return float((model.margin(pairs, users) > 0).mean())


@pytest.fixture(scope="module")
def fitted(conflicting):
    return VRF(rank=2, dim=16, steps=600).fit(conflicting.seen, seed=1)


def test_unseen_users_are_predicted_nearly_as_well_as_by_the_truth(conflicting, fitted):
    test = conflicting.unseen_test
    truth = float((conflicting.logits(test) > 0).mean())
    users = fitted.infer(conflicting.unseen_context)
    assert accuracy(fitted, test, users) > truth - 0.06
    nobody = fitted.infer(test.select(np.array([], dtype=int)), ids=test.ids)
    assert accuracy(fitted, test, users) > accuracy(fitted, test, nobody) + 0.05


def test_users_without_pairs_have_the_seen_users_mean_and_spread(fitted):
    nobody = fitted.infer(fitted_context(fitted).select(np.array([], dtype=int)), ids=np.array(["x"]))
    np.testing.assert_allclose(nobody.mean[0], fitted.seen.mean.mean(axis=0), atol=1e-12)
    away = fitted.seen.mean - fitted.seen.mean.mean(axis=0)
    np.testing.assert_allclose(
        nobody.covariance[0], fitted.seen.covariance.mean(axis=0) + away.T @ away / len(fitted.seen), atol=1e-12
    )


def fitted_context(fitted):
    width = len(fitted.centre)
    return PairFeatures(["a"] * 3, np.eye(3, width), np.zeros((3, width)))


@pytest.mark.parametrize("product", [True, False])
def test_a_user_is_the_product_or_the_mean_of_their_pairs_gaussians(conflicting, product):
    """Recounted pair by pair; and the order and number of users asked for together do not matter."""
    model = VRF(**QUICK, product=product).fit(conflicting.seen)
    context = conflicting.unseen_context
    together = model.infer(context)
    for position in (0, 7):
        rows = np.flatnonzero(context.user == together.ids[position])
        chosen, rejected = ((side[rows] - model.centre) / model.scale for side in (context.chosen, context.rejected))
        read = model.encoder(np.hstack([(chosen + rejected) / 2, chosen - rejected])).astype(float)
        mean, variance = read[:, :5], np.exp(2 * read[:, 5:])
        if product:
            precision = sum(1 / v for v in variance)
            user_mean, user_variance = sum(m / v for m, v in zip(mean, variance, strict=True)) / precision, 1 / precision
        else:
            user_mean, user_variance = mean.mean(axis=0), variance.mean(axis=0)
        distance = [
            (np.sum((user_mean - m) ** 2) + np.sum((np.sqrt(user_variance) - d) ** 2)) / 2
            for m, d in zip(model.basis_mean, model.basis_deviation, strict=True)
        ]
        weight = np.exp(-np.array(distance))
        np.testing.assert_allclose(together.mean[position], weight / weight.sum(), rtol=1e-4)
        alone = model.infer(context.select(rows))
        np.testing.assert_allclose(alone.mean[0], together.mean[position], rtol=1e-5)


def test_active_units_are_counted_among_the_users_gaussians(conflicting, fitted):
    """Recounted user by user; users told apart in some numbers, and in none where the prior leaves no room."""
    pairs = conflicting.seen
    means = []
    for user in pairs.ids:
        rows = pairs.user == user
        chosen, rejected = ((side[rows] - fitted.centre) / fitted.scale for side in (pairs.chosen, pairs.rejected))
        read = fitted.encoder(np.hstack([(chosen + rejected) / 2, chosen - rejected])).astype(float)
        precision = np.exp(-2 * read[:, 16:])
        means.append((read[:, :16] * precision).sum(axis=0) / precision.sum(axis=0))
    expected = sum(np.mean((column - np.mean(column)) ** 2) > 0.005 for column in np.transpose(means))
    assert fitted.details["active_units"] == expected
    assert 1 <= expected <= 16
    collapsed = VRF(rank=2, dim=16, steps=300, kl_weight=100.0, mixture=False).fit(pairs, seed=1)
    assert collapsed.details["active_units"] == 0
    assert np.ptp(collapsed.users.mean, axis=0).max() < 0.05 < np.ptp(fitted.users.mean, axis=0).max()


@pytest.mark.parametrize("variance", [1e-4, 0.03, 1.0, 30.0])
def test_covariances_are_those_of_draws_from_the_user(fitted, variance):
    rng = np.random.default_rng(0)
    mean, spread = rng.normal(size=(1, 16)) * 0.3, np.full((1, 16), variance)
    covariance = fitted.weigh(mean, spread)[1][0]
    draws = mean + np.sqrt(spread) * rng.normal(size=(20_000, 16))
    drawn = np.cov(fitted.weigh(draws, np.repeat(spread, 20_000, axis=0))[0].T)
    np.testing.assert_allclose(covariance, drawn, atol=0.2 * np.trace(drawn))
    assert np.trace(covariance) == pytest.approx(np.trace(drawn), rel=0.25)
    assert np.trace(covariance) < 1
    np.testing.assert_allclose(covariance.sum(axis=0), 0, atol=1e-12)


def published(options, part, pairs, episode):
    """The loss of an episode with numpy, from the module's formulas, without the sampled divergence."""
    (centre, scale), total = standardisation(pairs), []
    x = (pairs.items.rows(np.arange(len(pairs.items))) - centre) / scale
    with torch.no_grad():
        phi = part.rewards(torch.from_numpy(x)).numpy().astype(float)
        means, deviations = part.mean.numpy().astype(float), np.exp(part.log_deviation.numpy().astype(float))
        for user in range(episode.users):
            rows = episode.context[episode.context_user == user]
            one, other = x[pairs.chosen_row[rows]], x[pairs.rejected_row[rows]]
            read = part.encoder(torch.from_numpy(np.hstack([(one + other) / 2, one - other]))).numpy().astype(float)
            m, v = read[:, : options.dim], np.exp(2 * read[:, options.dim :])
            precision = (1 / v).sum(axis=0)
            mean, deviation = (m / v).sum(axis=0) / precision, np.sqrt(1 / precision)
            distance = (((mean - means) ** 2).sum(axis=1) + ((deviation - deviations) ** 2).sum(axis=1)) / 2
            w = np.exp(-distance / options.temperature)
            w /= w.sum()
            for row in episode.target[episode.target_user == user]:
                d = phi[pairs.chosen_row[row]] - phi[pairs.rejected_row[row]]
                margin = w @ d
                if options.uncertain:
                    margin /= np.sqrt(1 + np.pi * (w @ (d - w @ d) ** 2) / 8)
                total.append(np.log1p(np.exp(-margin)))
    loss = np.mean(total)
    if options.separation:
        for i in range(options.rank):
            for j in range(i + 1, options.rank):
                apart = (np.sum((means[i] - means[j]) ** 2) + np.sum((deviations[i] - deviations[j]) ** 2)) / 2
                loss += max(0.0, options.margin - apart)
    return loss


@pytest.mark.parametrize("switches", [{}, {"uncertain": False}, {"separation": False}, {"temperature": 3.0}])
def test_loss_equals_an_independent_recount(conflicting, switches):
    options = VRF(**QUICK, regulariser=False, **switches)
    pairs = in_order(conflicting.seen)
    torch.manual_seed(0)
    part = options.module(pairs.width)
    part.log_deviation.data = 0.3 * torch.randn_like(part.log_deviation)
    part.mean.data = part.mean.data * torch.tensor([[1.0], [3.0], [9.0]])
    episode = next(deal(pairs, context=5, batch_users=6, rng=np.random.default_rng(0)))
    found = module._loss(options, part, pairs, standardisation(pairs), episode, None).item()
    assert found == pytest.approx(published(options, part, pairs, episode), rel=1e-5)


def test_the_divergence_from_a_mixture_of_one_and_from_a_standard_normal_are_known():
    options = replace(VRF(**QUICK), rank=1, samples=20_000)
    part = torch.nn.Module()
    part.mean, part.log_deviation = torch.zeros(1, 5), torch.zeros(1, 5)
    mean, variance = torch.tensor([[0.5, -1.0, 0.0, 0.0, 2.0]]), torch.tensor([[1.0, 0.5, 2.0, 1.0, 0.1]])
    exact = replace(options, mixture=False).divergence(part, mean, variance, None)
    by_hand = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(torch.zeros(5), torch.ones(5))
    ).sum(dim=1)
    torch.testing.assert_close(exact, by_hand)
    noise = torch.randn((options.samples, 1, 5), generator=torch.Generator().manual_seed(0))
    sampled = options.divergence(part, mean, variance, noise)
    torch.testing.assert_close(sampled, by_hand, rtol=0.03, atol=0)


@pytest.mark.parametrize("switch", ["uncertain", "separation", "regulariser", "mixture", "product"])
def test_every_switch_changes_what_is_learned(small, switch):
    base = VRF(rank=3, dim=4, hidden=8, steps=30, kl_weight=0.1)
    one, other = base.fit(small.seen), replace(base, **{switch: False}).fit(small.seen)
    assert np.abs(one.users.mean - other.users.mean).max() > 1e-6


def test_contexts_are_dealt_anew_and_share_no_pair_with_targets(conflicting):
    pairs = in_order(conflicting.seen)
    rng, seen = np.random.default_rng(0), []
    for _ in range(2):
        users, context = 0, set()
        for episode in deal(pairs, context=7, batch_users=16, rng=rng):
            assert not set(episode.context) & set(episode.target)
            assert np.bincount(episode.context_user, minlength=episode.users).max() <= 7
            for rows, whose in ((episode.context, episode.context_user), (episode.target, episode.target_user)):
                assert all(len(set(pairs.user[rows[whose == user]])) <= 1 for user in range(episode.users))
            users += episode.users
            context |= set(episode.context)
        assert users == len(pairs.ids)
        seen.append(context)
    assert seen[0] != seen[1]


def test_someone_with_one_pair_is_told_and_asked_it():
    pairs = PairFeatures(["a", "b", "b", "b"], np.eye(4), np.zeros((4, 4)))
    (episode,) = deal(pairs, context=9, batch_users=5, rng=np.random.default_rng(0))
    number = episode.target_user[list(episode.target).index(0)]
    assert episode.context[episode.context_user == number].tolist() == [0]
    assert sorted(np.bincount(episode.context_user).tolist()) == [1, 1]  # no more than half of b's three


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank: expected a whole number of at least 1, got 0"),
        ({"dim": 1.5}, r"dim: expected a whole number of at least 1, got 1\.5"),
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"context": -1}, "context: expected a whole number of at least 1, got -1"),
        ({"temperature": 0.0}, r"temperature: expected a positive number, got 0\.0"),
        ({"kl_weight": -1.0}, r"kl_weight: expected at least 0, got -1\.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a positive number, got nan"),
        ({"weight_decay": -0.1}, r"weight_decay: expected at least 0, got -0\.1"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        VRF(**parameters).fit(small.seen)


def test_pairs_of_equal_texts_tell_nothing(fitted, conflicting):
    pairs = conflicting.unseen_context
    same = PairFeatures.from_items(pairs.user, pairs.items, pairs.chosen_row, pairs.chosen_row)
    silent = fitted.infer(same)
    np.testing.assert_array_equal(silent.mean, np.repeat(fitted.population.mean, len(silent), axis=0))
    both = PairFeatures.from_items(
        np.concatenate([pairs.user, same.user]),
        pairs.items,
        np.concatenate([pairs.chosen_row, same.chosen_row]),
        np.concatenate([pairs.rejected_row, same.rejected_row]),
    )
    np.testing.assert_allclose(fitted.infer(both).mean, fitted.infer(pairs).mean, atol=1e-12)


def test_seen_users_who_never_told_anything_leave_a_model(small):
    pairs = small.seen
    same = PairFeatures.from_items(pairs.user, pairs.items, pairs.chosen_row, pairs.chosen_row)
    model = VRF(rank=3, steps=2).fit(same)
    np.testing.assert_allclose(model.users.mean, 1 / 3)
    np.testing.assert_allclose(np.trace(model.population.covariance[0]), (1 - 1 / 3) / 4)
