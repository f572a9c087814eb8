"""palm.lm.logprobs: batched and padded equals one text at a time, and the KL is the sum over the vocabulary."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from palm.data.planted import write_corpus
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.logprobs import length_batches, response_kl, response_logprobs
from palm.lm.tokens import encode

TEXTS = write_corpus(14, np.random.default_rng(3))


def _encoded(model: LanguageModel) -> list[tuple[list[int], list[int]]]:
    return [encode(model.tokenizer, *text) for text in TEXTS] + [([5], [7]), ([5] * 60, [7, 8]), ([5, 6], [9] * 70)]


def _plain(model: LanguageModel, prompt: list[int], response: list[int]) -> np.ndarray:
    """(T, vocabulary) log-probabilities at the response's positions: one text, the whole sequence, no padding, float64."""
    with torch.inference_mode():
        logits = model.model(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits.double().log_softmax(dim=1)[len(prompt) - 1 : -1].numpy()


@pytest.mark.parametrize("batch_tokens", [1, 200, 8192])
def test_logprobs_equal_a_plain_pass_per_text(language_model: LanguageModel, batch_tokens: int) -> None:
    texts = _encoded(language_model)
    expected = [_plain(language_model, p, r)[np.arange(len(r)), r].sum() for p, r in texts]
    done: list[int] = []
    found = response_logprobs(language_model, texts, batch_tokens=batch_tokens, advance=done.append)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float64
    assert sum(done) == len(texts)
    assert (len(done) == len(texts)) == (batch_tokens == 1)


def test_positions_count_from_a_texts_own_start(language_model: LanguageModel) -> None:
    """With learnt absolute positions, as GPT-2 has them, padding before a text must not move it."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=256, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    absolute = LanguageModel(GPT2LMHeadModel(config).eval(), language_model.tokenizer, "gpt2")
    texts = _encoded(absolute)
    expected = [_plain(absolute, p, r)[np.arange(len(r)), r].sum() for p, r in texts]
    np.testing.assert_allclose(response_logprobs(absolute, texts), expected, rtol=1e-5)


def test_kl_equals_brute_force_over_the_vocabulary(base_folder: Path) -> None:
    loaded = load_language_model(base_folder)
    texts = _encoded(loaded)
    reference = [_plain(loaded, *text) for text in texts]
    torch.manual_seed(0)
    policy = get_peft_model(loaded.model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)).eval()
    adapted = LanguageModel(policy, loaded.tokenizer, "adapted")
    tilted = [_plain(adapted, *text) for text in texts]
    expected = [(np.exp(p) * (p - q)).sum() for p, q in zip(tilted, reference, strict=True)]
    found, ratio = response_kl(adapted, texts, without_adapter=policy.disable_adapter, batch_tokens=300)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    log_policy = response_logprobs(adapted, texts)
    with policy.disable_adapter():
        np.testing.assert_allclose(ratio, log_policy - response_logprobs(adapted, texts), rtol=1e-3, atol=1e-4)
    assert min(expected) > 1e-3, "the adapter does nothing, so this tests nothing"


def test_kl_from_itself_is_nothing(language_model: LanguageModel) -> None:
    import contextlib

    found, ratio = response_kl(language_model, _encoded(language_model), without_adapter=contextlib.nullcontext)
    np.testing.assert_array_equal(found, 0.0)
    np.testing.assert_array_equal(ratio, 0.0)


def test_mean_kl_over_samples_is_the_mean_log_ratio(base_folder: Path) -> None:
    """Both estimate KL(policy || reference); on 600 samples they agree within four standard errors of their difference."""
    from palm.lm.generate import Batch, sample_batch
    from palm.lm.tokens import encode_prompt

    loaded = load_language_model(base_folder)
    torch.manual_seed(1)
    policy = get_peft_model(loaded.model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)).eval()
    adapted = LanguageModel(policy, loaded.tokenizer, "adapted")
    prompt = TEXTS[0][0]
    samples = sample_batch(adapted, [prompt], Batch(0, [0]), count=600, max_new_tokens=6)[0]
    texts = [(encode_prompt(loaded.tokenizer, prompt), sample.token_ids) for sample in samples]
    kl, ratio = response_kl(adapted, texts, without_adapter=policy.disable_adapter)
    difference = kl - ratio
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(texts))
    assert kl.std() < ratio.std()
    assert kl.mean() > 5 * difference.std() / np.sqrt(len(texts))


@pytest.mark.parametrize("batch_tokens", [1, 10, 37, 1000])
def test_batches_hold_every_row_once_within_the_budget(batch_tokens: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, size=50).tolist()
    batches = list(length_batches(lengths, batch_tokens=batch_tokens))
    assert sorted(np.concatenate(batches)) == list(range(50))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= batch_tokens
    assert list(length_batches([], batch_tokens=5)) == []
