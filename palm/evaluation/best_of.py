"""Best-of-n as a baseline: what the reference gives if the best of n of its responses is kept, from candidates that are there.

Of a prompt's N candidates every set of n is as good a draw of n as any other, so the mean over all sets is an unbiased estimate of
what n new responses would give: the candidate of rank i from below is the best of C(i - 1, n - 1) of the C(N, n) sets. The KL cost
is taken at log n - (n - 1) / n, which the divergence never exceeds and nearly is where responses hardly ever tie. Every response
costs n samples when it is served; a trained policy costs one.

Source: A. Beirami et al., "Theoretical guarantees on the best-of-n alignment policy", ICML 2025 (the bound).
"""

import numpy as np
from scipy.special import gammaln

from palm.evaluation.measure import Measured
from palm.rewards.tensor import RewardTensor
from palm.simplex import check_weights

_TIE = 1e-12


def best_of(tensor: RewardTensor, weight: np.ndarray, n: int) -> Measured:
    """What the best of n responses by w.phi gives on each prompt, without bias.

    Args:
        tensor: of P prompts' candidates, draws from the reference.
        weight: (K,) on the simplex.
        n: from 1 to the fewest candidates of a prompt.

    Raises:
        ValueError: `n` is out of range or the weight is off the simplex.
    """
    weight = check_weights(weight, bases=tensor.rewards.shape[2], name="weight")[0]
    fewest = int(tensor.mask.sum(axis=1).min())
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= fewest:
        raise ValueError(f"n: expected a whole number from 1 to {fewest}, the fewest candidates of a prompt, got {n!r}")
    value = np.empty((len(tensor.rewards), tensor.rewards.shape[2]))
    for prompt, there in enumerate(tensor.mask):
        rewards = tensor.rewards[prompt, there]
        value[prompt] = best_of_sets(rewards @ weight, int(n)) @ rewards
    return Measured(value, np.full(len(value), np.log(n) - (n - 1) / n))


def best_of_sets(scores: np.ndarray, n: int) -> np.ndarray:
    """(N,) probability that each of (N,) candidates is the best of a random set of n; those that tie share theirs."""
    count = len(scores)
    order = np.argsort(scores, kind="stable")
    upward = scores[order]
    sets = np.zeros(count + 1)  # sets among the lowest so many, as a share of all
    sizes = np.arange(n, count + 1)
    with np.errstate(divide="ignore"):
        sets[n:] = np.exp(gammaln(sizes + 1) - gammaln(sizes - n + 1) - gammaln(count + 1) + gammaln(count - n + 1))
    opens = np.flatnonzero(np.concatenate([[True], np.diff(upward) > _TIE * max(1.0, float(np.abs(upward).max()))]))
    closes = np.append(opens[1:], count)
    probability = np.empty(count)
    for start, end in zip(opens, closes, strict=True):
        probability[order[start:end]] = (sets[end] - sets[start]) / (end - start)
    return probability


def choose_n(tensor: RewardTensor, weights: np.ndarray, kl: float, *, most: int) -> int:
    """The n with the most utility, mean over (M, K) weights, on the prompts that a plan may look at; at most `most`."""
    sizes = range(1, min(most, int(tensor.mask.sum(axis=1).min())) + 1)
    utility = [np.mean([(best_of(tensor, weight, n).utility(weight, kl)).mean for weight in weights]) for n in sizes]
    return 1 + int(np.argmax(utility))
