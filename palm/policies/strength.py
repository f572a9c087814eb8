"""How much of a trained member to publish: no more than its KL cost on text of its own allows.

Candidates tell nothing of texts that nobody sampled. A policy trained on them goes on beyond them, and what it writes costs more KL
than the plan allows and than any candidate shows, for rewards that do not pay for it. Its log-ratio is about linear in its change
of the base's weights and its KL divergence about quadratic while that change is small, so scaling it by sqrt(planned / own KL)
puts it back; where it is large that goes too far, and the strength is sought between those seen.
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

_MATCHES = 6  # times that a member is scaled, at most
_NEAR, _CLOSE = 0.85, 1.05  # times the planned divergence: as good as it
_NOTHING = 1e-6  # nats: rounding
_LEAST = 1e-6  # strength of a member that may not diverge at all
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


def next_strength(planned: float, seen: Sequence[tuple[float, float]]) -> float:
    """At what strength to look next for the planned divergence, given (strength, divergence) at one or more others.

    Between the nearest on either side a divergence goes as a power of the strength; below all that was seen, as its square. Never
    above 1.
    """
    strength, own = min((point for point in seen if point[1] > planned), default=(1.0, planned))
    below = max((point for point in seen if point[1] <= planned), default=(0.0, 0.0))
    if own <= planned:
        return 1.0
    if below[0] <= 0:
        return float(strength * np.sqrt(max(planned, 0.0) / own))
    if below[1] <= 0 or strength <= below[0]:  # nothing to reckon with: none of it shows, or chance has turned the two
        return (strength + below[0]) / 2
    power = np.log(own / below[1]) / np.log(strength / below[0])
    found = below[0] * (planned / below[1]) ** (1 / power)
    edge = (strength - below[0]) / 10  # what is nearly one of them again tells nothing
    return float(np.clip(found, below[0] + edge, strength - edge))


def match_divergence(
    policy: LanguageModel, prompts: Sequence[list[int]], planned: float, *, texts: int, max_new_tokens: int, seed: int
) -> dict[str, float]:
    """Scale a policy that diverges more than planned on text of its own, in place, until it diverges as planned.

    Args:
        policy: the base with the adapter active.
        prompts: token ids of the prompts that it was trained on.
        planned: KL divergence of the planned policy, in nats a response.
        texts, max_new_tokens, seed: as for `own_divergence`.

    Returns:
        the strength that it now has, and its divergences: planned, as trained, and now.
    """

    def look(strength: float, before: float) -> tuple[float, float]:
        scale_adapter(policy.model, strength / before)
        own = own_divergence(
            policy, prompts, texts=texts, max_new_tokens=max_new_tokens, without_adapter=policy.model.disable_adapter, seed=seed
        )
        return strength, own

    seen = [look(1.0, 1.0)]
    while not _matches(planned, *seen[-1]) and len(seen) <= _MATCHES:
        seen.append(look(max(next_strength(planned, seen), _LEAST), seen[-1][0]))
    strength, own = seen[-1]
    if not _matches(planned, strength, own):
        strength, own = max((point for point in seen if point[1] <= planned * _CLOSE), default=min(seen))
        scale_adapter(policy.model, strength / seen[-1][0])
        if not planned / 1.5 <= own <= 1.5 * planned:
            logger.warning("a member's KL divergence is %.3g nats after scaling by %.2f, planned %.3g", own, strength, planned)
    return {"strength": strength, "planned_divergence": planned, "trained_divergence": seen[0][1], "divergence": own}


def _matches(planned: float, strength: float, own: float) -> bool:
    """Whether a policy scaled to a strength diverges as planned, as nearly as texts tell; or less, if it is as it was trained."""
    return own <= planned * _CLOSE + _NOTHING and (strength >= 1.0 or own >= planned * _NEAR)
