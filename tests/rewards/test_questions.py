"""palm.rewards.questions: what a question is worth, and that good questions tell more than random ones."""

import numpy as np
import pytest

from palm.evaluation import accuracy
from palm.features.pairs import PairFeatures
from palm.rewards import LoRe, PReF
from palm.rewards.questions import RULES, ask, design, information


def test_information_is_that_of_a_large_sample():
    rng = np.random.default_rng(0)
    for mean, variance in ((0.0, 1.0), (2.0, 0.5), (-1.0, 9.0), (0.3, 1e-6)):
        yes = 1 / (1 + np.exp(-(mean + np.sqrt(variance) * rng.normal(size=400_000))))

        def entropy(p):
            return -(p * np.log(p) + (1 - p) * np.log1p(-p))

        expected = entropy(yes.mean()) - entropy(yes).mean()
        assert information(np.array([mean]), np.array([variance]))[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("worth", [information, design])
def test_worth_does_not_depend_on_the_answer_and_is_nothing_where_nothing_is_unsure(worth):
    mean, variance = np.linspace(-5, 5, 11), np.linspace(0.1, 4, 11)
    np.testing.assert_allclose(worth(mean, variance), worth(-mean, variance), atol=1e-12)
    np.testing.assert_allclose(worth(mean, np.zeros(11)), 0, atol=1e-12)
    np.testing.assert_allclose(worth(np.array([1e4, -1e4]), np.array([1.0, 1.0])), 0, atol=1e-12)
    assert (np.diff(worth(np.zeros(11), variance)) > 0).all()


@pytest.fixture(scope="module")
def world(planted):
    return planted(users=240, pairs=60, width=12, bases=4, sharpness=2.0, alpha=0.3)


@pytest.fixture(scope="module")
def fitted(world):
    return LoRe(rank=4).fit(world.seen)


@pytest.mark.parametrize("rule", RULES)
def test_everyone_is_asked_their_own_pairs_once(world, fitted, rule):
    pool = world.unseen_context
    asked = ask(fitted, pool, budget=7, rule=rule)
    assert asked.rows.shape == (len(pool.ids), 7)
    assert (asked.rows >= 0).all()
    assert len(set(asked.rows.ravel())) == asked.rows.size
    np.testing.assert_array_equal(pool.user[asked.rows], np.repeat(asked.ids[:, None], 7, axis=1))
    assert sorted(asked.first(3)) == sorted(asked.rows[:, :3].ravel())
    np.testing.assert_array_equal(ask(fitted, pool, budget=7, rule=rule).rows, asked.rows)


@pytest.mark.parametrize("rule", ["information", "design"])
def test_the_choice_does_not_look_at_the_answers(world, fitted, rule):
    pool = world.unseen_context
    turned = PairFeatures.from_items(pool.user, pool.items, pool.rejected_row, pool.chosen_row)
    first = [ask(fitted, pairs, budget=1, rule=rule).rows[:, 0] for pairs in (pool, turned)]
    np.testing.assert_array_equal(*first)


@pytest.mark.parametrize("estimator", [LoRe(rank=4), PReF(rank=4)])
def test_five_good_questions_tell_as_much_as_ten_random_ones(world, estimator):
    model, pool, test = estimator.fit(world.seen), world.unseen_context, world.unseen_test

    def after(rule, count):
        asked = ask(model, pool, budget=count, rule=rule)
        return accuracy(model, test, model.infer(pool.select(asked.first(count)), ids=test.ids)).overall.mean

    assert after("information", 5) >= after("random", 10) - 0.01
    assert after("information", 5) > after("random", 5)


def test_who_is_known_well_enough_is_asked_no_more(world, fitted):
    pool = world.unseen_context
    asked = ask(fitted, pool, budget=25, stop=0.02)
    count = (asked.rows >= 0).sum(axis=1)
    assert count.min() < 25
    assert count.max() > 1
    for user in range(len(pool.ids)):  # nothing after the end, and nothing of less worth than asked for
        assert (asked.rows[user, count[user] :] == -1).all()
        assert (asked.worth[user, : count[user]] >= 0.02).all()


def test_pools_that_run_out_are_asked_to_their_end(world, fitted):
    pool = world.unseen_context.select(np.concatenate([[0, 1, 2], np.flatnonzero(world.unseen_context.code == 3)[:1]]))
    asked = ask(fitted, pool, budget=9)
    assert sorted(asked.first(9)) == list(range(len(pool)))
    empty = pool.select(np.array([], dtype=int))
    assert ask(fitted, empty, budget=2).rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "best", "budget": 1}, "rule: expected one of information, design, random, got 'best'"),
        ({"budget": 0}, "budget: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(world, fitted, options, message):
    with pytest.raises(ValueError, match=message):
        ask(fitted, world.unseen_context, **options)
