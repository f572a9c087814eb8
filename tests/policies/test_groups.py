"""palm.policies.groups: both layouts give the log-probabilities that responses have on their own."""

from typing import Any

import numpy as np
import pytest
import torch

from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_logprobs
from palm.policies import groups, trainer
from palm.policies.groups import Buckets, GroupCollator, Packs, worth_packing

RNG = np.random.default_rng(0)


def _row(prompt: int, lengths: list[int]) -> dict[str, Any]:
    ids = [RNG.integers(5, 60, size=length).tolist() for length in lengths]
    return {
        "prompt_ids": RNG.integers(5, 60, size=prompt).tolist(),
        "responses": ids,
        "target": RNG.normal(size=len(lengths)).tolist(),
        "reference": RNG.normal(size=len(lengths)).tolist(),
    }


ROWS = [_row(7, [3, 1, 12, 5]), _row(1, [4, 4]), _row(20, [1, 30, 2, 9, 9, 11, 6])]


@pytest.mark.parametrize("pack", [1, 24, 64, 192])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ROWS[1:2], ROWS[::-1]], ids=["all", "one", "short", "reversed"])
def test_packs_and_buckets_give_every_response_its_own_log_probability(
    rows: list[dict[str, Any]], pack: int, language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs of 1 token hold one response each; of 24 some; of 192 a whole group."""
    monkeypatch.setattr(groups, "_PACK", pack)
    alone = response_logprobs(language_model, [(row["prompt_ids"], response) for row in rows for response in row["responses"]])
    pad = language_model.tokenizer.pad_token_id
    with torch.inference_mode():
        packed = trainer._pack_logprobs(language_model.model, Packs(pad)(rows), 0).numpy()
        for responses in (1, 8, 16, 40):
            buckets = trainer._bucket_logprobs(language_model.model, Buckets(pad, responses)(rows), 0).numpy()
            np.testing.assert_allclose(buckets, alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(packed, alone, rtol=1e-4, atol=1e-4)


def test_a_pack_reads_its_prompt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Packs(0)(ROWS[2:])
    assert batch["input_ids"].shape == (1, 19 + 68)
    monkeypatch.setattr(groups, "_PACK", 20 + 34)
    assert batch["input_ids"].numel() + 19 <= Packs(0)(ROWS[2:])["input_ids"].numel() <= 2 * (19 + 38)


def test_pairs_of_all_groups_share_the_loss_equally() -> None:
    batch = GroupCollator(Packs(0), 0.5)(ROWS)
    assert len(batch["first"]) == 6 + 1 + 21
    sizes = np.repeat([0, 1, 2], [6, 1, 21])
    assert np.bincount(sizes, batch["share"].numpy()) == pytest.approx([1 / 3] * 3)


def test_long_texts_are_not_packed() -> None:
    assert worth_packing(ROWS)
    assert not worth_packing([_row(10, [200, 200])])
    assert not worth_packing([_row(0, [3, 3])])


def test_a_model_that_reads_packs_differently_gets_buckets(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that knows neither position ids nor masks of its caller's."""
    from datasets import Dataset

    rows = Dataset.from_list(ROWS)
    assert isinstance(trainer.layout_for(language_model, rows, 8), Packs)
    forward = language_model.model.forward

    def without(*args: Any, position_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    monkeypatch.setattr(language_model.model, "forward", without)
    assert isinstance(trainer.layout_for(language_model, rows, 8), Buckets)


def test_other_attention_than_torchs_gets_buckets(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.setattr(language_model.model.config, "_attn_implementation", "flash_attention_2")
    assert isinstance(trainer.layout_for(language_model, Dataset.from_list(ROWS), 8), Buckets)
