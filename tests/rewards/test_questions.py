"""palm.rewards.questions: the next question is the one that the simulation asks, and good ones tell more than random ones."""

import numpy as np
import pytest

from palm.evaluation import accuracy
from palm.features.pairs import PairFeatures
from palm.rewards import VRF, BradleyTerry, LoRe, PReF, Reference
from palm.rewards.questions import RULES, ask, next_question
from palm.rewards.worth import design, information


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
        ({"budget": 0}, "budget: expected a whole number of at least 1, got 0"),
        ({"budget": 2.5}, "budget: expected a whole number of at least 1, got 2.5"),
        ({"budget": True}, "budget: expected a whole number of at least 1, got True"),
        ({"budget": 1, "stop": float("nan")}, "stop: expected a number, got nan"),
        ({"budget": 1, "stop": "0.1"}, "stop: expected a number, got '0.1'"),
    ],
)
def test_bad_arguments_are_refused(world, fitted, options, message):
    with pytest.raises(ValueError, match=message):
        ask(fitted, world.unseen_context, **options)


def one_user(pairs, number=0):
    return pairs.select(np.flatnonzero(pairs.code == number))


def turned(pairs, rows):
    """The same pairs, of which some have their sides changed."""
    change = np.isin(np.arange(len(pairs)), rows)
    sides = np.where(change, pairs.rejected_row, pairs.chosen_row), np.where(change, pairs.chosen_row, pairs.rejected_row)
    return PairFeatures.from_items(pairs.user, pairs.items, *sides)


@pytest.fixture(scope="module")
def models(world, fitted):
    few = world.seen.select(np.flatnonzero(world.seen.code < 40))
    return {"LoRe": fitted, "PReF": PReF(rank=3).fit(few), "VRF": VRF(rank=3, steps=60, dim=8, hidden=16).fit(few)}


@pytest.mark.parametrize("name", ["LoRe", "PReF", "VRF"])
@pytest.mark.parametrize("rule", ["information", "design"])
def test_the_next_question_is_the_one_that_the_simulation_asks(world, models, name, rule):
    """Answer by answer, with the answered pairs among the candidates, which may come either way round."""
    pool, model = one_user(world.unseen_context, 5), models[name]
    asked = ask(model, pool, budget=6, rule=rule)
    for step in range(6):
        found = next_question(model, pool.select(asked.rows[0, :step]), turned(pool, range(0, len(pool), 2)), rule=rule)
        assert found.index == asked.rows[0, step]
        rounding = 1e-6 if name == "VRF" else 1e-9  # VRF's network computes in float32, turned pairs in another order
        assert found.value == pytest.approx(asked.worth[0, step], rel=rounding)
        assert not found.stop
        assert sorted(found.order) == sorted(set(range(len(pool))) - set(asked.rows[0, :step]))
        assert (np.diff(found.values) <= 0).all()


@pytest.mark.parametrize(("rule", "worth"), [("information", information), ("design", design)])
def test_the_next_question_is_the_best_of_all(world, fitted, rule, worth):
    answered, candidates = one_user(world.unseen_context, 2), one_user(world.unseen_test, 2)
    scores, posterior = fitted.pair_scores(candidates), fitted.infer(answered)
    every = [
        worth(np.array([score @ posterior.mean[0]]), np.array([score @ posterior.covariance[0] @ score]))[0] for score in scores
    ]
    found = next_question(fitted, answered, candidates, rule=rule)
    assert found.index == int(np.argmax(every))
    np.testing.assert_allclose(found.values, sorted(every, reverse=True), rtol=1e-9)
    given = next_question(fitted, answered, scores, rule=rule)
    assert given.index == found.index
    np.testing.assert_array_equal(given.order, found.order)


