"""palm.evaluation.methods: methods are judged on the same users, over splits, and against Bradley-Terry."""

from dataclasses import replace

import numpy as np
import pytest

from palm.evaluation import accuracy, accuracy_by_uncertainty, compare, pooled
from palm.evaluation.few_shot import rank_within_user
from palm.evaluation.methods import compare_methods, estimator, judge
from palm.evaluation.tasks import Task
from palm.features.pairs import PairFeatures
from palm.rewards import VRF, BradleyTerry, LoRe, UserWeights


@pytest.fixture(scope="module")
def task(conflicting):
    held_out = rank_within_user(conflicting.seen, 0) < 5
    seen, seen_test = conflicting.seen.select(~held_out), conflicting.seen.select(held_out)
    return Task(seen, seen_test, conflicting.unseen_context, conflicting.unseen_test)


@pytest.fixture(scope="module")
def rows(task):
    halves = {0: np.arange(0, len(task.train), 2), 1: np.arange(1, len(task.train), 2)}  # another half of the pairs a seed

    def make(seed):
        return Task(task.train.select(halves[seed]), task.seen_test, task.context, task.unseen_test)

    return compare_methods(make, ["LoRe:rank=2"], shots=[0, 5], seeds=[0, 1])


def test_bradley_terry_comes_first_and_gains_nothing_over_itself(rows):
    assert [row["method"] for row in rows] == ["BradleyTerry", "LoRe:rank=2"]
    for part in ("seen", "unseen 0", "unseen 5", "unseen all"):
        assert rows[0][f"{part} gain"]["mean"] == 0


def nobody(task, half):
    """Accuracy for users of whom nothing is known."""
    model = LoRe(rank=2).fit(task.train.select(np.arange(half, len(task.train), 2)), seed=half)
    none = task.context.select(np.array([], dtype=int))
    return accuracy(model, task.unseen_test, model.infer(none, ids=task.unseen_test.ids)).overall.mean


def test_gains_are_those_of_the_methods_alone(task, rows):
    """A row's figures, made again without the table: means over the two splits, user by user."""
    gains = []
    for half in (0, 1):
        part = task.train.select(np.arange(half, len(task.train), 2))
        lore, plain = LoRe(rank=2).fit(part, seed=half), BradleyTerry().fit(part, seed=half)
        both = [accuracy(m, task.unseen_test, m.infer(task.context, ids=task.unseen_test.ids)) for m in (lore, plain)]
        gains.append(compare(*both).mean)
    assert rows[1]["unseen all gain"]["mean"] == pytest.approx(np.mean(gains), abs=1e-9)
    assert rows[1]["unseen all gain"]["low"] > 0.05
    assert rows[1]["unseen all"]["mean"] > rows[1]["unseen 5"]["mean"] > rows[1]["unseen 0"]["mean"]
    assert rows[1]["unseen all"]["log_loss"] < rows[0]["unseen all"]["log_loss"]
    assert len(rows[1]["terciles"]) == 3
    assert rows[1]["calibration"] < 0.15
    assert rows[1]["unseen 0"]["mean"] == pytest.approx(np.mean([nobody(task, half) for half in (0, 1)]), abs=1e-9)
    assert len(rows[1]["details"]) == 2


def test_what_a_specification_names():
    assert estimator("LoRe:rank=3,preset=joint") == LoRe(rank=3, preset="joint")
    assert estimator("BradleyTerry") == BradleyTerry()
    assert estimator("VRF:learning_rate=1e-3,product=false") == VRF(learning_rate=1e-3, product=False)
    assert estimator("LoRe:penalty=none") == LoRe()
    with pytest.raises(ValueError, match=r"LoRe: expected options such as rank=5, got 'rank'"):
        estimator("LoRe:rank")
    with pytest.raises(ValueError, match="LoRe has no option 'ranks'"):
        estimator("LoRe:ranks=3")
    with pytest.raises(ValueError, match=r"expected names out of .*, got 'Lore'"):
        estimator("Lore")


def test_a_judged_method_says_what_its_fit_chose(task):
    judged = judge("LoRe:rank=2,penalty=100,personal_penalty=30", task, shots=[], seed=0)
    assert judged.details["personal_penalty"] == 30
    assert set(judged.found) == {"seen", "unseen all"}
    assert judged.fit_seconds > 0
    assert judged.adapt_ms > 0


def test_pooled_users_count_once_however_many_splits_they_are_in(task):
    model = BradleyTerry().fit(task.train)
    whole = accuracy(model, task.unseen_test, model.infer(task.unseen_test))
    ids = whole.ids
    some = task.unseen_test.select(np.isin(task.unseen_test.user, ids[:3]))
    part = accuracy(model, some, model.infer(some))
    both = pooled([whole, part])
    assert both.ids.tolist() == ids.tolist()
    np.testing.assert_allclose(both.per_user, whole.per_user)  # the same model: the same share in either
    assert both.pairs == whole.pairs + part.pairs


def test_users_are_parted_by_how_well_they_are_known(task):
    model = BradleyTerry().fit(task.train)
    found = accuracy(model, task.unseen_test, model.infer(task.unseen_test))
    order = np.argsort(found.per_user)
    spread = np.empty(len(order))
    spread[order[::-1]] = np.arange(len(order)) + 1.0  # the better a user is guessed, the surer we say we are
    users = UserWeights(found.ids, np.full((len(order), 2), 0.5), spread[:, None, None] * np.array([[1.0, -1.0], [-1.0, 1.0]]))
    best, middle, worst = accuracy_by_uncertainty(found, users)
    assert best.mean > middle.mean > worst.mean
    assert best.count + middle.count + worst.count == len(order)
    with pytest.raises(ValueError, match="parts: expected at least 1, got 0"):
        accuracy_by_uncertainty(found, users, parts=0)


def test_bases_are_compared_only_where_splits_share_their_texts(task, rows):
    assert "basis_angles" not in rows[0]
    (pair,) = rows[1]["basis_angles"]
    assert pair["seeds"] == [0, 1]
    assert pair["degrees"][-1] <= pair["degrees"][0] < 60

    def other_texts(seed):
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(task.train.width, task.train.width)))[0]
        return Task(*(with_items(pairs, pairs.items.project(turn)) for pairs in vars(task).values()))

    found = compare_methods(other_texts, ["LoRe:rank=2"], shots=[], seeds=[0, 1])
    assert not any("basis_angles" in row for row in found)


def with_items(pairs, items):
    return PairFeatures.from_items(pairs.user, items, pairs.chosen_row, pairs.rejected_row, group=pairs.group)


def test_a_leak_is_looked_for_on_the_same_split(task):
    first = Task(*(with_items(pairs, pairs.items.rows(np.arange(len(pairs.items)))[:, :1]) for pairs in vars(task).values()))
    plain, leak = compare_methods(lambda seed: task, [], shots=[], seeds=[0], leaks={"one number": lambda seed: first})
    assert leak["method"] == "BradleyTerry on one number alone"
    assert leak["unseen all"]["mean"] == judge("BradleyTerry", first, shots=[], seed=0).found["unseen all"].overall.mean
    assert leak["unseen all gain"]["mean"] == pytest.approx(leak["unseen all"]["mean"] - plain["unseen all"]["mean"])
    half = replace(task, unseen_test=task.unseen_test.select(np.arange(0, len(task.unseen_test), 2)))
    with pytest.raises(ValueError, match="leaks: expected the same split for half, its unseen_test pairs are of other users"):
        compare_methods(lambda seed: task, [], shots=[], seeds=[0], leaks={"half": lambda seed: half})
