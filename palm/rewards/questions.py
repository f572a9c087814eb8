"""Which pair to ask a user next, and when to stop asking.

A question is a pair whose answer is not known; what it is worth is symmetric in its sides, so no answer leaks into the choice.

`information`: the mutual information of answer and weight under the posterior, in nats (N. Houlsby et al., "Bayesian active
learning for classification and preference learning", arXiv 1112.5745), with the pair's logit Gaussian: by 32-point quadrature.
`design`: sigmoid'(m)^2 x variance of the logit, the D-optimal rule of PReF (arXiv 2503.06358). `random`: to compare with.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.users import UserWeights

RULES = ("information", "design", "random")
ABLE = ("LoRe", "PReF", "VRF", "Given")
"""Methods whose models have scores of pairs that are linear in a user's weight."""

_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(32)


class Asking(Protocol):
    """What a model must offer; models of the methods `ABLE` do."""

    def pair_scores(self, features: PairFeatures) -> np.ndarray:
        """(n, K) of pairs, in logits per unit of weight."""

    def infer(self, context: PairFeatures, *, ids: np.ndarray | None = None) -> UserWeights:
        """Posterior of users."""


@dataclass(frozen=True)
class Asked:
    """Questions in the order they were asked.

    Attributes:
        ids: (U,) users.
        rows: (U, S) row number in the pool of each user's s-th question; -1 where a user was asked no more.
        worth: (U, S) what the rule thought of it beforehand (nats for "information"); 0 where there was none.
    """

    ids: np.ndarray
    rows: np.ndarray
    worth: np.ndarray

    def first(self, count: int) -> np.ndarray:
        """Row numbers of all users' first `count` questions."""
        rows = self.rows[:, :count]
        return rows[rows >= 0]


def information(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Mutual information, in nats, of a yes-or-no answer and a logit that is normal with (n,) means and variances."""
    logit = mean[:, None] + np.sqrt(np.maximum(variance, 0.0))[:, None] * _NODES
    share = _SHARES / _SHARES.sum()
    yes = 0.5 * (1.0 + np.tanh(0.5 * logit))
    return np.maximum(_entropy(yes @ share) - _entropy(yes) @ share, 0.0)


def design(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Squared slope of the sigmoid at the mean, times the variance."""
    slope = 0.25 / np.cosh(0.5 * np.clip(mean, -700, 700)) ** 2
    return slope**2 * variance


def ask(model: Asking, pool: PairFeatures, *, budget: int, rule: str = "information", stop: float = 0.0, seed: int = 0) -> Asked:
    """Simulate asking: every user is asked pairs out of their own, one at a time, all users side by side.

    The answers are the pool's. After each one the user's posterior is inferred anew.

    Args:
        model: fitted on other users.
        pool: the pairs that users can be asked; each user's own.
        budget: most questions per user, at least 1.
        rule: "information", "design" or "random".
        stop: a user whose best question is worth less than this is asked no more ("information": nats).
        seed: of "random", and of ties.

    Returns:
        what was asked. O(n K^2) a step for n pairs in the pool.

    Raises:
        TypeError: the model has no `pair_scores`; the message names the methods whose models do.
        ValueError: the rule is unknown or the budget is out of range.
    """
    if not hasattr(model, "pair_scores"):
        raise TypeError(f"model: expected one with pair_scores (of {', '.join(ABLE)}), got a {type(model).__name__}")
    if rule not in RULES:
        raise ValueError(f"rule: expected one of {', '.join(RULES)}, got {rule!r}")
    if budget < 1:
        raise ValueError(f"budget: expected at least 1, got {budget}")
    rng, users = np.random.default_rng(seed), len(pool.ids)
    scores = model.pair_scores(pool) if len(pool) else np.zeros((0, 1))
    rows, worth = np.full((users, budget), -1), np.zeros((users, budget))
    open_pairs, going = np.ones(len(pool), dtype=bool), np.ones(users, dtype=bool)
    for step in range(budget):
        chance = rng.random(len(pool))
        value = chance if rule == "random" else np.empty(0)
        if rule != "random":
            posterior = model.infer(pool.select(np.flatnonzero(~open_pairs)), ids=pool.ids)
            mean = np.einsum("nk,nk->n", scores, posterior.mean[pool.code])
            variance = np.einsum("nk,nkl,nl->n", scores, posterior.covariance[pool.code], scores, optimize=True)
            value = (information if rule == "information" else design)(mean, variance)
        there = np.flatnonzero(open_pairs & going[pool.code])
        if len(there) == 0:
            break
        order = there[np.lexsort((chance[there], -value[there], pool.code[there]))]
        best = order[np.flatnonzero(np.diff(pool.code[order], prepend=-1))]
        best = best[value[best] >= stop] if rule != "random" else best
        asked = pool.code[best]
        going[:] = False
        going[asked] = True
        rows[asked, step], worth[asked, step] = best, value[best]
        open_pairs[best] = False
    return Asked(pool.ids, rows, worth)


def _entropy(chance: np.ndarray) -> np.ndarray:
    """Of a yes-or-no answer, in nats."""
    chance = np.clip(chance, 1e-300, 1 - 1e-16)
    return -(chance * np.log(chance) + (1 - chance) * np.log1p(-chance))
