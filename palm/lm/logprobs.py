"""Log-probabilities of responses under a model, and KL divergence from a reference, exact over the vocabulary."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from palm.lm.load import LanguageModel, logit_width

Encoded = tuple[list[int], list[int]]
"""Token ids of a prompt and of its response, as `palm.lm.tokens.encode` gives them."""

_LOGIT_BUDGET = 2**28  # numbers in one batch of logits; 1 GiB in float32


def length_batches(lengths: Sequence[int], *, batch_tokens: int) -> Iterator[np.ndarray]:
    """Row numbers in batches of similar length, each of at most `batch_tokens` tokens with padding (or one row)."""
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and lengths[order[end]] * (end + 1 - start) <= batch_tokens:
            end += 1
        yield order[start:end]
        start = end


def response_logprobs(
    language_model: LanguageModel,
    texts: Sequence[Encoded],
    *,
    batch_tokens: int = 8192,
    advance: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Sum of the log-probabilities of each response's tokens given its prompt.

    Args:
        language_model: an adapter that is active takes part.
        texts: n prompts with responses, each of at least one token.
        batch_tokens: tokens per forward pass, padding included; bounds memory.
        advance: called with the number of texts done after each batch, for a progress bar.

    Returns:
        (n,) float64, at most 0.
    """
    import torch

    result = np.zeros(len(texts))
    for rows in _batches(language_model, texts, batch_tokens):
        logprobs, targets, mask = _logprobs(language_model, [texts[row] for row in rows])
        picked = logprobs.gather(2, targets[:, :, None])[:, :, 0]
        result[rows] = (picked * mask).sum(dim=1, dtype=torch.float64).cpu().numpy()
        if advance is not None:
            advance(len(rows))
    return result


def response_kl(
    language_model: LanguageModel,
    texts: Sequence[Encoded],
    *,
    without_adapter: Callable[[], contextlib.AbstractContextManager[Any]],
    batch_tokens: int = 8192,
    advance: Callable[[int], object] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """KL(policy || reference) along each response: the sum over its positions of the exact KL over the vocabulary.

    For responses sampled from the policy the mean of this estimates the KL divergence between the two distributions of
    responses without bias, and with less variance than the mean log-ratio (the chain rule, each term's expectation
    over the next token taken exactly).

    Args:
        language_model: the policy.
        texts: n prompts with responses that were sampled from the policy.
        without_adapter: makes a context in which `language_model` is the reference.
        batch_tokens, advance: as in `response_logprobs`.

    Returns:
        kl: (n,) float64, at least 0, in nats.
        log_ratio: (n,) float64, log policy - log reference of the response itself. Its difference from `kl` has mean 0 over
            the policy's responses to any prompt, which makes it a control variate (`palm.evaluation.measure.from_samples`).
    """
    import torch

    result, ratio = np.zeros(len(texts)), np.zeros(len(texts))
    for rows in _batches(language_model, texts, batch_tokens):
        batch = [texts[row] for row in rows]
        logprobs, targets, mask = _logprobs(language_model, batch)
        with without_adapter():
            reference = _logprobs(language_model, batch)[0]
        kl = (logprobs.exp() * (logprobs - reference)).sum(dim=2)
        result[rows] = (kl * mask).sum(dim=1, dtype=torch.float64).cpu().numpy()
        own = (logprobs - reference).gather(2, targets[:, :, None])[:, :, 0]
        ratio[rows] = (own * mask).sum(dim=1, dtype=torch.float64).cpu().numpy()
        if advance is not None:
            advance(len(rows))
    return np.maximum(result, 0.0), ratio


def kl_to_others(
    texts: Sequence[Encoded],
    own: Callable[[], contextlib.AbstractContextManager[LanguageModel]],
    others: Sequence[Callable[[], contextlib.AbstractContextManager[LanguageModel]]],
    *,
    batch_tokens: int = 8192,
    advance: Callable[[int], object] | None = None,
) -> np.ndarray:
    """KL(policy || each of several others) along responses, as `response_kl` has it: exact over the vocabulary at each position.

    Args:
        texts: n prompts with responses that were sampled from the policy.
        own: makes a context that yields the policy.
        others: make contexts that yield others with the same tokenizer.
        batch_tokens, advance: as in `response_logprobs`.

    Returns:
        (len(others), n) float64, in nats, at least 0.
    """
    import torch

    result = np.zeros((len(others), len(texts)))
    with own() as policy:
        batches = list(_batches(policy, texts, batch_tokens))
    for rows in batches:
        batch = [texts[row] for row in rows]
        with own() as policy:
            logprobs, _, mask = _logprobs(policy, batch)
        for number, other in enumerate(others):
            with other() as against:
                kl = (logprobs.exp() * (logprobs - _logprobs(against, batch)[0])).sum(dim=2)
            result[number, rows] = (kl * mask).sum(dim=1, dtype=torch.float64).cpu().numpy()
        if advance is not None:
            advance(len(rows))
    return np.maximum(result, 0.0)


def _batches(language_model: LanguageModel, texts: Sequence[Encoded], batch_tokens: int) -> Iterator[np.ndarray]:
    budget = max(1, min(batch_tokens, _LOGIT_BUDGET // logit_width(language_model.model)))
    return length_batches([len(prompt) + len(response) for prompt, response in texts], batch_tokens=budget)


def _logprobs(language_model: LanguageModel, batch: Sequence[Encoded]) -> tuple[Any, Any, Any]:
    """Log-probabilities (b, T, vocabulary), targets (b, T) and mask (b, T) at the T positions that predict responses."""
    import torch

    width = max(len(prompt) + len(response) for prompt, response in batch)
    longest = max(len(response) for _, response in batch)
    ids = torch.full((len(batch), width), language_model.tokenizer.pad_token_id)
    attended = torch.zeros((len(batch), width), dtype=torch.long)
    mask = torch.zeros((len(batch), longest))
    for row, (prompt, response) in enumerate(batch):  # left padding: responses end together, so few logits are kept
        ids[row, width - len(prompt) - len(response) :] = torch.tensor(prompt + response)
        attended[row, width - len(prompt) - len(response) :] = 1
        mask[row, longest - len(response) :] = 1
    device = language_model.device
    with torch.inference_mode():
        logits = language_model.model(
            input_ids=ids.to(device),
            attention_mask=attended.to(device),
            position_ids=(attended.cumsum(dim=1) - 1).clamp(min=0).to(device),
            logits_to_keep=longest + 1,
            use_cache=False,
        ).logits[:, :-1]
    return logits.float().log_softmax(dim=2), ids[:, width - longest :].to(device), mask.to(device)
