"""From an oracle to a certified portfolio, and to the trade-off between its size and its gap."""

from dataclasses import dataclass, replace

import numpy as np

from palm.portfolio.certify import certify
from palm.portfolio.cover import Advance
from palm.portfolio.grid import grid_of_size, palm_grid, random_weights
from palm.portfolio.lazy import lazy_search
from palm.portfolio.oracle import GibbsOracle, Oracle
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.portfolio import Portfolio
from palm.portfolio.search import cut_search, fixed_size_search
from palm.portfolio.select import Effort

METHODS = ("cut", "lazy", "grid", "uniform", "random")


def plan_portfolio(
    oracle: Oracle,
    *,
    epsilon: float = 0.02,
    delta: float = 0.0,
    size: int | None = None,
    method: str = "cut",
    select: str = "milp",
    weights: int = 200,
    seed: int = 0,
    names: tuple[str, ...] = (),
    advance: Advance | None = None,
) -> Portfolio:
    """Choose the policies to train, with a certificate over every weight on the simplex.

    Args:
        oracle: such as `GibbsOracle(reward_tensor, kl=0.1)`.
        epsilon: multiplicative gap wanted, at least 0.
        delta: additive gap allowed beside it, at least 0.
        size: at most so many policies, with the smallest epsilon they can have, instead of reaching `epsilon`.
        method: where to solve. "cut": cover, certify, cut (for cheap oracles; reaches the gap). "lazy": corner weights
            with the largest possible gap (for expensive oracles; reaches the gap). "grid": PALM's grid, which needs
            delta > 0. "uniform", "random": `weights` weights, and then the smallest gap that their pool can certify if
            it exceeds what was asked for.
        select: "milp" keeps the fewest policies of the pool, proven; "greedy" is faster.
        weights: number of weights for "uniform" and "random".
        seed: for "random".
        names: K names of the bases.
        advance: called with a line of text as the search goes on.

    Returns:
        a portfolio with m policies, its certificate, and in `solves` how many weights were solved. m is 0 if the
        reference alone is good enough.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(epsilon, delta, size, method, select, weights)
    pool = None if method == "cut" else _pool(oracle, epsilon, delta, method, weights, seed, advance)
    if size is not None:
        pool, chosen = fixed_size_search(oracle, size=size, pool=pool, grow=method == "cut", advance=advance)
    else:
        if pool is not None:  # other searches may stop short of what was asked for
            epsilon = max(epsilon, _own_epsilon(oracle, pool, delta) * (1 + 2e-6))
        pool, chosen = cut_search(oracle, epsilon=epsilon, delta=delta, exact=select == "milp", pool=pool, advance=advance)
    return _finish(oracle, pool, chosen, names, delta)


@dataclass(frozen=True)
class CurvePoint:
    """One size of the trade-off: the smallest gap that so many policies were found to have.

    Attributes:
        size: policies allowed.
        portfolio: the best of that size, certified.
    """

    size: int
    portfolio: Portfolio


def plan_curve(oracle: Oracle, *, sizes: range, effort: float = 1e5, advance: Advance | None = None) -> list[CurvePoint]:
    """Gap against size: what one more policy buys.

    Args:
        oracle: must be cheap.
        sizes: to try, in increasing order; the solved weights are shared, so later sizes cost less.
        effort: of integer programs, per size; see `palm.portfolio.select.Effort`.
        advance: called with a line of text as the search goes on.
    """
    points, pool = [], None
    for size in sizes:
        pool, chosen = fixed_size_search(oracle, size=size, pool=pool, effort=Effort(effort), advance=advance)
        points.append(CurvePoint(size, _finish(oracle, pool, chosen, (), 0.0)))
    return points


def _check(epsilon: float, delta: float, size: int | None, method: str, select: str, weights: int) -> None:
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if isinstance(value, bool) or not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected a number of at least 0, got {value}")
    if size is None and epsilon + delta <= 0:
        raise ValueError("epsilon, delta: expected one of them to be positive, got 0 and 0; no finite portfolio reaches that")
    if size is not None and (isinstance(size, bool) or size < 1):
        raise ValueError(f"size: expected at least 1, got {size}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if select not in ("milp", "greedy"):
        raise ValueError(f"select: expected 'milp' or 'greedy', got {select!r}")
    if weights < 1:
        raise ValueError(f"weights: expected at least 1, got {weights}")


def _pool(oracle: Oracle, epsilon: float, delta: float, method: str, weights: int, seed: int, advance: Advance | None) -> Pool:
    if method == "lazy":
        return lazy_search(oracle, epsilon=epsilon, delta=delta, advance=advance)[0]
    if method == "grid":
        return solve_all(oracle, palm_grid(oracle.bases, epsilon, delta))
    if method == "uniform":
        return solve_all(oracle, grid_of_size(oracle.bases, weights))
    return solve_all(oracle, random_weights(oracle.bases, weights, np.random.default_rng(seed)))


def _own_epsilon(oracle: Oracle, pool: Pool, delta: float) -> float:
    """The multiplicative gap of all of a pool's policies together."""
    whole = _finish(oracle, pool, np.arange(len(pool)), (), delta, search_bound=False).certificate
    if whole is None or not np.isfinite(whole.epsilon):
        raise ValueError("weights: the policies solved leave some weight with utility 0; solve more, or use method 'cut'")
    return whole.epsilon


def _finish(
    oracle: Oracle, pool: Pool, chosen: np.ndarray, names: tuple[str, ...], delta: float, *, search_bound: bool = True
) -> Portfolio:
    chosen = chosen[np.lexsort(pool.weights[chosen].T)[::-1]] if len(chosen) else chosen  # most of basis 1 first
    portfolio = Portfolio(
        weights=pool.weights[chosen],
        value=pool.value[chosen],
        cost=pool.cost[chosen],
        reference=oracle.reference,
        kl=oracle.kl if isinstance(oracle, GibbsOracle) else 0.0,
        ids=tuple(f"policy-{number}" for number in range(len(chosen))),
        solves=len(pool),
        bases=names,
    )
    return replace(portfolio, certificate=certify(portfolio, oracle, delta=delta, search_bound=search_bound))
