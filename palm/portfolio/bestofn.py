"""Best-of-n oracle: the policies that draw n responses and give the one that is best for a weight.

A policy draws n of a prompt's N candidates, uniformly and independently (with replacement: the candidates stand for the
reference policy, as in the Gibbs oracle, so n may exceed N), and gives the one with the largest w.phi; candidates that tie
share their probability equally. With candidates sorted upward, the one of rank i is given with probability
(i / N)^n - ((i - 1) / N)^n: value and KL cost are exact sums over ranks.

OPT over best-of-n policies alone has no convex form that is exact: the policy for w has the largest w.J of all ways to pick one
of n draws, but where candidates tie at another weight w', that policy's KL cost is less. So OPT is taken over the class of
*all* rules that pick one of n draws, at random or not. It contains every best-of-n policy, ties shared in any way, and the
reference; its distributions are those whose k most likely candidates have at most the probability that the k highest ranks
have, for every k, so max w.J - C is a concave program with a chain of constraints, which pooling adjacent violators solves
exactly. That is the oracle's upper bound: convex in w, and above best-of-n by what hard choice loses against soft choice.

Sources: order statistics and the bound log n - (n - 1) / n on the KL divergence: A. Beirami et al., "Theoretical guarantees on
the best-of-n alignment policy", ICML 2025. The entropic projection onto a permutahedron by pooling: M. Blondel et al., "Fast
differentiable sorting and ranking", ICML 2020, proposition 4.
"""

from collections.abc import Iterator

import numpy as np

from palm.portfolio.gibbs import check_tensor
from palm.portfolio.oracle import Solution
from palm.simplex import check_weights

_BLOCK = 2**18  # numbers in one block of scores
_TIE = 1e-12  # of the largest score: scores that differ by less are equal: rounding must not break a tie


