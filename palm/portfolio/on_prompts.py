"""Candidates and members prompt by prompt, and their worst gaps when prompts count differently often."""

from dataclasses import dataclass

import numpy as np

from palm.portfolio.certify import folded, served_utility, worst_gap
from palm.portfolio.corners import corner_weights

_BLOCK = 2**22


@dataclass(frozen=True)
class Bounds:
    """Three numbers that hold for every weight, each with the stated confidence.

    Attributes:
        epsilon: upper bound on the multiplicative gap over the distribution of prompts; infinite if P is too small to tell.
        delta: upper bound on the additive gap.
        captured_gain: lower bound on the captured gain.
    """

    epsilon: float
    delta: float
    captured_gain: float


@dataclass(frozen=True)
class OnPrompts:
    """Candidates and members, prompt by prompt.

    Attributes:
        rewards: (P, N, K) of the candidates, 0 where there is none.
        mask: (P, N) bool, False there.
        kl: coefficient of the KL cost.
        value: (m, P, K) J of each member on each prompt.
        cost: (m, P) its KL cost there.
    """

    rewards: np.ndarray
    mask: np.ndarray
    kl: float
    value: np.ndarray
    cost: np.ndarray

    @property
    def reference(self) -> np.ndarray:
        """(P, K) mean reward of each prompt's candidates."""
        return self.rewards.sum(axis=1) / self.mask.sum(axis=1)[:, None]

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(P, M) OPT_x at (M, K) weights."""
        result = np.empty((len(self.rewards), len(weights)))
        step = max(1, _BLOCK // self.mask.size)
        for start in range(0, len(weights), step):
            tilt = self.rewards @ (weights[start : start + step].T / self.kl)
            tilt[~self.mask] = -np.inf
            top = tilt.max(axis=1)
            total = np.exp(tilt - top[:, None]).sum(axis=1)
            result[:, start : start + step] = self.kl * (top + np.log(total / self.mask.sum(axis=1)[:, None]))
        return result

    def gaps(self, counts: np.ndarray, *, epsilon: float = 0.0, delta: float = 0.0) -> Bounds:
        """Worst gaps over the simplex with each prompt counted (P,) times; epsilon and delta as `certify` has them."""
        share = counts / counts.sum()
        value, cost = np.einsum("p,mpk->mk", share, self.value), self.cost @ share
        there = np.flatnonzero(counts)
        few = OnPrompts(self.rewards[there], self.mask[there], self.kl, self.value[:, there], self.cost[:, there])
        reference = share @ self.reference
        corners = corner_weights(folded(value, cost, reference))
        served = served_utility(corners, value, cost, reference)
        gap = worst_gap(share[there] @ few.optimum(corners), served, corners @ reference, given_epsilon=epsilon, given_delta=delta)
        return Bounds(gap.epsilon, gap.delta, gap.captured_gain)


def optimal_on(weights: np.ndarray, rewards: np.ndarray, mask: np.ndarray, kl: float) -> OnPrompts:
    """The policies that are optimal at (m, K) weights, on each prompt's candidates."""
    value, cost = np.empty((len(weights), len(rewards), rewards.shape[2])), np.empty((len(weights), len(rewards)))
    for number, weight in enumerate(weights):
        tilt = np.where(mask, rewards @ weight / kl, -np.inf)
        tilt -= tilt.max(axis=1, keepdims=True)
        total = np.exp(tilt).sum(axis=1, keepdims=True)
        probability = np.exp(tilt) / total
        value[number] = np.einsum("pn,pnk->pk", probability, rewards)
        log_ratio = np.where(mask, tilt - np.log(total / mask.sum(axis=1, keepdims=True)), 0.0)
        cost[number] = kl * np.maximum((probability * log_ratio).sum(axis=1), 0.0)
    return OnPrompts(rewards, mask, kl, value, cost)


def resampled_gaps(
    prompts: OnPrompts, *, draws: int, seed: int, epsilon: float = 0.0, delta: float = 0.0
) -> tuple[Bounds, np.ndarray]:
    """Gaps on the prompts, and (draws, 3) epsilon, delta and captured gain on as many drawn from them with replacement.

    O(draws P N K c) for c corners.
    """
    size = len(prompts.rewards)
    rng = np.random.default_rng(seed)
    centre = prompts.gaps(np.ones(size), epsilon=epsilon, delta=delta)
    samples = np.empty((draws, 3))
    for draw in range(draws):
        counts = np.bincount(rng.integers(size, size=size), minlength=size)
        found = prompts.gaps(counts, epsilon=epsilon, delta=delta)
        samples[draw] = found.epsilon, found.delta, found.captured_gain
    return centre, samples
