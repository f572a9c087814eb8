"""Confidence bounds on a planned portfolio's gaps by a studentised bootstrap, for all its cells together.

The gap over all prompts lies between two functions of finitely many fixed means E Z_i (`palm.portfolio.cell_means`): it is at most
the largest mean from above, and at least the largest, over corners, of the least mean from below. With standard errors e_i let q be
the 1 - a quantile of max_i (E Z_i - mean Z_i) / e_i: then mean Z_i + q e_i bounds *all* the means at once. The distribution of that
largest studentised deviation is estimated by drawing prompts anew with replacement, the same for all i, each draw with its own
standard errors; so it knows that means are correlated and that samples are skewed.

A ratio s (epsilon; the missed share of the gain) is bounded by inversion, Z_i(s) = A_i - s B_i: at the true s some E Z_i(s) is at
least 0, so with probability 1 - a some bound at s is not below 0, and the largest such s bounds the true one. Nothing is tuned.
The error is of second order in P for each mean. With few prompts the bounds do fail: where one prompt in ten decides, 95 % ones
from 30 prompts held 84 % of the time, from 100 as often as said; see scripts/check_certificates.py --coverage.
`palm.portfolio.bernstein` has bounds that hold for every distribution.

Sources: P. Hall, "Theoretical comparison of bootstrap confidence intervals", Annals of Statistics 16 (1988), for studentising; V.
Chernozhukov, D. Chetverikov, K. Kato, "Gaussian approximations and multiplier bootstrap for maxima of sums of high-dimensional
random vectors", Annals of Statistics 41 (2013), for the largest of many means; V. Chernozhukov, S. Lee, A. Rosen, "Intersection
bounds: estimation and inference", Econometrica 81 (2013), for bounds that are a largest or least mean; E. Fieller, "Some problems
in interval estimation", JRSS B 16 (1954), for ratios.
"""

from collections.abc import Callable

import numpy as np

from palm.portfolio.cell_means import all_members, own_cells
from palm.portfolio.certify import Policies
from palm.portfolio.on_prompts import Bounds, OnPrompts

_FLAT = 1e-12  # standard errors below are of numbers that do not vary
_STEPS = 24
_MOST = 2.0**40


def studentised_bounds(
    planned: Policies,
    prompts: OnPrompts,
    *,
    tail: float,
    draws: int = 1000,
    seed: int = 0,
    epsilon: float = 0.0,
    delta: float = 0.0,
) -> tuple[Bounds, Bounds]:
    """Bounds over the distribution of prompts, each with `tail` beyond it.

    Args:
        planned: weights and cells, from other prompts than the certifying ones.
        prompts: the certifying ones with the same members; at least 2.
        tail: probability that the truth lies beyond, for each bound.
        draws: of the bootstrap, several times 1 / tail.
        seed: of the draws.
        epsilon, delta: given, as `certify` has them.

    Returns:
        the pessimistic ends (epsilon and delta from above, captured gain from below) and the optimistic ones. Captured gain is
        bounded as it is without the given delta. O(draws P n) for n means, n the corners times the members from below.
    """
    size = len(prompts.rewards)
    rng = np.random.default_rng(seed)
    counts = np.array([np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(draws)]) / size
    above, below = own_cells(planned, prompts), all_members(planned, prompts)
    members = len(planned.value) + 1

    def worst(of: np.ndarray, against: np.ndarray) -> float:
        line = _Line(of, against, counts, tail)
        return _last(lambda share: float(line.upper(share).max()))

    def best(of: np.ndarray, against: np.ndarray) -> float:
        line = _Line(of, against, counts, tail)
        return _first(lambda share: float(line.lower(share).reshape(-1, members).min(axis=1).max()))

    additive = _Line(above.regret - epsilon * above.utility, above.utility, counts, tail).upper(0.0).max()
    least = _Line(below.regret - epsilon * below.utility, below.utility, counts, tail).lower(0.0)
    pessimistic = Bounds(
        worst(above.regret - delta, above.utility),
        max(float(additive), 0.0),
        max(1.0 - worst(above.regret, above.gain), 0.0),
    )
    optimistic = Bounds(
        best(below.regret - delta, below.utility),
        max(float(least.reshape(-1, members).min(axis=1).max()), 0.0),
        min(1.0 - best(below.regret, below.gain), 1.0),
    )
    return pessimistic, optimistic


class _Line:
    """Simultaneous bounds on the means of A - s B, for any s."""

    def __init__(self, of: np.ndarray, against: np.ndarray, counts: np.ndarray, tail: float) -> None:
        """Keep moments.

        Args:
            of, against: A and B, (P, n).
            counts: (draws, P) how often each prompt was drawn, over P.
            tail: probability that some mean lies beyond its bound.
        """
        self._size, self._tail = len(of), tail
        middle = of.mean(axis=0), against.mean(axis=0)
        one, other = of - middle[0], against - middle[1]  # centred: second moments lose no digits
        self._mean = middle
        self._products = [np.mean(product, axis=0) for product in (one * one, one * other, other * other)]
        self._drawn = [counts @ one, counts @ other]
        self._drawn_products = [counts @ (one * one), counts @ (one * other), counts @ (other * other)]

    def upper(self, share: float) -> np.ndarray:
        """(n,) bounds from above."""
        mean, error, deviation = self._at(share)
        return mean + self._quantile(-deviation) * error

    def lower(self, share: float) -> np.ndarray:
        """(n,) bounds from below."""
        mean, error, deviation = self._at(share)
        return mean - self._quantile(deviation) * error

    def _quantile(self, deviation: np.ndarray) -> float:
        """The 1 - tail quantile of the largest studentised deviation, at least 0."""
        largest = np.sort(deviation.max(axis=1, initial=0.0))
        place = int(np.ceil((1 - self._tail) * (len(largest) + 1))) - 1  # of the draws and the prompts' own deviation together
        return float(largest[min(place, len(largest) - 1)])

    def _at(self, share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (n,), standard errors (n,), and the draws' studentised deviations (draws, n)."""
        mean = self._mean[0] - share * self._mean[1]
        error = self._error(self._products, np.zeros(len(mean)), share)
        shift = self._drawn[0] - share * self._drawn[1]
        drawn_error = self._error(self._drawn_products, shift, share)
        varies = error > _FLAT * (1 + share)
        # A draw that repeats a few prompts can have hardly any spread; no draw's is taken below a hundredth of the whole's.
        scale = np.maximum(drawn_error, 0.01 * error)
        return mean, error, np.where(varies, shift / np.where(varies, scale, 1.0), 0.0)

    def _error(self, products: list[np.ndarray], shift: np.ndarray, share: float) -> np.ndarray:
        square = products[0] - 2 * share * products[1] + share**2 * products[2] - shift**2
        return np.asarray(np.sqrt(np.maximum(square, 0.0) / (self._size - 1)))


def _last(height: Callable[[float], float]) -> float:
    """The largest s at least 0 at which a function that falls in the end is not below 0; infinite if it does not fall."""
    low, high = 0.0, 1.0
    while height(high) >= 0:
        low, high = high, 2 * high
        if high > _MOST:
            return np.inf
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if height(middle) >= 0 else (low, middle)
    return high if low > 0 or height(0.0) >= 0 else 0.0


def _first(height: Callable[[float], float]) -> float:
    """The smallest s at least 0 at which a function is not above 0."""
    if height(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while height(high) > 0:
        low, high = high, 2 * high
        if high > _MOST:
            return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if height(middle) > 0 else (low, middle)
    return low