class BestOfNOracle:
    """Best-of-n policies on sampled candidates, exactly.

    A weight costs O(P N (K + log N)) operations; weights go through in blocks, so memory does not grow with their number.

    Attributes:
        n: draws.
        kl: coefficient of the KL cost.
        divergence: KL divergence of the policy from the reference where nothing ties, mean over prompts.
        divergence_bound: log n - (n - 1) / n, which no best-of-n policy's exceeds, whatever the candidates.
    """

    def __init__(self, reward_tensor: np.ndarray, n: int, kl: float = 0.1, *, mask: np.ndarray | None = None) -> None:
        """Check and keep the rewards of candidates that were sampled from the reference.

        Args:
            reward_tensor: (P, N, K) finite numbers, at least 0; calibrated into [0, 1] by convention.
            n: responses to draw, at least 1; with 1 the policy is the reference.
            kl: coefficient of the KL cost, in units of reward.
            mask: (P, N) bool, False where a prompt has no such candidate; the reference is uniform over those it has.

        Raises:
            ValueError: as `GibbsOracle`, or `n` is not a whole number of at least 1.
        """
        rewards, present = check_tensor(reward_tensor, kl, mask)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"n: expected a whole number of at least 1, got {n!r}")
        self.n, self.kl = int(n), float(kl)
        self._present, self._rewards = present, rewards
        counts = present.sum(axis=1)
        self.reference = (rewards.sum(axis=1) / counts[:, None]).mean(axis=0)  # (K,)
        # Prompts with equally many candidates go together, without gaps: which prompts, and their rewards (P', N', K).
        self._groups = [
            (rows := np.flatnonzero(counts == count), rewards[rows][present[rows]].reshape(len(rows), count, -1))
            for count in np.unique(counts)
        ]
        untied = {count: _divergence(best_of_n(np.arange(count, dtype=np.float64)[None], self.n))[0] for count in np.unique(counts)}
        self.divergence = float(np.mean([untied[count] for count in counts]))
        self.divergence_bound = float(np.log(self.n) - (self.n - 1) / self.n)

    @property
    def prompts(self) -> int:
        """P."""
        return len(self._rewards)

    @property
    def bases(self) -> int:
        """K."""
        return self._rewards.shape[2]

    @property
    def slack(self) -> float:
        """The KL cost of an untied policy: no other rule has more w.J, and none costs less than nothing. See `upper_bound`."""
        return self.kl * self.divergence

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What a reader must grant for its numbers to hold."""
        return (
            f"optima are bounded for the {self.prompts} given prompts over all rules that pick one of {self.n} responses, "
            "drawn with replacement from the candidates, which are taken as draws from the reference policy",
            f"utility is w.J - C with C = {self.kl:g} x KL from the reference; a policy's KL is {self.divergence:.4g} "
            f"where nothing ties and at most log n - (n - 1) / n = {self.divergence_bound:.4g}",
        )

    def solve(self, weights: np.ndarray) -> Solution:
        """The best-of-n policy for each weight.

        Args:
            weights: (M, K) or (K,) on the simplex.

        Returns:
            value (M, K), cost (M,), and as optimum (M,) what the policy reaches at its weight.
        """
        weights = check_weights(weights, bases=self.bases)
        value, divergence = np.zeros((len(weights), self.bases)), np.zeros(len(weights))
        for rows, rewards in self._blocks(len(weights)):
            probability = best_of_n(np.einsum("pnk,mk->mpn", rewards, weights[rows]), self.n)
            value[rows] += np.einsum("mpn,pnk->mk", probability, rewards)
            divergence[rows] += _divergence(probability).sum(axis=1)
        value, cost = value / self.prompts, self.kl * divergence / self.prompts
        return Solution(value, cost, (weights * value).sum(axis=1) - cost)

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """What `solve`'s policies reach at each of (M, K) weights: (M,) float."""
        return self.solve(weights).optimum

    def upper_bound(self, weights: np.ndarray) -> np.ndarray:
        """The optimum over all rules that pick one of n draws, exactly, at each of (M, K) weights: (M,) float."""
        weights = check_weights(weights, bases=self.bases)
        bound = np.zeros(len(weights))
        for rows, rewards in self._blocks(len(weights)):
            bound[rows] += pick_softly(np.einsum("pnk,mk->mpn", rewards, weights[rows]), self.n, self.kl).sum(axis=1)
        return bound / self.prompts

    def lower_bound(self, weights: np.ndarray) -> np.ndarray:
        """The better of the best-of-n policy and the reference at each of (M, K) weights: (M,) float."""
        weights = check_weights(weights, bases=self.bases)
        return np.maximum(self.solve(weights).optimum, weights @ self.reference)

    def policy_probabilities(self, weight: np.ndarray) -> np.ndarray:
        """(P, N) probabilities that the policy for one weight gives the candidates; rows sum to 1."""
        weight = check_weights(weight, bases=self.bases)[0]
        probability = np.zeros(self._present.shape)
        for rows, rewards in self._groups:
            inside = np.zeros(self._present.shape, dtype=bool)
            inside[rows] = self._present[rows]
            probability[inside] = best_of_n(rewards @ weight, self.n).ravel()
        return probability

    def _blocks(self, count: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Weights and prompts' rewards, a block at a time."""
        for _, rewards in self._groups:
            prompts = max(1, _BLOCK // rewards.shape[1])
            for first in range(0, len(rewards), prompts):
                part = rewards[first : first + prompts]
                step = max(1, _BLOCK // (part.shape[0] * part.shape[1]))
                for start in range(0, count, step):
                    yield slice(start, min(start + step, count)), part


def best_of_n(scores: np.ndarray, n: int) -> np.ndarray:
    """Probabilities with which the best of n draws is each candidate.

    Args:
        scores: (..., N) finite numbers; those within 1e-12 of their neighbour, relative to the largest, tie.
        n: draws, with replacement.

    Returns:
        (..., N), sums 1; candidates that tie have equal probabilities.
    """
    count = scores.shape[-1]
    order = np.argsort(scores, axis=-1, kind="stable")
    upward = np.take_along_axis(scores, order, axis=-1)
    tolerance = _TIE * np.abs(upward).max(axis=-1, keepdims=True)
    opens = np.concatenate([np.ones_like(upward[..., :1], dtype=bool), np.diff(upward, axis=-1) > tolerance], axis=-1)
    rank = np.arange(count)
    start = np.maximum.accumulate(np.where(opens, rank, 0), axis=-1)  # how many candidates are worse
    closes = np.concatenate([opens[..., 1:], np.ones_like(opens[..., :1])], axis=-1)
    end = np.minimum.accumulate(np.where(closes, rank + 1, count)[..., ::-1], axis=-1)[..., ::-1]  # how many are no better
    below = (np.arange(count + 1) / count) ** n  # probability that all draws are among the lowest so many
    shared = (below[end] - below[start]) / (end - start)
    probability = np.empty_like(shared)
    np.put_along_axis(probability, order, shared, axis=-1)
    return probability


def pick_softly(scores: np.ndarray, n: int, kl: float) -> np.ndarray:
    """Most of E score - kl KL(p || uniform) over all rules that pick one of n uniform draws, by pooling adjacent violators.

    Args:
        scores: (..., N) finite numbers.
        n: draws, with replacement.
        kl: positive.

    Returns:
        (...,) the optimum. O(N log N) each.

    p is reached by some rule if and only if every set of k candidates has at most the probability Q_k that a draw is among
    the k highest ranks. With scores sorted downward only the sets of the first k matter. Blocks of neighbours B share a
    multiplier; where it would rise from one block to the next the two are one, and p on B is exp(score / kl), normalised to
    the probability q(B) of its ranks, with utility q(B) kl log(sum_B exp(score / kl) / (N q(B))).
    """
    count = scores.shape[-1]
    logits = -np.sort(-scores.reshape(-1, count), axis=1) / kl
    rank = np.arange(count, 0, -1.0)
    with np.errstate(divide="ignore"):  # log(1 - 1 / 1) at the lowest rank, where the whole of (1 / N)^n is left
        log_q = n * np.log(rank / count) + np.log(-np.expm1(n * np.log1p(-1.0 / rank)))
    sums, masses = np.zeros_like(logits), np.zeros_like(logits)  # stacks of blocks, as logarithms
    top = np.full(len(logits), -1)
    every = np.arange(len(logits))
    for position in range(count):
        top += 1
        sums[every, top], masses[every, top] = logits[:, position], log_q[position]
        rows = every
        while len(rows := rows[top[rows] > 0]):
            last = top[rows]
            rises = sums[rows, last - 1] - masses[rows, last - 1] <= sums[rows, last] - masses[rows, last]
            rows, last = rows[rises], last[rises]
            sums[rows, last - 1] = np.logaddexp(sums[rows, last - 1], sums[rows, last])
            masses[rows, last - 1] = np.logaddexp(masses[rows, last - 1], masses[rows, last])
            top[rows] -= 1
    used = np.arange(count) <= top[:, None]
    share = np.exp(np.where(used, masses, -np.inf))
    utility = kl * (share * np.where(used, sums - masses - np.log(count), 0.0)).sum(axis=1)
    return utility.reshape(scores.shape[:-1])


def _divergence(probability: np.ndarray) -> np.ndarray:
    """(...,) KL divergence of (..., N) probabilities from uniform ones."""
    terms = probability * np.log(np.where(probability > 0, probability, 1.0) * probability.shape[-1])
    return np.maximum(terms.sum(axis=-1), 0.0)
