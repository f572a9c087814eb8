"""Cross-fitting over prompts: choose weights on some prompts, certify on the others, so that no prompt judges its own choice.

Every fold of prompts is held out once. The portfolio is planned on the other folds; its weights are then valued on the held-out
prompts and certified there against these prompts' own optimum. Pooled over the folds, optimum and served utility are means
over all prompts, each from a plan that never saw it: L(w) = sum_f n_f / P L_f(w). It is piecewise linear and convex like each
L_f, its corners are those of the folds' cells laid over each other, and there the pooled gap is exact over the whole simplex.

What is estimated is how well *planning on (F - 1) / F of the prompts* does on new ones: an estimate for the plan on all prompts
that errs to the safe side. Within a fold a user is served the member that is best on the held-out prompts, as by a router that
knows the values there.

Source: V. Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal 21 (2018), for the folds.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from palm.portfolio.certify import Gap, certify, folded, worst_gap
from palm.portfolio.corners import corner_weights
from palm.portfolio.gibbs import GibbsOracle, check_tensor
from palm.portfolio.plan import plan_portfolio
from palm.portfolio.portfolio import Portfolio

_MOST_SUMS = 20_000  # sums of policies, one per fold, whose corners are looked at


@dataclass(frozen=True)
class CrossFit:
    """Gaps on prompts that the choice did not see.

    Attributes:
        folds: (P,) int; the fold in which each prompt was held out.
        portfolios: one per fold: planned on the other folds, with value, cost, reference and certificate of the held-out one.
        planned: (F,) multiplicative gap that each of these plans had on its own prompts.
        epsilon, delta, captured_gain: pooled over all prompts, each held out once; for every weight on the simplex.
        worst_weight: (K,) where the pooled epsilon is attained (the worst fold's, if not `exact`).
        exact: False if the folds' cells were too many to lay over each other: the numbers then are bounds from the folds'
            own certificates (the largest epsilon, the mean delta, the smallest captured gain).
    """

    folds: np.ndarray
    portfolios: tuple[Portfolio, ...]
    planned: np.ndarray
    epsilon: float
    delta: float
    captured_gain: float
    worst_weight: np.ndarray
    exact: bool


def cross_fit(
    reward_tensor: np.ndarray, kl: float = 0.1, *, mask: np.ndarray | None = None, folds: int = 5, seed: int = 0, **plan: Any
) -> CrossFit:
    """Plan on some folds of prompts and certify on the others.

    Args:
        reward_tensor: (P, N, K), as for `GibbsOracle`.
        kl: coefficient of the KL cost.
        mask: (P, N) bool, as for `GibbsOracle`.
        folds: F, 2 to P.
        seed: deals the prompts to folds of sizes that differ by one at most.
        plan: arguments of `plan_portfolio`, such as `epsilon=0.05` or `size=4`.

    Raises:
        ValueError: `folds` is out of range, or an argument of the oracle or the plan is.
    """
    rewards, present = check_tensor(reward_tensor, kl, mask)
    prompts = len(rewards)
    if isinstance(folds, bool) or not isinstance(folds, int | np.integer) or not 2 <= folds <= prompts:
        raise ValueError(f"folds: expected a whole number from 2 to the {prompts} prompts, got {folds!r}")
    fold = np.random.default_rng(seed).permutation(np.arange(prompts) % folds)
    held, oracles, planned = [], [], []
    for number in range(folds):
        inside = fold == number
        choice = plan_portfolio(GibbsOracle(rewards[~inside], kl, mask=present[~inside]), **plan)
        oracle = GibbsOracle(rewards[inside], kl, mask=present[inside])
        valued = choice.revalued(oracle)
        held.append(replace(valued, certificate=certify(valued, oracle, search_bound=False)))
        planned.append(np.inf if choice.certificate is None else choice.certificate.epsilon)
        oracles.append(oracle)
    share = np.bincount(fold) / prompts
    return CrossFit(fold, tuple(held), np.array(planned), *_pooled(held, oracles, share))


def _pooled(
    portfolios: list[Portfolio], oracles: list[GibbsOracle], share: np.ndarray
) -> tuple[float, float, float, np.ndarray, bool]:
    """Epsilon, delta, captured gain, the worst weight, and whether they are exact."""
    corners = _overlaid([folded(p.value, p.cost, p.reference) for p in portfolios], share)
    if corners is None:
        certificates = [p.certificate for p in portfolios if p.certificate is not None]
        worst = max(certificates, key=lambda certificate: certificate.epsilon)
        delta = float(share @ [certificate.delta for certificate in certificates])
        captured = min(certificate.captured_gain for certificate in certificates)
        return worst.epsilon, delta, captured, worst.worst_weight, False
    optimum = share @ [oracle.optimum(corners) for oracle in oracles]
    served = share @ [portfolio.served(corners) for portfolio in portfolios]
    base = share @ [corners @ portfolio.reference for portfolio in portfolios]
    gap: Gap = worst_gap(optimum, served, base)
    return gap.epsilon, gap.delta, gap.captured_gain, corners[gap.at_epsilon], True


def _overlaid(values: list[np.ndarray], share: np.ndarray) -> np.ndarray | None:
    """(c, K) corners of sum_f share_f max_j v_fj.w; None if too many sums of rows would have to be looked at."""
    total = np.zeros((1, values[0].shape[1]))
    corners = np.eye(values[0].shape[1])
    for rows, part in zip(values, share, strict=True):
        if len(total) * len(rows) > _MOST_SUMS:
            return None
        total = (total[:, None] + part * rows[None]).reshape(-1, rows.shape[1])
        corners = corner_weights(total)
        height = corners @ total.T
        total = total[(height >= height.max(axis=1, keepdims=True) - 1e-10).any(axis=0)]  # the others are best nowhere
    return corners
