"""palm.backbone.turns: every pair asked once an epoch, contexts apart from targets, whole blocks to processes."""

from typing import Any

import numpy as np
import pytest

from palm.backbone.turns import Turns

CODE = np.repeat(np.arange(6), [1, 2, 5, 12, 30, 7])


def turns(**changes: Any) -> Turns:
    return Turns(**{"code": CODE, "context": 4, "targets": 3, "batch": 5, "parts": 2, "seed": 1, **changes})


def test_without_contexts_every_pair_is_asked_once_an_epoch() -> None:
    for epoch in (0, 1):
        blocks = turns(context=0).epoch(epoch)
        assert sorted(np.concatenate([block.target for block in blocks])) == list(range(len(CODE)))
        assert all(len(block.context) == 0 for block in blocks)


def test_contexts_are_apart_from_targets_and_dealt_anew_each_epoch() -> None:
    order, contexts = turns(), []
    for epoch in range(3):
        told: dict[int, list[int]] = {}
        asked: list[int] = []
        for block in order.epoch(epoch):
            assert set(CODE[np.concatenate([block.context, block.target])]) == {block.user}
            assert told.setdefault(block.user, block.context.tolist()) == block.context.tolist(), "one context a user and epoch"
            assert 1 <= len(block.target) <= 3
            asked += block.target.tolist()
        assert len(asked) == len(set(asked)), "no pair is asked twice"
        for user, context in told.items():
            pairs = np.flatnonzero(user == CODE)
            assert len(context) == min(4, max(1, len(pairs) // 2))
            asked_of = [pair for pair in asked if CODE[pair] == user]
            if len(pairs) > 1:
                assert sorted(context + asked_of) == pairs.tolist(), "told or asked, never both"
            else:
                assert context == asked_of == pairs.tolist(), "someone with one pair is told and asked it"
        contexts.append(told[4])
    assert contexts[0] != contexts[1] != contexts[2]


def test_number_of_blocks_and_steps_is_that_of_every_epoch() -> None:
    order = turns()
    assert {len(order.epoch(epoch)) for epoch in range(4)} == {order.blocks}
    assert (order.steps - 1) * 5 < order.blocks <= order.steps * 5


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_together_are_the_step_whatever_their_number(parts: int) -> None:
    alone, shared = turns(parts=1), turns(parts=parts)
    for step in range(alone.steps):
        whole = alone.part(0, step, 0).blocks
        found = [shared.part(0, step, number) for number in range(parts)]
        seeds = [block.seed for part in found if part.counted for block in part.blocks]
        assert sorted(seeds) == sorted(block.seed for block in whole)
        assert all(part.blocks for part in found), "nobody has nothing to do"
        assert sum(part.counted for part in found) == min(parts, len(whole))


def test_order_depends_on_the_seed_and_not_on_what_was_asked_before() -> None:
    one, other = turns(), turns()
    one.epoch(0)
    assert [block.seed for block in one.epoch(2)] == [block.seed for block in other.epoch(2)]
    assert [block.seed for block in one.epoch(2)] != [block.seed for block in turns(seed=2).epoch(2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": np.zeros(0, dtype=int)}, "pairs: expected at least one, got none"),
        ({"targets": 0}, "targets: expected a whole number of at least 1, got 0"),
        ({"batch": 2.0}, r"batch: expected a whole number of at least 1, got 2\.0"),
        ({"context": -1}, "context: expected a whole number of at least 0, got -1"),
    ],
)
def test_sizes_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        turns(**changes)
