"""The trade-off between the number of policies and the gap: what was found, and what no portfolio of that size can beat."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from palm.portfolio.callback import check_cheap
from palm.portfolio.cover import Advance
from palm.portfolio.fixed_size import fixed_size_search
from palm.portfolio.front import hypervolume, pareto_front
from palm.portfolio.least_gap import LeastGap, least_gaps
from palm.portfolio.nearby import nearby_search
from palm.portfolio.oracle import Oracle
from palm.portfolio.plan import finish
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.portfolio import Portfolio
from palm.portfolio.select import Effort


@dataclass(frozen=True)
class CurvePoint:
    """One size of the trade-off: the smallest gap that so many policies were found to have.

    Attributes:
        size: policies allowed; the reference is served besides and not counted.
        portfolio: the best found of at most that size, certified. Without policies for size 0.
        least: a proven bound on the gap of every portfolio of that size, with the weights that prove it.
        hypervolume: of the values J of the portfolio and the reference, above 0: see `palm.portfolio.front`.
        front: ids of the members, "reference" among them, whose J no other member's exceeds in every basis.
    """

    size: int
    portfolio: Portfolio
    least: LeastGap
    hypervolume: float
    front: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """The portfolio's multiplicative gap over the whole simplex."""
        return self.portfolio.certified.epsilon

    @property
    def epsilon_at_least(self) -> float:
        """No portfolio of this size has a smaller gap."""
        return self.least.epsilon


def plan_curve(
    oracle: Oracle, *, sizes: Sequence[int], effort: float = 1e5, bounds: bool = True, advance: Advance | None = None
) -> list[CurvePoint]:
    """Gap against size: what one more policy buys, and what it might buy at most.

    Args:
        oracle: must be cheap.
        sizes: to try, in increasing order, such as range(0, 7); 0 is the reference alone. The solved weights are shared, so later
            sizes cost less.
        effort: of integer programs, per size; see `palm.portfolio.select.Effort`.
        bounds: False leaves the lower bounds at 0 and saves their time.
        advance: called with a line of text as the search goes on.

    Returns:
        a point per size; gaps never rise with the size.

    Raises:
        ValueError: a size is not a whole number or is negative, or they do not increase, or the oracle trains.
    """
    check_cheap(oracle, "plan_curve")
    given, sizes = sizes, list(sizes) if isinstance(sizes, Iterable) else []
    whole = isinstance(given, Iterable) and all(
        isinstance(size, Integral) and not isinstance(size, bool) and size >= 0 for size in sizes
    )
    if not whole or any(after <= before for before, after in itertools.pairwise(sizes)):
        raise ValueError(f"sizes: expected whole numbers of at least 0 in increasing order, got {given!r}")
    portfolios: list[Portfolio] = []
    pool: Pool | None = None
    for size in sizes:
        if size == 0:
            found = finish(oracle, solve_all(oracle, np.eye(oracle.bases)), np.zeros(0, dtype=np.intp), (), 0.0)
        else:
            pool, chosen = fixed_size_search(oracle, size=size, pool=pool, effort=Effort(effort), advance=advance)
            found = finish(oracle, *nearby_search(oracle, pool, chosen, size=size, advance=advance), (), 0.0)
        if portfolios and portfolios[-1].certified.epsilon <= found.certified.epsilon:
            found = portfolios[-1]  # fewer policies did as well
        portfolios.append(found)
    least = _bounds(oracle, portfolios, sizes) if bounds else [LeastGap(size, 0.0, np.zeros((0, oracle.bases))) for size in sizes]
    return [CurvePoint(*each) for each in zip(sizes, portfolios, least, *_offered(portfolios), strict=True)]


def _checked(sizes: Sequence[int]) -> list[int]:
    given = list(sizes) if isinstance(sizes, Iterable) else []
    whole = isinstance(sizes, Iterable) and all(isinstance(size, Integral) and not isinstance(size, bool) for size in given)
    if not whole or any(after <= before for before, after in itertools.pairwise([-1, *given])):
        raise ValueError(f"sizes: expected whole numbers of at least 0 in increasing order, got {sizes!r}")
    return given


def _bounds(oracle: Oracle, portfolios: list[Portfolio], sizes: list[int]) -> list[LeastGap]:
    """Bounds for some sizes, looked for where the portfolios found are worst and where they were made for."""
    if not sizes:
        return []
    worst = [portfolio.certified.worst_weight for portfolio in portfolios]
    among = np.vstack([*worst, *(portfolio.weights for portfolio in portfolios)])
    every = least_gaps(oracle, max(sizes), among=among)
    return [every[size] for size in sizes]


def _offered(portfolios: list[Portfolio]) -> tuple[list[float], list[tuple[str, ...]]]:
    """Hypervolume and front of each portfolio's values, the reference's among them."""
    volumes, fronts = [], []
    for portfolio in portfolios:
        value, ids = np.vstack([portfolio.value, portfolio.reference]), [*portfolio.ids, "reference"]
        volumes.append(hypervolume(value))
        fronts.append(tuple(ids[position] for position in pareto_front(value)))
    return volumes, fronts
