"""Sample responses from a language model, in batches that are the same on every run."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from palm.data.schema import Text
from palm.lm.load import LanguageModel
from palm.lm.tokens import encode_prompt
from palm.seeds import derive_seed, isolated_rng


@dataclass(frozen=True)
class Sample:
    """One sampled response.

    Attributes:
        text: the response without special tokens.
        token_ids: what was sampled, with the token that ended it if one did.
    """

    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class Batch:
    """Some prompts that are sampled together.

    Attributes:
        number: position among the batches; part of the seed.
        prompts: (b,) positions in the list of prompts.
    """

    number: int
    prompts: list[int]


def plan_batches(tokenizer: Any, prompts: Sequence[Text], *, count: int, batch_size: int) -> list[Batch]:
    """Group prompts of similar length so that a batch holds about `batch_size` responses."""
    lengths = [len(encode_prompt(tokenizer, prompt)) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda index: (lengths[index], index))
    step = max(1, batch_size // max(count, 1))
    return [Batch(number, order[start : start + step]) for number, start in enumerate(range(0, len(order), step))]


def sample_batch(
    language_model: LanguageModel,
    prompts: Sequence[Text],
    batch: Batch,
    *,
    count: int,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[Sample]]:
    """Sample `count` responses to each of the batch's prompts from the full distribution (no top-k, no top-p).

    Args:
        language_model: what to sample from; an adapter that is active takes part.
        prompts: all prompts; the batch says which.
        batch: out of `plan_batches`.
        count: responses per prompt, at least 1.
        max_new_tokens: longest response; one that reaches it is cut there.
        temperature: of the sampling; anything but 1 samples from another distribution than the model's own, and
            values and KL costs estimated from such samples are those of the other distribution.
        seed: with the batch's number it decides every draw.

    Returns:
        for each prompt of the batch, its samples.

    Raises:
        ValueError: `count`, `max_new_tokens` or `temperature` is out of range.
    """
    encoded = [encode_prompt(language_model.tokenizer, prompts[index]) for index in batch.prompts]
    return sample_encoded(
        language_model,
        encoded,
        count=count,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=derive_seed(seed, "sample", batch.number),
    )


def sample_encoded(
    language_model: LanguageModel,
    encoded: Sequence[list[int]],
    *,
    count: int,
    max_new_tokens: int = 128,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[list[Sample]]:
    """`sample_batch` of prompts that are token ids already, all in one batch, with every draw decided by `seed`."""
    import torch

    for name, value in (("count", count), ("max_new_tokens", max_new_tokens)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not temperature > 0:
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    tokenizer, model = language_model.tokenizer, language_model.model
    width = max(map(len, encoded))
    ids = torch.full((len(encoded), width), tokenizer.pad_token_id)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, prompt_ids in enumerate(encoded):  # left padding: every prompt ends where its response begins
        ids[row, width - len(prompt_ids) :] = torch.tensor(prompt_ids)
        mask[row, width - len(prompt_ids) :] = 1
    ends = language_model.end_ids
    with own_distribution(model), isolated_rng(seed), torch.inference_mode():
        output = model.generate(
            input_ids=ids.to(language_model.device),
            attention_mask=mask.to(language_model.device),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_return_sequences=count,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )
    responses = [until_end(row, set(ends)) for row in output[:, width:].tolist()]
    texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
    samples = [Sample(text.strip() or " ", row) for text, row in zip(texts, responses, strict=True)]
    return [samples[start : start + count] for start in range(0, len(samples), count)]


@contextlib.contextmanager
def own_distribution(model: Any) -> Iterator[None]:
    """Set aside the generation settings that a model came with: a repetition penalty, say, would change the distribution."""
    from transformers import GenerationConfig

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


def sample_responses(
    language_model: LanguageModel, prompts: Sequence[Text], *, count: int, batch_size: int = 256, **options: Any
) -> list[list[Sample]]:
    """`sample_batch` over all prompts: for each prompt, in order, its `count` samples."""
    results: list[list[Sample]] = [[] for _ in prompts]
    for batch in plan_batches(language_model.tokenizer, prompts, count=count, batch_size=batch_size):
        for index, samples in zip(batch.prompts, sample_batch(language_model, prompts, batch, count=count, **options), strict=True):
            results[index] = samples
    return results


def until_end(row: list[int], ends: set[int]) -> list[int]:
    """A response's tokens up to the first that ends it, that one included."""
    return next((row[: place + 1] for place, token in enumerate(row) if token in ends), row)
