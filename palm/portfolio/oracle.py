"""Oracles: from a weight to an optimal policy's value and KL cost, before anything is trained.

With candidates y_1..y_N from the reference policy, the policy that maximises w.J - kl KL(pi || pi_ref) on them is known
in closed form, p_n proportional to exp(w.phi_n / kl), and its utility is OPT(w) = kl E_x log mean_n exp(w.phi_n / kl).
So a search over weights needs matrix products only, and policies are trained once, for the weights that were chosen.

Source of the closed form: J. Peters, K. Muelling, Y. Altun, "Relative entropy policy search", AAAI 2010; in preference
learning: T. Korbak et al., "RL with KL penalties is better viewed as Bayesian inference", EMNLP 2022.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from palm.simplex import check_weights

_CHUNK = 2**23  # numbers in one block of logits: 64 MiB


@dataclass(frozen=True)
class Solution:
    """What an oracle says of M weights.

    Attributes:
        value: (M, K) float; J of the policy that is optimal for each weight.
        cost: (M,) float; its KL cost, kl times its KL divergence from the reference.
        optimum: (M,) float; w.value - cost, what that policy reaches; OPT(w) is at most the oracle's slack more.
    """

    value: np.ndarray
    cost: np.ndarray
    optimum: np.ndarray


@dataclass(frozen=True)
class Diagnostics:
    """How far N candidates per prompt can be trusted at M weights.

    Attributes:
        effective_samples: (M,) float, 1 to N; 1 / sum p^2, the mean over prompts.
        fewest_samples: (M,) float; the least over prompts.
        bias: (M,) float; jackknife estimate of what OPT is off for having finitely many candidates. It is negative
            where OPT is too low, so OPT - bias is the corrected estimate.
        prompt_error: (M,) float; standard error of OPT over prompts.
    """

    effective_samples: np.ndarray
    fewest_samples: np.ndarray
    bias: np.ndarray
    prompt_error: np.ndarray


class Oracle(Protocol):
    """What a search and a certificate ask of an oracle."""

    @property
    def bases(self) -> int:
        """K."""

    @property
    def reference(self) -> np.ndarray:
        """(K,) value of the reference policy, whose KL cost is 0."""

    @property
    def slack(self) -> float:
        """Most by which `solve`'s policies miss the optimum of the policy class."""

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""

    def solve(self, weights: np.ndarray) -> Solution:
        """Value, cost and optimum at (M, K) weights."""

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(M,) what `solve` gives as optimum at (M, K) weights; may be cheaper."""


class GibbsOracle:
    """Exact KL-regularised optima on sampled candidates.

    A weight costs O(P N K) operations; weights go through in blocks, so memory does not grow with their number.
    Sums are taken in float64. Equal candidates and ties change nothing: they share their probability.
    """

    def __init__(self, reward_tensor: np.ndarray, kl: float = 0.1, *, mask: np.ndarray | None = None) -> None:
        """Check and keep the rewards of candidates that were sampled from the reference.

        Args:
            reward_tensor: (P, N, K) finite numbers, at least 0; calibrated into [0, 1] by convention.
            kl: coefficient of the KL cost, in units of reward.
            mask: (P, N) bool, False where a prompt has no such candidate; the reference is uniform over those it has.

        Raises:
            ValueError: a shape is wrong, a size is 0, a reward is negative or not finite, a prompt has no candidate, or
                `kl` is not a positive number.
        """
        rewards = np.asarray(reward_tensor)
        if rewards.ndim != 3 or 0 in rewards.shape:
            raise ValueError(
                f"reward_tensor: expected the shape (P prompts, N candidates, K bases), none of them 0, got {rewards.shape}"
            )
        if rewards.dtype == object or not np.issubdtype(rewards.dtype, np.number):
            raise ValueError(f"reward_tensor: expected numbers, got dtype {rewards.dtype}")
        present = np.ones(rewards.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        if present.shape != rewards.shape[:2]:
            raise ValueError(f"mask: expected the shape {rewards.shape[:2]} of prompts and candidates, got {present.shape}")
        if not present.any(axis=1).all():
            raise ValueError(f"mask: expected a candidate for every prompt, prompt {int((~present.any(axis=1)).argmax())} has none")
        rewards = np.where(present[:, :, None], rewards, 0.0).astype(np.float64)
        if not np.isfinite(rewards).all():
            prompt, candidate, basis = np.argwhere(~np.isfinite(rewards))[0].tolist()
            raise ValueError(
                f"reward_tensor: expected finite numbers, got {rewards[prompt, candidate, basis]} at prompt {prompt}, "
                f"candidate {candidate}, basis {basis}"
            )
        if rewards.min() < 0:
            raise ValueError(f"reward_tensor: expected rewards of at least 0 (calibrated into [0, 1]), got {rewards.min():g}")
        if isinstance(kl, bool) or not (np.isfinite(kl) and kl > 0):
            raise ValueError(f"kl: expected a positive number, got {kl}")
        self._rewards = np.ascontiguousarray(rewards)
        self._present = present
        self._counts = present.sum(axis=1)  # (P,)
        self._all_present = bool(present.all())
        self.kl = float(kl)

    @property
    def prompts(self) -> int:
        """P."""
        return self._rewards.shape[0]

    @property
    def bases(self) -> int:
        """K."""
        return self._rewards.shape[2]

    @cached_property
    def reference(self) -> np.ndarray:
        """(K,) mean reward of the candidates, averaged over prompts."""
        return (self._rewards.sum(axis=1) / self._counts[:, None]).mean(axis=0)

    @property
    def slack(self) -> float:
        """0: the closed form is exact on the candidates."""
        return 0.0

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""
        sizes = f"{self._counts.min()} to {self._counts.max()}" if not self._all_present else str(self._counts[0])
        return (
            f"optima are exact for the {self.prompts} given prompts with {sizes} candidates each, "
            "taken as draws from the reference policy",
            f"utility is w.J - C with C = {self.kl:g} x KL from the reference",
        )

    def solve(self, weights: np.ndarray) -> Solution:
        """The optimal policy at each weight.

        Args:
            weights: (M, K) or (K,) on the simplex.

        Returns:
            value (M, K), cost (M,), optimum (M,).
        """
        weights = check_weights(weights, bases=self.bases)
        value, optimum = np.empty((len(weights), self.bases)), np.empty(len(weights))
        for rows in self._blocks(len(weights)):
            density, optimum[rows] = self._tilt(weights[rows])
            density /= self.prompts
            value[rows] = (self._rewards.reshape(-1, self.bases).T @ density.reshape(-1, density.shape[2])).T
        cost = np.maximum((weights * value).sum(axis=1) - optimum, 0.0)  # 0 exactly where the policy is the reference
        return Solution(value, cost, optimum)

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """OPT at each of (M, K) weights: (M,) float."""
        weights = check_weights(weights, bases=self.bases)
        optimum = np.empty(len(weights))
        for rows in self._blocks(len(weights)):
            optimum[rows] = self._log_partition(weights[rows])[0].mean(axis=0)
        return optimum

    def policy_probabilities(self, weight: np.ndarray) -> np.ndarray:
        """(P, N) probabilities that the optimal policy for one weight gives the candidates; rows sum to 1."""
        return self._tilt(check_weights(weight, bases=self.bases))[0][:, :, 0]

    def diagnostics(self, weights: np.ndarray) -> Diagnostics:
        """Effective sample size, finite-candidate bias and prompt error at each of (M, K) weights."""
        weights = check_weights(weights, bases=self.bases)
        results = np.empty((4, len(weights)))
        for rows in self._blocks(len(weights)):
            per_prompt, tilted, total = self._log_partition(weights[rows])
            share = tilted / total[:, None, :]  # (P, N, M)
            samples = 1.0 / (share**2).sum(axis=1)
            count = self._counts[:, None]
            # Leave one candidate out: log-mean-exp over the others, from the total without it.
            left = np.log(np.maximum(1.0 - share, 1e-300)) + np.log(count / np.maximum(count - 1, 1))[:, None, :]
            mean_left = (left * self._present[:, :, None]).sum(axis=1) / count
            bias = np.where(count > 1, (count - 1) * mean_left, 0.0) * self.kl
            error = per_prompt.std(axis=0, ddof=1) / np.sqrt(self.prompts) if self.prompts > 1 else np.full(share.shape[2], np.inf)
            results[:, rows] = samples.mean(axis=0), samples.min(axis=0), bias.mean(axis=0), error
        return Diagnostics(*results)

    @cached_property
    def most_curvature(self) -> np.ndarray:
        """(K, K) how strongly OPT can bend: E_x r_x r_x' / (4 kl), r_xk basis k's range; see `palm.portfolio.bounds`."""
        shown = self._present[:, :, None]
        ranges = np.where(shown, self._rewards, -np.inf).max(axis=1) - np.where(shown, self._rewards, np.inf).min(axis=1)
        return ranges.T @ ranges / (4 * self.kl * self.prompts)

    def part(self, prompts: np.ndarray) -> "GibbsOracle":
        """The same oracle on some of the prompts, given by their positions."""
        return GibbsOracle(self._rewards[prompts], self.kl, mask=self._present[prompts])

    def _blocks(self, count: int) -> list[slice]:
        step = max(1, _CHUNK // (self._rewards.shape[0] * self._rewards.shape[1]))
        return [slice(start, min(start + step, count)) for start in range(0, count, step)]

    def _log_partition(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """kl log mean exp per prompt (P, M), exp(logits - max) (P, N, M) and its sum over candidates (P, M)."""
        logits = self._rewards @ (weights.T / self.kl)
        if not self._all_present:
            logits[~self._present] = -np.inf
        top = logits.max(axis=1)
        logits -= top[:, None, :]
        tilted = np.exp(logits, out=logits)
        total = tilted.sum(axis=1)
        return self.kl * (top + np.log(total / self._counts[:, None])), tilted, total

    def _tilt(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (P, N, M) and OPT (M,)."""
        per_prompt, tilted, total = self._log_partition(weights)
        tilted /= total[:, None, :]
        return tilted, per_prompt.mean(axis=0)
