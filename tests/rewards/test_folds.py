"""palm.rewards.folds: what is held out shares no group with what is fitted on, or no user and no text."""

import numpy as np
import pytest

from palm.features.pairs import PairFeatures
from palm.rewards import BradleyTerry, LoRe, PReF
from palm.rewards.folds import choose_penalty, inner_folds, search_penalties, split_folds
from palm.rewards.logistic import Standardised, fit_population, log_loss


def test_folds_keep_groups_together_and_are_of_about_equal_size(small):
    fold = inner_folds(small.seen, 5, np.random.default_rng(0))
    for group in np.unique(small.seen.group):
        assert len(set(fold[small.seen.group == group])) == 1
    groups = [len(set(small.seen.group[fold == number])) for number in range(5)]
    assert max(groups) - min(groups) <= 1
    assert set(fold) == set(range(5))


def test_without_groups_a_texts_pairs_stay_together():
    pairs = PairFeatures.from_items(["a"] * 6, np.eye(6), np.array([0, 0, 1, 1, 2, 2]), np.array([3, 4, 5, 3, 4, 5]))
    fold = inner_folds(pairs, 5, np.random.default_rng(0))
    assert fold[0] == fold[1] != fold[2] == fold[3] != fold[4] == fold[5]
    assert fold.max() == 2


def test_one_group_is_split_by_pairs_and_one_pair_not_at_all():
    pairs = PairFeatures(["a"] * 4, np.eye(4), np.zeros((4, 4)), group=["g"] * 4)
    assert sorted(inner_folds(pairs, 5, np.random.default_rng(0))) == [0, 1, 2, 3]
    one = pairs.select(np.array([0]))
    assert inner_folds(one, 5, np.random.default_rng(0)).tolist() == [0]
    assert choose_penalty(split_folds(Standardised.of(one), seed=0)) == (100.0, {})


def test_held_out_losses_are_those_of_a_plain_cross_validation(small):
    data = Standardised.of(small.seen)
    penalty, losses = choose_penalty(split_folds(data, seed=4))
    fold = inner_folds(small.seen, 5, np.random.default_rng(4))
    for name, loss in losses.items():
        total = 0.0
        for number in range(5):
            direction = fit_population(data.select(fold != number), float(name))
            total += log_loss(data.select(fold == number).scores(direction[:, None])[:, 0]).sum()
        assert loss == pytest.approx(total / len(small.seen), rel=1e-2)
    assert losses[str(penalty)] == min(losses.values())


def jokers(users=60, texts=24, judged=20, seed=0):
    """People who judge the same few texts: texts are told apart by identity, and two kinds of people like different ones."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(2, texts)) * 1.5
    kind = rng.integers(2, size=users)
    user, chosen, rejected = [], [], []
    for index in range(users):
        one, other = np.triu_indices(texts, 1)
        drawn = rng.permutation(len(one))[: judged * 3]
        for a, b in zip(one[drawn], other[drawn], strict=True):
            wins = rng.random() < 1 / (1 + np.exp(-(taste[kind[index], a] - taste[kind[index], b])))
            user.append(f"u{index:02d}")
            chosen.append(a if wins else b)
            rejected.append(b if wins else a)
    return PairFeatures.from_items(user, np.eye(texts, dtype=np.float32), np.array(chosen), np.array(rejected)), kind


def test_without_groups_users_are_held_out_and_judged_on_texts_they_were_not_inferred_from():
    pairs, _ = jokers()
    parts = split_folds(Standardised.of(pairs), seed=0)
    assert len(parts) == 5
    tested = []
    for part in parts:
        assert part.context is not None
        held_out = set(part.test.pairs.user)
        assert not held_out & set(part.train.pairs.user)
        assert held_out == set(part.context.pairs.user)
        tested += sorted(held_out)
        for user in held_out:
            sides = []
            for side in (part.context.pairs, part.test.pairs):
                own = side.select(side.user == user)
                sides.append(set(own.chosen_row) | set(own.rejected_row))
            assert not sides[0] & sides[1]
    assert sorted(tested) == pairs.ids.tolist()


def test_the_order_of_the_pairs_has_no_part_in_it():
    pairs, _ = jokers()
    mixed = pairs.select(np.random.default_rng(1).permutation(len(pairs)))

    def content(part):
        return sorted(zip(part.pairs.user, part.pairs.chosen_row, part.pairs.rejected_row, strict=True))

    for one, other in zip(split_folds(Standardised.of(pairs), seed=3), split_folds(Standardised.of(mixed), seed=3), strict=True):
        assert content(one.test) == content(other.test)
        assert content(one.context) == content(other.context)


def test_pairs_of_texts_that_nobody_judged_twice_are_all_used():
    pairs = PairFeatures([f"u{n % 10}" for n in range(200)], np.random.default_rng(0).normal(size=(200, 3)), np.zeros((200, 3)))
    parts = split_folds(Standardised.of(pairs), seed=0)
    assert sum(len(part.test.pairs) + len(part.context.pairs) for part in parts) == 200


@pytest.mark.parametrize("group", [None, "same"])
@pytest.mark.parametrize("method", [LoRe, PReF])
def test_what_is_personal_is_found_where_everyone_judges_the_same_texts(method, group):
    """With texts held out nothing of an identity could be learned, and all would fall back to one reward for everyone."""
    pairs, kind = jokers()
    if group:
        pairs = PairFeatures.from_items(pairs.user, pairs.items, pairs.chosen_row, pairs.rejected_row, group=[group] * len(pairs))
    model = method(rank=2).fit(pairs)
    weight = model.users.mean[:, 0]
    split = [weight[kind == 0], weight[kind == 1]]
    low, high = sorted(split, key=np.median)
    assert (low < np.median(weight)).mean() > 0.85 or (high > np.median(weight)).mean() > 0.85
    agreed = (model.margin(pairs, model.users) > 0).mean()
    common = BradleyTerry().fit(pairs)
    assert agreed > (common.margin(pairs, common.infer(pairs)) > 0).mean() + 0.08


def test_penalties_are_searched_from_strong_to_weak_until_two_are_not_the_best():
    tried = []

    def search(losses):
        tried.clear()
        return search_penalties(losses, lambda penalty: tried.append(penalty) or losses[penalty])

    best, told = search({1.0: 9.0, 10.0: 3.0, 100.0: 2.0, 1000.0: 5.0, 3.0: 2.5})
    assert (best, tried) == (100.0, [1000.0, 100.0, 10.0, 3.0])  # two worse ones; that the second is better again changes nothing
    assert told == {"1000.0": 5.0, "100.0": 2.0, "10.0": 3.0, "3.0": 2.5}
    best, _ = search({np.inf: 2.0, 300.0: 2.01, 100.0: 2.0, 30.0: 2.1, 10.0: 2.05, 3.0: 1.0, 1.0: 4.0, 0.3: 5.0, 0.1: 0.0})
    assert (best, tried) == (3.0, [np.inf, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3])  # none is as bad as to stop at infinity
    best, _ = search({np.inf: 2.0, 30.0: 2.1, 10.0: 2.3, 3.0: 0.1})
    assert (best, tried) == (np.inf, [np.inf, 30.0, 10.0])
    assert search({10.0: np.nan, 3.0: 1.0})[0] == 3.0
