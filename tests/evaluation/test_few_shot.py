"""palm.evaluation.few_shot: contexts grow, and more pairs tell more."""

import numpy as np
import pytest

from palm.evaluation import accuracy, few_shot
from palm.rewards import BradleyTerry, LoRe


@pytest.fixture(scope="module")
def fitted(conflicting):
    return LoRe(rank=2).fit(conflicting.seen)


def test_more_pairs_tell_more_and_none_tells_the_populations_mean(conflicting, fitted):
    context, test = conflicting.unseen_context, conflicting.unseen_test
    curve = few_shot(fitted, context, test)
    means = [found.overall.mean for found in curve.accuracy]
    nobody = fitted.infer(context.select(np.array([], dtype=int)), ids=test.ids)
    assert means[0] == accuracy(fitted, test, nobody).overall.mean
    assert means[-1] == accuracy(fitted, test, fitted.infer(context)).overall.mean  # everyone has 20 pairs
    assert means[-1] > means[0] + 0.05
    for gain in curve.gain:  # no point falls below the population's mean by more than its interval
        assert gain.high >= 0
    assert curve.gain[0].mean == 0
    assert [row["shots"] for row in curve.record()] == [0, 1, 3, 5, 10, 20]


def test_the_order_of_the_pairs_has_no_part_in_it(conflicting, fitted):
    context, test = conflicting.unseen_context, conflicting.unseen_test
    mixed = context.select(np.random.default_rng(0).permutation(len(context)))
    one, other = (few_shot(fitted, pairs, test, shots=(2, 4)).record() for pairs in (context, mixed))
    for mine, theirs in zip(one, other, strict=True):
        assert mine["accuracy"] == theirs["accuracy"]
        assert mine["log_loss"] == pytest.approx(theirs["log_loss"], rel=1e-9)  # sums in another order round differently
    assert one != few_shot(fitted, context, test, shots=(2, 4), seed=1).record()


def test_who_is_served_by_one_reward_gains_nothing(conflicting):
    model = BradleyTerry().fit(conflicting.seen)
    curve = few_shot(model, conflicting.unseen_context, conflicting.unseen_test, shots=(0, 5))
    assert curve.gain[1].mean == 0


@pytest.mark.parametrize("shots", [(), (3, 1), (1, 1), (-1, 2)])
def test_sizes_that_do_not_grow_are_refused(conflicting, fitted, shots):
    with pytest.raises(ValueError, match="shots: expected increasing numbers of at least 0"):
        few_shot(fitted, conflicting.unseen_context, conflicting.unseen_test, shots=shots)
