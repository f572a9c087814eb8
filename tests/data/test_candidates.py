"""palm.data.candidates: pools, prompts held out, and what is on disk."""

from pathlib import Path

import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.data.candidates import Candidates, distinct_prompts, pool_candidates, split_prompts
from palm.data.loaders import load_pairs

PAIRS = [
    {"user": "a", "prompt": "P", "chosen": "1", "rejected": "2"},
    {"user": "b", "prompt": "Q", "chosen": "7", "rejected": "8"},
    {"user": "b", "prompt": "P", "chosen": "3", "rejected": "1"},
    {"user": "c", "prompt": "P", "chosen": "2", "rejected": "4"},
]


def test_pool_holds_each_response_once_in_order_of_appearance() -> None:
    pool = pool_candidates(load_pairs(PAIRS))
    assert pool.prompts == ["P", "Q"]
    assert pool.responses == [["1", "2", "3", "4"], ["7", "8"]]
    assert pool.counts == [4, 2]
    assert pool.texts == [("P", "1"), ("P", "2"), ("P", "3"), ("P", "4"), ("Q", "7"), ("Q", "8")]


def test_small_pools_are_left_out_and_large_ones_cut() -> None:
    pool = pool_candidates(load_pairs(PAIRS), fewest=3, most=3)
    assert (pool.prompts, pool.responses) == (["P"], [["1", "2", "3"]])
    with pytest.raises(ValueError, match="min_pool: no prompt has 5 different responses; the largest pool has 4"):
        pool_candidates(load_pairs(PAIRS), fewest=5)


def test_pool_of_conversations() -> None:
    chat = [{**pair, "prompt": [{"role": "user", "content": pair["prompt"]}]} for pair in PAIRS]
    pool = pool_candidates(load_pairs(chat))
    assert pool.prompts[1] == [{"role": "user", "content": "Q"}]
    assert pool.responses[1] == [[{"role": "assistant", "content": "7"}], [{"role": "assistant", "content": "8"}]]


def test_candidates_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    kept = Candidates(
        ["a\u2028b\r\nc", [{"role": "user", "content": "ü"}]], [["x"], [[{"role": "assistant", "content": "🎉"}], "y"]]
    )
    kept.save(tmp_path / "c.jsonl")
    assert Candidates.load(tmp_path / "c.jsonl") == kept


@pytest.mark.parametrize("content", ['{"prompt": "a", "respon', '{"prompt": "a"}\n', "3\n", '{"prompt": "a", "responses": []}\n'])
def test_incomplete_candidates_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(ArtifactError, match=r"c\.jsonl: not complete candidates"):
        Candidates.load(tmp_path / "c.jsonl")


def test_every_prompt_needs_candidates() -> None:
    with pytest.raises(ValueError, match="responses: expected at least one candidate for prompt 1, got none"):
        Candidates(["a", "b"], [["x"], []])
    with pytest.raises(ValueError, match="responses: expected one list per prompt, 2, got 1"):
        Candidates(["a", "b"], [["x"]])


@pytest.mark.parametrize(("held_out", "wanted"), [(3, 3), (0.25, 5), (0.001, 1), (19, 19)])
def test_prompts_are_held_out_once_each(held_out: float | int, wanted: int) -> None:
    plan, held = split_prompts(20, held_out, seed=0)
    assert len(held) == wanted
    assert sorted([*plan, *held]) == list(range(20))
    assert (np.diff(plan) > 0).all()
    assert (np.diff(held) > 0).all()


def test_seed_decides_which_prompts_are_held_out() -> None:
    draws = [tuple(split_prompts(20, 5, seed=seed)[1]) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_one_prompt_cannot_be_divided() -> None:
    with pytest.raises(ValueError, match="held_out: expected at least 2 prompts, to plan on some and hold out others, got 1"):
        split_prompts(1, 0.2, seed=0)


@pytest.mark.parametrize("held_out", [0, 20, 0.99])
def test_neither_side_may_be_empty(held_out: float | int) -> None:
    with pytest.raises(ValueError, match="held_out: expected from 1 to 19 of the 20 prompts, got"):
        split_prompts(20, held_out, seed=0)


def test_distinct_prompts_keep_their_order() -> None:
    assert distinct_prompts(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
