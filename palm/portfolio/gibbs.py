"""Gibbs oracle: from a weight to the optimal policy's value and KL cost on sampled candidates, before anything is trained.

With candidates y_1..y_N from the reference policy, the policy that maximises w.J - kl KL(pi || pi_ref) on them is known
in closed form, p_n proportional to exp(w.phi_n / kl), and its utility is OPT(w) = kl E_x log mean_n exp(w.phi_n / kl).
So a search over weights needs matrix products only, and policies are trained once, for the weights that were chosen.

Source of the closed form: J. Peters, K. Muelling, Y. Altun, "Relative entropy policy search", AAAI 2010; in preference
learning: T. Korbak et al., "RL with KL penalties is better viewed as Bayesian inference", EMNLP 2022.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np

from palm.portfolio.blocks import MOST_WEIGHTS, Exponential, Result, each_block, fastest_exponential, tilt
from palm.portfolio.oracle import Solution
from palm.simplex import check_weights

_DIAGNOSED = 2**15  # numbers kept per prompt and weight
_LARGEST = 1e100  # reward; squares and ratios of rewards must be numbers
_MOST_KL = 1e6  # of the largest reward; of kl log mean exp(reward / kl) 1e-16 kl is rounding
_SAFE_LOGIT = 300.0  # sums of exponentials of up to so much neither overflow nor lose a term that counts


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


class GibbsOracle:
    """Exact KL-regularised optima on sampled candidates.

    A weight costs O(P N K) operations; prompts and weights go through in blocks that stay in cache, so the memory used beside
    the rewards does not grow with the number of weights. Large calls use as many threads as OMP_NUM_THREADS says, by default one
    for every processor; how many changes no digit. Everything is float64. Equal candidates and ties change nothing: they share
    their probability.
    """

    def __init__(self, reward_tensor: np.ndarray, kl: float = 0.1, *, mask: np.ndarray | None = None) -> None:
        """Check and keep the rewards of candidates that were sampled from the reference.

        Args:
            reward_tensor: (P, N, K) finite numbers, at least 0; calibrated into [0, 1] by convention. The largest is 0 or between
                1e-100 and 1e100, so that products of two of them are numbers.
            kl: coefficient of the KL cost, in units of reward, at least 1e-100 and at most a million times the largest reward
                (there already the best policy is the reference, up to a millionth of it) unless that is 0.
            mask: (P, N) bool, False where a prompt has no such candidate; the reference is uniform over those it has.

        Raises:
            ValueError: a shape is wrong, a size is 0, a reward is negative, not finite or out of range, a prompt has no candidate,
                or `kl` is not a positive number in its range.
        """
        rewards, present = check_tensor(reward_tensor, kl, mask)
        self._rewards = rewards
        self._present = present
        # Rewards around the middle of their prompt's: exp(w.(phi - middle) / kl) needs no maximum taken out unless kl is tiny.
        low = np.where(present[:, :, None], rewards, np.inf).min(axis=(1, 2))
        high = np.where(present[:, :, None], rewards, -np.inf).max(axis=(1, 2))
        self._middle = 0.5 * (low + high)  # (P,)
        self._centred = np.where(present[:, :, None], rewards - self._middle[:, None, None], 0.0)
        self._safe = bool((high - low).max() <= 2 * _SAFE_LOGIT * kl)
        # (P, K + 1, N): one product with the exponentials gives the sums of rewards and, in the last row, of probabilities.
        self._summed = np.concatenate([rewards.transpose(0, 2, 1), present[:, None, :].astype(np.float64)], axis=1)
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
        per_prompt = self._rewards.sum(axis=1) / self._counts[:, None]
        return np.ascontiguousarray(per_prompt.T).mean(axis=1)  # along memory NumPy sums in pairs, with less rounding

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
        value, optimum = np.zeros((len(weights), self.bases)), np.zeros(len(weights))
        exp = self._exponential(weights)

        def block(rows: slice, prompts: slice, room: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            tilted, top = self._tilted(weights[rows], prompts, exp, room)
            sums = self._summed[prompts] @ tilted  # (p, K + 1, m)
            log_mean = self._log_mean(sums[:, -1], top, weights[rows], prompts).sum(axis=0)
            return (sums[:, :-1] / sums[:, -1:]).sum(axis=0).T, log_mean

        for rows, _, (rewards, log_mean) in self._each_block(block, weights):
            value[rows] += rewards
            optimum[rows] += log_mean
        value /= self.prompts
        optimum /= self.prompts
        cost = np.maximum((weights * value).sum(axis=1) - optimum, 0.0)  # 0 exactly where the policy is the reference
        return Solution(value, cost, optimum)

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """OPT at each of (M, K) weights: (M,) float."""
        weights = check_weights(weights, bases=self.bases)
        optimum, exp = np.zeros(len(weights)), self._exponential(weights)

        def block(rows: slice, prompts: slice, room: np.ndarray) -> np.ndarray:
            tilted, top = self._tilted(weights[rows], prompts, exp, room)
            total = (self._summed[prompts, -1:] @ tilted)[:, 0]
            return self._log_mean(total, top, weights[rows], prompts).sum(axis=0)

        for rows, _, log_mean in self._each_block(block, weights):
            optimum[rows] += log_mean
        return optimum / self.prompts

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """OPT itself at each of (M, K) weights: (M,) float."""
        return self.optimum(weights)

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """OPT itself at each of (M, K) weights: (M,) float."""
        return self.optimum(weights)

    def policy_probabilities(self, weight: np.ndarray) -> np.ndarray:
        """(P, N) probabilities that the optimal policy for one weight gives the candidates; rows sum to 1."""
        weights, room = check_weights(weight, bases=self.bases)[:1], np.empty((*self._present.shape, 1))
        tilted = self._tilted(weights, slice(None), self._exponential(weights), room)[0][:, :, 0] * self._present
        return tilted / tilted.sum(axis=1, keepdims=True)

    def diagnostics(self, weights: np.ndarray) -> Diagnostics:
        """Effective sample size, finite-candidate bias and prompt error at each of (M, K) weights."""
        weights = check_weights(weights, bases=self.bases)
        results = np.empty((4, len(weights)))
        for start in range(0, len(weights), step := max(1, min(MOST_WEIGHTS, _DIAGNOSED // self.prompts))):
            rows = slice(start, min(start + step, len(weights)))
            results[:, rows] = self._diagnose(weights[rows])
        return Diagnostics(*results)

    def _diagnose(self, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        """The four diagnostics at (M, K) weights, few enough for (P, M) numbers to be kept."""
        exp = self._exponential(weights)

        def block(rows: slice, prompts: slice, room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            tilted, top = self._tilted(weights[rows], prompts, exp, room)
            total = (self._summed[prompts, -1:] @ tilted)[:, 0]
            per_prompt = self._log_mean(total, top, weights[rows], prompts)
            tilted *= self._present[prompts, :, None]
            tilted /= total[:, None, :]
            samples = 1.0 / np.einsum("pnm,pnm->pm", tilted, tilted)
            # Leave one candidate out: log-mean-exp over the others, from the total without it.
            count = self._counts[prompts, None]
            left = np.log(np.maximum(1.0 - tilted, 1e-300)).sum(axis=1) / count + np.log(count / np.maximum(count - 1, 1))
            return per_prompt, samples, np.where(count > 1, (count - 1) * left, 0.0) * self.kl

        results = np.empty((3, self.prompts, len(weights)))
        for rows, prompts, result in self._each_block(block, weights):
            results[:, prompts, rows] = result
        per_prompt, samples, bias = results
        several = self.prompts > 1
        error = per_prompt.std(axis=0, ddof=1) / np.sqrt(self.prompts) if several else np.full(len(weights), np.inf)
        return samples.mean(axis=0), samples.min(axis=0), bias.mean(axis=0), error

    @cached_property
    def most_curvature(self) -> np.ndarray:
        """(K, K) how strongly OPT can bend: E_x r_x r_x' / (4 kl), r_xk basis k's range; see `palm.portfolio.bounds`."""
        shown = self._present[:, :, None]
        ranges = np.where(shown, self._rewards, -np.inf).max(axis=1) - np.where(shown, self._rewards, np.inf).min(axis=1)
        return ranges.T @ ranges / (4 * self.kl * self.prompts)

    def part(self, prompts: np.ndarray) -> "GibbsOracle":
        """The same oracle on some of the prompts, given by their positions."""
        return GibbsOracle(self._rewards[prompts], self.kl, mask=self._present[prompts])

    def _each_block(
        self, work: Callable[[slice, slice, np.ndarray], Result], weights: np.ndarray
    ) -> Iterator[tuple[slice, slice, Result]]:
        prompts, candidates, bases = self._rewards.shape
        return each_block(work, weights=len(weights), prompts=prompts, candidates=candidates, bases=bases)

    def _exponential(self, weights: np.ndarray) -> Exponential:
        prompts, candidates, bases = self._rewards.shape
        return fastest_exponential(len(weights), prompts=prompts, candidates=candidates, bases=bases)

    def _tilted(
        self, weights: np.ndarray, prompts: slice, exp: Exponential, room: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """exp(w.(phi - middle) / kl - top) (p, N, M), where absent candidates may hold anything finite, and top (p, M) or 0."""
        directions = np.ascontiguousarray(weights.T / self.kl)
        tilt(self._centred[prompts], directions, room, exp if self._safe else None)
        if self._safe:
            return room, 0.0
        if not self._all_present:
            room[~self._present[prompts]] = -np.inf
        top = room.max(axis=1)
        room -= top[:, None, :]
        return np.exp(room, out=room), top

    def _log_mean(self, total: np.ndarray, top: np.ndarray | float, weights: np.ndarray, prompts: slice) -> np.ndarray:
        """(p, M) kl log mean_n exp(w.phi_n / kl), from the sum of the exponentials."""
        middle = self._middle[prompts, None] * weights.sum(axis=1)
        return self.kl * (top + np.log(total / self._counts[prompts, None])) + middle


def check_tensor(reward_tensor: np.ndarray, kl: float, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (P, N, K) as float64, 0 where there is no candidate, and (P, N) bool where there is one.

    Raises:
        ValueError: see `GibbsOracle`.
    """
    rewards = _array(reward_tensor, "reward_tensor")
    if rewards.ndim != 3 or 0 in rewards.shape:
        raise ValueError(
            f"reward_tensor: expected the shape (P prompts, N candidates, K bases), none of them 0, got {rewards.shape}"
        )
    if not (np.issubdtype(rewards.dtype, np.floating) or np.issubdtype(rewards.dtype, np.integer) or rewards.dtype == bool):
        raise ValueError(f"reward_tensor: expected numbers, got dtype {rewards.dtype}")
    present = np.ones(rewards.shape[:2], dtype=bool) if mask is None else _array(mask, "mask")
    if present.dtype != bool:
        raise ValueError(f"mask: expected True and False, got dtype {present.dtype}")
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
    if isinstance(kl, bool) or not isinstance(kl, Real) or not (np.isfinite(kl) and kl > 0):
        raise ValueError(f"kl: expected a positive number, got {kl!r}")
    for name, number in (("reward_tensor", float(rewards.max())), ("kl", float(kl))):
        if number and not 1 / _LARGEST <= number <= _LARGEST:
            what = "the largest reward to be 0 or a number" if name == "reward_tensor" else "a number"
            raise ValueError(f"{name}: expected {what} between {1 / _LARGEST:g} and {_LARGEST:g}, got {number:g}")
    if 0 < _MOST_KL * rewards.max() < kl:
        raise ValueError(
            f"kl: expected at most {_MOST_KL:,.0f} times the largest reward, {rewards.max():g}, got {kl:g}: no "
            "policy is better than the reference there by more than rounding"
        )
    return np.ascontiguousarray(rewards), present


def _array(given: np.ndarray, name: str) -> np.ndarray:
    """What NumPy makes of an argument.

    Raises:
        ValueError: nothing: it is ragged, or a tensor of another library that is elsewhere or has no kind of NumPy's.
    """
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected an array, got {type(given).__name__} that NumPy cannot read: {error}") from error
