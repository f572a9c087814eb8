"""Gaps over the distribution of prompts, bounded for every distribution and every weight by empirical Bernstein bounds.

The bounds hold for every distribution and every P. By `palm.portfolio.cell_means` the gap is at most s if finitely many means over
i.i.d. prompts are at most 0: E Z <= 0, Z = OPT_x(c) - (1 + s) u_xj(c), for each pair of a policy j and a corner c of its own
planned cell.
For one Z of range b, with probability 1 - a (Maurer & Pontil, theorem 4),

    E Z <= mean Z + sqrt(2 var Z ln(2 / a) / P) + 7 b ln(2 / a) / (3 (P - 1)),

and a = (1 - level) / pairs makes all pairs hold together. A ratio s is bounded by inversion: at the true s (E Z = 0) the bound
is at least 0 with the same probability, and it is convex in s, so the largest s at which it is not below 0 bounds the true one.

Ranges, for rewards in [0, 1] and the optimal policies of weights w_j: the regret OPT_x(c) - u_xj(c) is kl log E exp(z / kl) - E z
for z = (c - w_j).phi under the policy, whose range is 2 t with t = sum max(c - w_j, 0). Among all distributions on an interval of
length r kl the largest such number is h = kl (log((e^r - 1) / r) - 1 + r / (e^r - 1)), with a two-point one; so the regret lies in
[0, h], about t^2 / (2 kl) for small t: near its own weight a policy's regret hardly varies. For the reference z = c.phi, r kl = 1.

Source: A. Maurer, M. Pontil, "Empirical Bernstein bounds and sample variance penalization", COLT 2009, theorem 4; inversion:
E. Fieller, "Some problems in interval estimation", JRSS B 16 (1954).
"""

from collections.abc import Callable

import numpy as np

from palm.portfolio.cell_means import own_cells
from palm.portfolio.certify import Policies
from palm.portfolio.on_prompts import Bounds, OnPrompts


def bernstein_bounds(
    planned: Policies, prompts: OnPrompts, *, level: float = 0.95, epsilon: float = 0.0, delta: float = 0.0
) -> tuple[Bounds, int]:
    """Bounds over the distribution of prompts, by the argument in this module's docstring.

    Args:
        planned: weights and cells, from other prompts than the certifying ones.
        prompts: the certifying ones with the optimal policies of the planned weights (`optimal_on`); rewards in [0, 1].
        level: probability with which each of the three holds.
        epsilon, delta: given, as `certify` has them.

    Returns:
        the bounds, and how many means they bound together. Captured gain is bounded as it is without the given delta.
    """
    pairs = own_cells(planned, prompts)
    weights, utility, count = pairs.weights, pairs.utility, len(pairs)
    shift = np.maximum(weights - np.vstack([planned.weights, np.zeros(weights.shape[1])])[pairs.member], 0.0).sum(axis=1)
    kl, free = prompts.kl, pairs.member == len(planned.weights)
    regret_range = largest_regret(np.where(free, 1.0, 2 * shift), kl)
    utility_range = 1.0 + np.where(free, 0.0, np.minimum(shift, regret_range))  # utility is from -min(t, regret's range) to 1
    log_term = float(np.log(2 * count / (1 - level)))
    regret = pairs.regret

    def upper(of: np.ndarray, against: np.ndarray, share: np.ndarray, ranges: np.ndarray) -> np.ndarray:
        return _upper(of - share * against, ranges, log_term)

    given = np.full(count, epsilon)
    additive = upper(regret, utility, given, regret_range + given * utility_range)
    lack = regret - delta
    multiplicative = _largest_share(lambda share: upper(lack, utility, share, regret_range + share * utility_range), count)
    gain_range = float(largest_regret(np.ones(1), kl)[0])
    missed = _largest_share(lambda share: upper(regret, pairs.gain, share, regret_range + share * gain_range), count)
    found = Bounds(
        max(float(multiplicative.max()), 0.0), max(float(additive.max()), 0.0), max(1.0 - max(float(missed.max()), 0.0), 0.0)
    )
    return found, count


def largest_regret(length: np.ndarray, kl: float) -> np.ndarray:
    """The most that kl log E exp(z / kl) - E z can be for z in an interval of each length, at least 0.

    log E exp(z / kl) with a given mean is largest with all mass on the ends, by convexity; the best mass on the upper end is
    1 / r - 1 / (e^r - 1), r = length / kl.
    """
    ratio = np.minimum(length / kl, 500.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        least = ratio / np.expm1(ratio)
        found = ratio + np.log(-np.expm1(-ratio)) - np.log(ratio) - 1 + least
    return kl * np.where(ratio < 1e-3, ratio**2 / 8, found) + np.maximum(length - 500.0 * kl, 0.0)


def _upper(samples: np.ndarray, ranges: np.ndarray, log_term: float) -> np.ndarray:
    """Maurer & Pontil's bound on the means of (P, a) samples of known ranges; log_term is ln(2 / probability to fail)."""
    size = len(samples)
    variance = samples.var(axis=0, ddof=1)
    return samples.mean(axis=0) + np.sqrt(2 * variance * log_term / size) + 7 * ranges * log_term / (3 * (size - 1))


def _largest_share(upper: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """(count,) the largest s at which a bound, convex in s, is at least 0: 0 if at none, infinite if it stays above."""
    low, high = np.zeros(count), np.ones(count)
    for _ in range(40):
        above = upper(high) >= 0
        if not above.any():
            break
        low, high = np.where(above, high, low), np.where(above, 2 * high, high)
    endless = upper(high) >= 0
    for _ in range(60):
        middle = (low + high) / 2
        above = upper(middle) >= 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(endless, np.inf, high)
