"""Scalarise: turn a reward tensor and one weight into labelled pairs of candidates."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScalarisedPairs:
    """Pairs of candidates for one member.

    Attributes:
        prompt: (n,) int; position of the prompt.
        first: (n,) int; candidate with the larger utility (either, when equal).
        second: (n,) int; another candidate of the same prompt.
        probability: (n,) float in [1/2, 1]; how likely the first is to be preferred: sigmoid(margin / kl), or 1 with
            hard labels.
    """

    prompt: np.ndarray
    first: np.ndarray
    second: np.ndarray
    probability: np.ndarray


def scalarise(
    rewards: np.ndarray,
    weight: np.ndarray,
    *,
    kl: float,
    per_prompt: int,
    labels: str = "soft",
    mask: np.ndarray | None = None,
    seed: int = 0,
) -> ScalarisedPairs:
    """Draw pairs of candidates and label them by utility.

    With soft labels sigmoid((w.phi_first - w.phi_second) / kl) the Bradley-Terry loss on log-ratios is least where
    log pi/pi_ref = w.phi / kl + constant: at the planned Gibbs policy. Hard labels throw the margin away, so nothing
    holds the KL cost near the plan.

    Pairs are drawn without replacement among those of a prompt; with hard labels ties are left out.

    Args:
        rewards: (P, N, K) float.
        weight: (K,) on the simplex.
        kl: coefficient of the KL cost, in units of reward.
        per_prompt: pairs per prompt; fewer where a prompt has fewer.
        labels: "soft" or "hard".
        mask: (P, N) bool, False where a prompt has no such candidate.
        seed: decides the pairs; equal for all members, so that they share what they read.

    Raises:
        ValueError: an argument is out of range, or no pair can be drawn.
    """
    if labels not in ("soft", "hard"):
        raise ValueError(f"labels: expected 'soft' or 'hard', got {labels!r}")
    if not (np.isfinite(kl) and kl > 0):
        raise ValueError(f"kl: expected a positive number, got {kl}")
    if per_prompt < 1:
        raise ValueError(f"per_prompt: expected at least 1, got {per_prompt}")
    rng = np.random.default_rng(seed)
    utility = rewards @ np.asarray(weight, dtype=np.float64)  # (P, N)
    present = np.ones(utility.shape, dtype=bool) if mask is None else mask
    prompts, firsts, seconds = [], [], []
    for prompt in range(len(utility)):
        there = np.flatnonzero(present[prompt])
        above, below = np.triu_indices(len(there), k=1)
        chosen = rng.permutation(len(above))
        one, other = there[above[chosen]], there[below[chosen]]
        if labels == "hard":
            differs = utility[prompt, one] != utility[prompt, other]
            one, other = one[differs], other[differs]
        firsts.append(one[:per_prompt])
        seconds.append(other[:per_prompt])
        prompts.append(np.full(len(firsts[-1]), prompt))
    prompt_of, one, other = map(np.concatenate, (prompts, firsts, seconds))
    if len(prompt_of) == 0:
        raise ValueError("rewards: expected a prompt with two candidates of different utility, found none")
    margin = utility[prompt_of, one] - utility[prompt_of, other]
    swap = margin < 0
    one, other = np.where(swap, other, one), np.where(swap, one, other)
    probability = 1.0 / (1.0 + np.exp(-np.abs(margin) / kl)) if labels == "soft" else np.ones(len(margin))
    return ScalarisedPairs(prompt_of, one, other, probability)
