"""Multi-objective decoding: at every token, the weighted mean of several policies' log-probabilities.

The next token has probability proportional to prod_k pi_k(token)^(w_k). It needs no training for a new weight, but at every token a
forward pass of each policy with a weight above 0; all go through the model in one batch. Of whole responses that product would be
the optimum for the weighted reward, if each policy were optimal for its own; taken token by token it is not quite that.

Source: R. Shi et al., "Decoding-time language model alignment with multiple objectives", NeurIPS 2024 (reverse KL).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palm.data.schema import Text
from palm.lm.generate import Sample, plan_batches
from palm.lm.tokens import encode_prompt
from palm.policies.adapters import Members
from palm.seeds import derive_seed, isolated_rng


@dataclass(frozen=True)
class Mixed:
    """One response of a mixture.

    Attributes:
        sample: the response.
        kl: the exact KL divergence of the mixture from the reference over the vocabulary, summed over its positions, in nats; its
            mean over samples is the divergence of the distributions of responses.
        log_ratio: log mixture - log reference of the response itself; less `kl` it has mean 0.
    """

    sample: Sample
    kl: float
    log_ratio: float


def sample_mixture(
    members: Members,
    weights: Mapping[str, float],
    prompts: Sequence[Text],
    *,
    count: int,
    max_new_tokens: int = 128,
    batch_size: int = 64,
    seed: int = 0,
) -> list[list[Mixed]]:
    """Sample from the mixture at temperature 1. With all weight on one member it draws what `sample_responses` draws of it.

    Args:
        members: with the policies' adapters.
        weights: by id, of at least 0, sum 1; those of 0 cost nothing.
        prompts: P prompts.
        count: responses to each.
        max_new_tokens: longest response.
        batch_size: responses at a time, about; each goes through the model once per policy, and once for the reference.
        seed: with a batch's number it decides every draw, as in `palm.lm.generate`.

    Returns:
        for each prompt its responses.

    Raises:
        ValueError: a policy is not known, weights are not on the simplex, or a number is out of range.
    """
    used = _check(members, weights)
    for name, value in (("count", count), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    results: list[list[Mixed]] = [[] for _ in prompts]
    tokenizer = members.tokenizer
    for batch in plan_batches(tokenizer, prompts, count=count, batch_size=batch_size):
        encoded = [encode_prompt(tokenizer, prompts[index]) for index in batch.prompts]
        drawn = _sample_batch(
            members, used, encoded, count=count, longest=max_new_tokens, seed=derive_seed(seed, "sample", batch.number)
        )
        for place, index in enumerate(batch.prompts):
            results[index] = drawn[place * count : (place + 1) * count]
    return results


def _check(members: Members, weights: Mapping[str, float]) -> dict[str, float]:
    unknown = sorted(set(weights) - set(members.ids))
    if unknown:
        raise ValueError(f"weights: expected ids out of {', '.join(members.ids)}, got {unknown[0]!r}")
    values = np.array(list(weights.values()), dtype=np.float64)
    if not len(values) or not np.isfinite(values).all() or (values < 0).any() or abs(values.sum() - 1) > 1e-6:
        raise ValueError(f"weights: expected numbers of at least 0 that sum to 1, got {dict(weights)}")
    return {name: float(weight) for name, weight in weights.items() if weight > 0}


def _sample_batch(
    members: Members, weights: dict[str, float], encoded: Sequence[list[int]], *, count: int, longest: int, seed: int
) -> list[Mixed]:
    """Draw all responses of some prompts together: (prompts x count) rows for the reference and each policy."""
    import torch

    device, pad = members.device, members.tokenizer.pad_token_id
    ends = torch.tensor(members.end_ids, device=device)
    width, rows = max(map(len, encoded)), len(encoded) * count
    ids = torch.full((len(encoded), width), pad)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, prompt in enumerate(encoded):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.repeat_interleave(count, dim=0).to(device), mask.repeat_interleave(count, dim=0).to(device)
    names = [None, *weights]
    adapters = members.names_of([name for name in names for _ in range(rows)])
    share = torch.tensor(list(weights.values()), dtype=torch.float32, device=device)[:, None, None]
    open_rows = torch.ones(rows, dtype=torch.bool, device=device)
    kl, ratio = torch.zeros(rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    drawn: list[Any] = []
    state: dict[str, Any] = {"past_key_values": None}
    step = ids
    with isolated_rng(seed), torch.inference_mode():
        for _ in range(longest):
            output = members.forward(
                adapters,
                input_ids=step.repeat(len(names), 1),
                attention_mask=mask.repeat(len(names), 1),
                position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, -step.shape[1] :].repeat(len(names), 1),
                use_cache=True,
                logits_to_keep=1,
                **state,
            )
            state["past_key_values"] = output.past_key_values
            logprobs = output.logits[:, -1].float().log_softmax(dim=1).view(len(names), rows, -1)
            mixture = logprobs[1] if len(weights) == 1 else (share * logprobs[1:]).sum(dim=0).log_softmax(dim=1)
            token = torch.multinomial(mixture.exp(), num_samples=1)[:, 0]
            apart = mixture - logprobs[0]
            kl += torch.where(open_rows, (mixture.exp() * apart).sum(dim=1), 0.0).double().cpu()
            ratio += torch.where(open_rows, apart.gather(1, token[:, None])[:, 0], 0.0).double().cpu()
            token = torch.where(open_rows, token, pad)
            drawn.append(torch.where(open_rows, token, -1).cpu())
            open_rows = open_rows & ~torch.isin(token, ends)
            if not open_rows.any():
                break
            step, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    tokens = [[token for token in row if token >= 0] for row in torch.stack(drawn, dim=1).tolist()]
    texts = members.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [
        Mixed(Sample(text.strip() or " ", row), max(float(kl[place]), 0.0), float(ratio[place]))
        for place, (text, row) in enumerate(zip(texts, tokens, strict=True))
    ]