def test_the_stopping_rule_is_that_of_the_simulation(world, fitted):
    pool = world.unseen_context
    asked = ask(fitted, pool, budget=25, stop=0.02)
    for user in range(0, len(pool.ids), 10):
        rows = asked.rows[user][asked.rows[user] >= 0]
        mine = one_user(pool, user)
        assert not next_question(fitted, pool.select(rows[:-1]), mine, stop=0.02).stop
        if len(rows) < 25:
            after = next_question(fitted, pool.select(rows), mine, stop=0.02)
            assert after.stop
            assert after.value < 0.02


def test_answered_candidates_are_told_by_their_features(world, fitted):
    """Also where texts are stored anew; of scores nothing can be told."""
    answered = one_user(world.unseen_context)
    copied = PairFeatures(user=answered.user, chosen=answered.rejected, rejected=answered.chosen)
    none = next_question(fitted, answered, copied)
    assert (none.index, none.value, none.stop, len(none.order)) == (None, 0.0, True, 0)
    assert next_question(fitted, answered, fitted.pair_scores(copied)).index is not None


def test_nobody_in_particular_is_asked_what_the_population_says(world, fitted):
    pool = one_user(world.unseen_context)
    none = pool.select(np.array([], dtype=int))
    found = next_question(fitted, none, pool)
    assert found.index == ask(fitted, pool, budget=1).rows[0, 0]
    assert next_question(fitted, none, fitted.pair_scores(pool)).index == found.index


def test_random_questions_are_drawn_by_the_seed(world, fitted):
    pool = one_user(world.unseen_context)
    none = pool.select(np.array([], dtype=int))
    drawn = [next_question(fitted, none, pool, rule="random", seed=seed, stop=9.0) for seed in range(30)]
    assert len({question.index for question in drawn}) > 5
    assert not any(question.stop for question in drawn)
    assert drawn[3].index == next_question(fitted, none, pool, rule="random", seed=3).index


NO_PAIRS = np.array([], dtype=int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told, pool: {"candidates": pool.select(NO_PAIRS)}, "candidates: expected at least one pair, got none"),
        (lambda told, pool: {"candidates": np.zeros((0, 4))}, "candidates: expected at least one pair, got none"),
        (lambda told, pool: {"candidates": narrow(pool)}, "candidates: expected 12 numbers per text as in the fit, got 11"),
        (lambda told, pool: {"answered": narrow(told)}, "answered: expected 12 numbers per text as in the fit, got 11"),
        (lambda told, pool: {"candidates": np.zeros((3, 5))}, r"candidates: expected finite scores in the shape \(n, 4\)"),
        (lambda told, pool: {"candidates": np.full((3, 4), np.nan)}, r"candidates: expected finite scores in the shape \(n, 4\)"),
        (lambda told, pool: {"candidates": renamed(pool, "x")}, "expected pairs of one user, got those of u160, x"),
        (lambda told, pool: {"answered": renamed(told, "x", "y"), "candidates": np.zeros((3, 4))}, "answered: .* of x, y"),
        (lambda told, pool: {"stop": float("nan")}, "stop: expected a number, got nan"),
        (lambda told, pool: {"rule": "best"}, "rule: expected one of information, design, random, got 'best'"),
    ],
)
def test_a_next_question_that_cannot_be_told_is_refused(world, fitted, change, message):
    told, pool = one_user(world.unseen_context), one_user(world.unseen_test)
    with pytest.raises(ValueError, match=message):
        next_question(fitted, **{"answered": told, "candidates": pool, **change(told, pool)})


def narrow(pairs):
    return PairFeatures(user=pairs.user, chosen=pairs.chosen[:, 1:], rejected=pairs.rejected[:, 1:])


def renamed(pairs, *names):
    return PairFeatures(user=np.resize(names, len(pairs)), chosen=pairs.chosen, rejected=pairs.rejected)


@pytest.mark.parametrize("estimator", [BradleyTerry(), Reference()])
def test_models_without_weights_have_no_question(world, estimator):
    pool = one_user(world.unseen_context)
    model = estimator.fit(world.seen)
    with pytest.raises(TypeError, match=r"model: expected one with pair_scores \(of LoRe, PReF, VRF, Given\)"):
        next_question(model, pool, pool)
