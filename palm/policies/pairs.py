"""Scalarise: turn a reward tensor and one weight into pairs that say which candidate is better."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScalarisedPairs:
    """Pairs of candidates for one member.

    Attributes:
        prompt: (n,) int; position of the prompt.
        chosen: (n,) int; candidate with the larger utility.
        rejected: (n,) int; another candidate of the same prompt, of smaller utility.
    """

    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray


def scalarise(
    rewards: np.ndarray, weight: np.ndarray, *, per_prompt: int, mask: np.ndarray | None = None, seed: int = 0
) -> ScalarisedPairs:
    """Draw pairs of candidates whose utilities w.phi differ, without replacement among those of a prompt.

    These labels throw the margin away, so nothing in them holds a policy's KL cost near the plan; `palm.policies.train`
    compares candidates with soft labels instead unless asked otherwise.

    Args:
        rewards: (P, N, K) float.
        weight: (K,) on the simplex.
        per_prompt: pairs per prompt, at least 1; fewer where a prompt has fewer.
        mask: (P, N) bool, False where a prompt has no such candidate.
        seed: decides which pairs; equal for all members, so that they share what they read.

    Raises:
        ValueError: `per_prompt` is out of range, or no two candidates of a prompt differ in utility.
    """
    if per_prompt < 1:
        raise ValueError(f"per_prompt: expected at least 1, got {per_prompt}")
    rng = np.random.default_rng(seed)
    utility = rewards @ np.asarray(weight, dtype=np.float64)  # (P, N)
    present = np.ones(utility.shape, dtype=bool) if mask is None else mask
    prompts, firsts, seconds = [], [], []
    for prompt in range(len(utility)):
        there = np.flatnonzero(present[prompt])
        above, below = np.triu_indices(len(there), k=1)
        drawn = rng.permutation(len(above))
        one, other = there[above[drawn]], there[below[drawn]]
        differs = np.flatnonzero(utility[prompt, one] != utility[prompt, other])[:per_prompt]
        firsts.append(one[differs])
        seconds.append(other[differs])
        prompts.append(np.full(len(differs), prompt))
    prompt_of, one, other = map(np.concatenate, (prompts, firsts, seconds))
    if len(prompt_of) == 0:
        raise ValueError("rewards: expected a prompt with two candidates of different utility, found none")
    swap = utility[prompt_of, one] < utility[prompt_of, other]
    return ScalarisedPairs(prompt_of, np.where(swap, other, one), np.where(swap, one, other))
