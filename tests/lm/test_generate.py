"""palm.lm.generate: samples follow the model's own distribution and are the same on every run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from palm.data.planted import prompt_texts
from palm.lm.generate import Batch, plan_batches, sample_batch, sample_responses
from palm.lm.load import LanguageModel, load_language_model
from palm.lm.tokens import encode_prompt

PROMPTS = prompt_texts()[::70]


def test_batches_hold_every_prompt_once_with_similar_lengths_together(language_model: LanguageModel) -> None:
    batches = plan_batches(language_model.tokenizer, PROMPTS, count=3, batch_size=7)
    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert {len(batch.prompts) for batch in batches[:-1]} == {2}
    assert sorted(index for batch in batches for index in batch.prompts) == list(range(len(PROMPTS)))
    lengths = [len(encode_prompt(language_model.tokenizer, PROMPTS[index])) for batch in batches for index in batch.prompts]
    assert lengths == sorted(lengths)
    assert [batch.prompts for batch in plan_batches(language_model.tokenizer, PROMPTS[:2], count=9, batch_size=4)] in (
        [[0], [1]],
        [[1], [0]],
    )


def test_seed_and_batch_number_decide_every_draw(language_model: LanguageModel) -> None:
    """Batches sampled in any order, alone or again, give the same; another number or seed does not; the caller's draws are his."""
    batch = Batch(4, [2, 5])
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = sample_batch(language_model, PROMPTS, batch, count=3, max_new_tokens=8, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert first == sample_batch(language_model, PROMPTS, batch, count=3, max_new_tokens=8, seed=1)
    assert first != sample_batch(language_model, PROMPTS, batch, count=3, max_new_tokens=8, seed=2)
    assert first != sample_batch(language_model, PROMPTS, Batch(5, [2, 5]), count=3, max_new_tokens=8, seed=1)


def test_all_prompts_are_sampled_in_their_order(language_model: LanguageModel) -> None:
    options = {"max_new_tokens": 6, "seed": 3}
    everything = sample_responses(language_model, PROMPTS, count=2, batch_size=6, **options)
    assert [len(samples) for samples in everything] == [2] * len(PROMPTS)
    batches = plan_batches(language_model.tokenizer, PROMPTS, count=2, batch_size=6)
    for batch in reversed(batches):
        for index, samples in zip(batch.prompts, sample_batch(language_model, PROMPTS, batch, count=2, **options), strict=True):
            assert everything[index] == samples


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_first_token_follows_the_models_distribution(language_model: LanguageModel, temperature: float) -> None:
    """2,000 draws for each of two prompts padded to one length: chi-square of the 20 likeliest tokens and the rest below 60."""
    draws = 2000
    prompts = [PROMPTS[0], PROMPTS[0] + " Please answer at some length, thank you."]
    sampled = sample_batch(language_model, prompts, Batch(0, [0, 1]), count=draws, max_new_tokens=1, temperature=temperature)
    for prompt, samples in zip(prompts, sampled, strict=True):
        with torch.inference_mode():
            logits = language_model.model(torch.tensor([encode_prompt(language_model.tokenizer, prompt)])).logits[0, -1]
        probability = (logits.double() / temperature).softmax(dim=0).numpy()
        likeliest = np.argsort(-probability)[:20]
        counts = np.bincount([sample.token_ids[0] for sample in samples], minlength=len(probability))
        expected = np.append(probability[likeliest], 1 - probability[likeliest].sum()) * draws
        found = np.append(counts[likeliest], draws - counts[likeliest].sum())
        assert ((found - expected) ** 2 / expected).sum() < 60


def test_generation_settings_that_came_with_the_model_do_not_count(base_folder: Path) -> None:
    """Published chat models come with a repetition penalty, top-k and so on; the distribution sampled here is the model's own."""
    loaded = load_language_model(base_folder)
    plain = sample_responses(loaded, PROMPTS[:2], count=3, max_new_tokens=16, seed=0)
    settings = loaded.model.generation_config
    settings.repetition_penalty, settings.min_p, settings.no_repeat_ngram_size, settings.top_k = 5.0, 0.5, 1, 1
    assert sample_responses(loaded, PROMPTS[:2], count=3, max_new_tokens=16, seed=0) == plain
    assert loaded.model.generation_config is settings
    assert settings.repetition_penalty == 5.0


def test_samples_end_at_the_end_token_or_the_longest_length(language_model: LanguageModel) -> None:
    tokenizer = language_model.tokenizer
    samples = [s for row in sample_responses(language_model, PROMPTS[:4], count=20, max_new_tokens=60, seed=0) for s in row]
    ended = [sample for sample in samples if tokenizer.eos_token_id in sample.token_ids]
    assert 0 < len(ended) < len(samples), "both kinds are needed for this to test anything"
    for sample in samples:
        if sample in ended:
            assert sample.token_ids.index(tokenizer.eos_token_id) == len(sample.token_ids) - 1
        else:
            assert len(sample.token_ids) == 60
        assert sample.text == (tokenizer.decode(sample.token_ids, skip_special_tokens=True).strip() or " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, got 0"),
        ({"temperature": 0.0}, r"temperature: expected a positive number, got 0\.0"),
        ({"temperature": float("nan")}, "temperature: expected a positive number, got nan"),
    ],
)
def test_options_out_of_range(language_model: LanguageModel, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_batch(language_model, PROMPTS, Batch(0, [0]), **{"count": 1, **options})


def test_every_token_that_the_models_own_settings_end_with_ends_a_response(language_model: LanguageModel) -> None:
    """Chat models end a turn with a token that is not the tokenizer's end of sequence; its probability stays as it is."""
    batch, options = Batch(0, [0, 1]), {"count": 20, "max_new_tokens": 30}
    before = sample_batch(language_model, PROMPTS, batch, **options)
    drawn = [token for samples in before for sample in samples for token in sample.token_ids[1:-1]]
    turn = max(sorted(set(drawn)), key=drawn.count)
    kept = language_model.model.generation_config.eos_token_id
    try:
        language_model.model.generation_config.eos_token_id = [kept, turn]
        assert language_model.end_ids == sorted([kept, turn])
        after = sample_batch(language_model, PROMPTS, batch, **options)
    finally:
        language_model.model.generation_config.eos_token_id = kept
    ends = {kept, turn}
    for samples in after:
        for sample in samples:
            assert not ends & set(sample.token_ids[:-1])
            assert sample.token_ids[-1] in ends or len(sample.token_ids) == 30
    assert any(sample.token_ids[-1] == turn for samples in after for sample in samples)
