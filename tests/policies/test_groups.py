"""palm.policies.groups: both layouts give the log-probabilities that responses have on their own."""

import copy
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
        "mass": 1.0,
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


@pytest.mark.parametrize("seed", range(20))
def test_short_packs_share_a_line_and_none_is_wider_than_it_may_be(seed: int) -> None:
    """Every pack is in one line, and there is never more padding than with a line for each."""
    lengths = np.random.default_rng(seed).integers(1, 230, size=1 + seed % 9).tolist()
    lines = groups._lines(lengths)
    assert sorted(index for line in lines for index in line) == list(range(len(lengths)))
    width = max(sum(lengths[index] for index in line) for line in lines)
    assert width <= max(192, *lengths, 0)
    assert len(lines) * width <= len(lengths) * max(lengths)


def test_lines_save_the_padding_that_they_can() -> None:
    assert groups._lines([90, 90, 50, 40]) == [[0], [1], [2, 3]], "270 positions, none of them padding"
    assert len(groups._lines([100] * 8)) == 8, "two would be wider than a pack may be"


def test_pairs_of_all_groups_share_the_loss_equally() -> None:
    batch = GroupCollator(Packs(0))(ROWS)
    assert len(batch["first"]) == 6 + 1 + 21
    sizes = np.repeat([0, 1, 2], [6, 1, 21])
    assert np.bincount(sizes, batch["share"].numpy()) == pytest.approx([1 / 3] * 3)
    assert batch["group"].tolist() == [0] * 4 + [1] * 2 + [2] * 7
    assert np.bincount(batch["group"], batch["likely"].numpy()) == pytest.approx([1.0] * 3)


def test_texts_that_packs_would_be_wrong_or_wasteful_for() -> None:
    assert worth_packing(ROWS, 2**30)
    assert worth_packing(ROWS, 50)
    assert not worth_packing(ROWS, 49), "the longest text has 50 tokens"
    assert not worth_packing([_row(10, [200, 200])], 2**30)
    assert not worth_packing([*ROWS * 40, _row(10, [800, 3])], 2**30), "one text decides the width"
    assert not worth_packing([*ROWS, _row(0, [3, 3])], 2**30)
    assert not worth_packing([*ROWS, _row(3, [3, 0])], 2**30)
    assert not worth_packing([], 2**30)


@pytest.mark.parametrize("kind", trainer._PACKABLE)
def test_every_packable_architecture_reads_packs_as_it_reads_texts(kind: str) -> None:
    """Weights are drawn large, so that a token seen wrongly or at a wrong place would show."""
    from transformers import AutoConfig, AutoModelForCausalLM

    options = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "vocab_size": 64}
    config = AutoConfig.for_model(kind, **options, num_key_value_heads=1, head_dim=16, pad_token_id=0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.inference_mode():
        for weights in model.parameters():
            weights.mul_(3.0)
        packed = trainer._pack_logprobs(model, Packs(0)(ROWS), 0)
        alone = trainer._bucket_logprobs(model, Buckets(0, 8)(ROWS), 0)
    assert float(alone.std()) > 1
    torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-2)


def test_a_window_shorter_than_the_texts_is_seen(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.setattr(language_model.model.config, "sliding_window", 49, raising=False)
    assert isinstance(trainer.layout_for(language_model, Dataset.from_list(ROWS), 8), Buckets)
    monkeypatch.setattr(language_model.model.config, "sliding_window", 50, raising=False)
    assert isinstance(trainer.layout_for(language_model, Dataset.from_list(ROWS), 8), Packs)


def test_a_model_that_reads_packs_differently_gets_buckets(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one would that knows neither position ids nor masks of its caller's."""
    from datasets import Dataset

    rows, model = Dataset.from_list(ROWS), copy.deepcopy(language_model.model)
    with torch.inference_mode():
        for weights in model.parameters():
            weights.mul_(3.0)  # so that what is seen and where shows
    decided = LanguageModel(model, language_model.tokenizer, "decided")
    assert isinstance(trainer.layout_for(decided, rows, 8), Packs)
    forward = model.forward

    def without(*args: Any, position_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", without)
    assert isinstance(trainer.layout_for(decided, rows, 8), Buckets)


def test_other_attention_than_torchs_gets_buckets(language_model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import Dataset

    monkeypatch.setattr(language_model.model.config, "_attn_implementation", "flash_attention_2")
    assert isinstance(trainer.layout_for(language_model, Dataset.from_list(ROWS), 8), Buckets)


def test_the_head_reads_responses_only_and_is_left_as_it_was(language_model: LanguageModel) -> None:
    model = language_model.model
    head, batch, written = model.get_output_embeddings(), Packs(language_model.tokenizer.pad_token_id)(ROWS), []
    watched = head.register_forward_hook(lambda module, given, logits: written.append(logits.shape))
    with torch.inference_mode():
        trainer._pack_logprobs(model, batch, 0)
        with pytest.raises(IndexError):
            trainer._pack_logprobs(model, {**batch, "where": batch["where"] + 10**6}, 0)
        model(input_ids=batch["input_ids"], use_cache=False)
    watched.remove()
    responses = sum(len(response) for row in ROWS for response in row["responses"])
    assert [tuple(shape[:-1]) for shape in written] == [(responses,), tuple(batch["input_ids"].shape)]
    assert not head._forward_pre_hooks


def test_a_compiled_model_is_compiled_once(language_model: LanguageModel) -> None:
    """For batches of one shape, whatever their responses."""
    pad, compilations, after = language_model.tokenizer.pad_token_id, [], []

    def counted(graph: Any, inputs: Any) -> Any:
        compilations.append(graph)
        return graph

    compiled = torch.compile(language_model.model, backend=counted)
    for first in (12, 5, 8):
        ids = (np.random.default_rng(first).permutation(60) + 4).tolist()
        row = {"prompt_ids": ids[:7], "responses": [ids[7 : 7 + first], ids[7 + first : 24]]}
        batch = Packs(pad)([row])
        with torch.inference_mode():
            plain = trainer._pack_logprobs(language_model.model, batch, 0)
            torch.testing.assert_close(trainer._pack_logprobs(compiled, batch, 0), plain, rtol=1e-4, atol=1e-4)
        after.append(len(compilations))
    torch._dynamo.reset()
    assert 0 < after[0] == after[-1]
