"""How much of a trained member to publish: no more than its KL cost on text of its own allows.

Candidates tell nothing of texts that nobody sampled. A policy trained on them goes on beyond them, and what it writes costs more KL
than the plan allows and than any candidate shows, for rewards that do not pay for it. Its log-ratio is about linear in its change
of the base's weights and its KL divergence about quadratic while that change is small, so scaling it by sqrt(planned / own KL)
puts it back, in a few steps where it is large.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from palm.lm.generate import sample_encoded
from palm.lm.load import LanguageModel
from palm.lm.logprobs import response_kl
from palm.portfolio import GibbsOracle
from palm.rewards.tensor import RewardTensor
from palm.seeds import derive_seed

logger = logging.getLogger(__name__)

_MATCHES = 3  # times that a member is scaled down, at most
_CLOSE = 1.05  # times the planned divergence: as good as it
_PER_PROMPT = 4
_BATCH = 128  # responses sampled together


def planned_divergence(rewards: RewardTensor, weight: np.ndarray, kl: float) -> float:
    """KL divergence, in nats a response, of the planned policy for a weight from the reference."""
    return float(GibbsOracle(rewards.rewards, kl, mask=rewards.mask).solve(weight[None, :]).cost[0] / kl)


def own_divergence(
    policy: LanguageModel,
    prompts: Sequence[list[int]],
    *,
    texts: int,
    max_new_tokens: int,
    without_adapter: Callable[[], AbstractContextManager[Any]],
    seed: int = 0,
) -> float:
    """KL divergence, in nats a response, of a policy from the reference, on text of its own.

    Args:
        policy: the base with the adapter active.
        prompts: token ids of the prompts that it was trained on; some of them, evenly spaced, are answered.
        texts: responses to write, about; at least 1.
        max_new_tokens: longest response.
        without_adapter: makes a context in which `policy` is the reference.
        seed: of the sampling.
    """
    asked = min(len(prompts), max(1, texts // _PER_PROMPT))
    count = max(1, round(texts / asked))
    chosen = [prompts[index] for index in np.linspace(0, len(prompts) - 1, asked).round().astype(int)]
    written = []
    step = max(1, _BATCH // count)
    for start in range(0, len(chosen), step):
        part = chosen[start : start + step]
        samples = sample_encoded(
            policy, part, count=count, max_new_tokens=max_new_tokens, seed=derive_seed(seed, "own divergence", start)
        )
        written += [(prompt, sample.token_ids) for prompt, row in zip(part, samples, strict=True) for sample in row]
    return float(response_kl(policy, written, without_adapter=without_adapter)[0].mean())


def scale_adapter(model: Any, factor: float) -> None:
    """Multiply the change of the base's weights that a PEFT model's LoRA adapter makes, in place."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(factor)


def matched_strength(planned: float, own: float) -> float:
    """What to scale a policy's change of the base by so that it diverges as planned; never more than 1."""
    return 1.0 if own <= planned else float(np.sqrt(max(planned, 0.0) / own))


def match_divergence(
    policy: LanguageModel, prompts: Sequence[list[int]], planned: float, *, texts: int, max_new_tokens: int, seed: int
) -> dict[str, float]:
    """Scale a policy down, in place, until it diverges as planned on text of its own.

    Args:
        policy: the base with the adapter active.
        prompts: token ids of the prompts that it was trained on.
        planned: KL divergence of the planned policy, in nats a response.
        texts, max_new_tokens, seed: as for `own_divergence`.

    Returns:
        the strength that it now has, and its divergences: planned, as trained, and now.
    """

    def measured() -> float:
        return own_divergence(
            policy,
            prompts,
            texts=texts,
            max_new_tokens=max_new_tokens,
            without_adapter=policy.model.disable_adapter,
            seed=seed,
        )

    strength, before = 1.0, measured()
    own = before
    for _ in range(_MATCHES):
        if own <= planned * _CLOSE:
            break
        factor = matched_strength(planned, own)
        scale_adapter(policy.model, factor)
        strength, own = strength * factor, measured()
    if own > 1.5 * planned:
        logger.warning("a member's KL divergence is %.3g nats after scaling by %.2f, planned %.3g", own, strength, planned)
    return {"strength": strength, "planned_divergence": planned, "trained_divergence": before, "divergence": own}
