"""The smallest gap that a number of policies can have, where oracles are cheap."""

import numpy as np

from palm.portfolio.certify import folded
from palm.portfolio.corners import corner_weights
from palm.portfolio.cover import Advance
from palm.portfolio.grid import grid_of_size
from palm.portfolio.groups import weights_between
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, Trials, served_by, solve_all
from palm.portfolio.select import Effort, cover_within
from palm.portfolio.swap import costs_with_one_more, swapped

_EFFORT = 1e5
_SAME = 1e-9  # epsilons, or weights, that differ by no more are the same
_CUTS = 64  # most corner weights added in one round


def fixed_size_search(
    oracle: Oracle,
    *,
    size: int,
    delta: float = 0.0,
    pool: Pool | None = None,
    grow: bool = True,
    tolerance: float = 5e-3,
    rounds: int = 40,
    effort: Effort | None = None,
    advance: Advance | None = None,
) -> tuple[Pool, np.ndarray]:
    """The smallest multiplicative gap that `size` policies can have.

    Finds the least epsilon at which finitely many weights can be covered with `size` policies (swapping, then bisection
    over the finitely many ratios by integer programs), certifies that cover at its corners, adds the corners that exceed
    epsilon, and repeats until none does by more than `tolerance` of it.

    Args:
        oracle: must be cheap if the pool is to grow.
        size: policies to keep, at least 1.
        delta: additive gap allowed beside it.
        pool: policies to choose from; by default a uniform grid of about 300.
        grow: also solve at the corners that are added, and between bases if there are more of them than policies.
        tolerance: relative; how much better another choice from the final pool could be at most.
        rounds: after as many, the best portfolio so far is returned.
        effort: of all integer programs together; after that, swapping alone chooses.
        advance: called with a line of text after every round.

    Returns:
        the pool and the positions of the chosen policies in it.
    """
    pool = pool if pool is not None else solve_all(oracle, grid_of_size(oracle.bases, 300))
    tests = Trials(pool.weights, pool.optimum)
    best: tuple[float, float, np.ndarray] | None = None  # where no number of so many policies is finite, the additive gap decides
    effort = effort or Effort(_EFFORT)
    if grow and len(between := weights_between(oracle, size)):
        pool = pool.joined(oracle, between)
    for _ in range(rounds):
        bound, reached, chosen = _least_epsilon(pool, tests, oracle.reference, size, delta, effort)
        corners, optimum, served = _at_corners(oracle, pool, chosen)
        ratio = _epsilon_left(optimum - delta, served)
        found = float(ratio.max()), float((optimum - served).max())
        if best is None or found < best[:2]:
            best = *found, chosen
        if advance is not None:
            advance(f"size {size}: epsilon {best[0]:.4f} certified, at least {bound:.4f} for this pool, {len(pool)} solves")
        if best[0] <= bound * (1 + tolerance) + _SAME:
            break
        worst = np.argsort(-ratio, kind="stable")[:_CUTS]
        worst = worst[ratio[worst] > reached * (1 + tolerance / 2)]
        distance = np.abs(corners[worst][:, None, :] - tests.weights[None, :, :]).max(axis=2).min(axis=1)
        worst = worst[distance > _SAME]
        if len(worst) == 0:
            break
        tests = tests.joined(corners[worst], optimum[worst])
        pool = pool.joined(oracle, corners[worst]) if grow else pool
    if best is None or not np.isfinite(best[0]):  # then the gap cannot tell which policies it needs
        return pool, np.zeros(0, dtype=np.intp) if best is None else best[2]
    return pool, _needed(oracle, pool, best[2], best[0], delta)


def gap_of(oracle: Oracle, pool: Pool, chosen: np.ndarray, delta: float) -> float:
    """The multiplicative gap that the chosen policies leave beside `delta`, at its worst weight."""
    _, optimum, served = _at_corners(oracle, pool, chosen)
    return float(_epsilon_left(optimum - delta, served).max())


def _needed(oracle: Oracle, pool: Pool, chosen: np.ndarray, epsilon: float, delta: float) -> np.ndarray:
    """The chosen policies without those that the gap does not need: bases that agree, say, need no second policy."""
    for policy in chosen[::-1]:
        others = chosen[chosen != policy]
        if gap_of(oracle, pool, others, delta) <= epsilon + _SAME:
            chosen = others
    return chosen


def _at_corners(oracle: Oracle, pool: Pool, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corner weights of the chosen policies' cells, with OPT and L_S there."""
    corners = corner_weights(folded(pool.value[chosen], pool.cost[chosen], oracle.reference))
    return corners, oracle.upper_bound(corners), served_by(pool, chosen, corners, oracle.reference)


def _epsilon_left(wanted: np.ndarray, utility: np.ndarray) -> np.ndarray:
    """epsilon that a utility leaves of OPT less delta: wanted / utility - 1, at least 0, infinite where nothing is had of it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(wanted <= utility, 0.0, np.where(utility > 0, wanted / utility - 1.0, np.inf))


def _least_epsilon(
    pool: Pool, tests: Trials, reference: np.ndarray, size: int, delta: float, effort: Effort
) -> tuple[float, float, np.ndarray]:
    """A lower bound on the epsilon that `size` policies of the pool leave on the tests, what is left by those found, and those.

    Swapping finds good policies; integer programs then lower the epsilon, or prove that it cannot be, until the effort is spent.
    """
    ratio = _epsilon_left(tests.optimum[:, None] - delta, tests.weights @ pool.value.T - pool.cost)
    free = _epsilon_left(tests.optimum - delta, tests.weights @ reference)
    best = swap_search(ratio, free, size)
    reached = float(np.minimum(ratio[:, best].min(axis=1, initial=np.inf), free).max())
    levels = np.unique(np.append(ratio[ratio < reached], free[free < reached]))
    low, high = 0, len(levels)  # levels[high:] are known to be enough, levels[:low] not to be
    while low < high and not effort.spent:
        middle = (low + 3 * high) // 4  # swapping is usually within a few percent, so look near the top
        needs = free > levels[middle] + 1e-12
        covers = ratio[needs] <= levels[middle] + 1e-12
        found: np.ndarray | None = np.zeros(0, dtype=np.intp)
        if needs.any():
            found = cover_within(covers, size, effort=effort) if covers.any(axis=1).all() else None
            if found is None and effort.spent:
                break  # giving up is no proof
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle
    reached = float(np.minimum(ratio[:, best].min(axis=1, initial=np.inf), free).max())
    return (float(levels[low]) if low < len(levels) else reached), reached, best


def swap_search(ratio: np.ndarray, free: np.ndarray, size: int) -> np.ndarray:
    """Few columns with a small worst ratio: farthest-first, then the best single swap until none helps.

    Args:
        ratio: (t, n) at least 0; what column j leaves at row i.
        free: (t,) what is left at row i without any column.
        size: columns to choose, at least 1.

    Returns:
        (s,) column numbers in increasing order, s at most `size`. O(t n size) a swap.
    """
    cap = 2 * max(float(free[np.isfinite(free)].max(initial=0.0)), float(ratio.min(axis=1).max(initial=0.0)), 1e-9)
    cost = (np.minimum(ratio, cap) / cap) ** 12  # a power, not the worst alone, tells which of two bad choices is nearer
    base = (np.minimum(free, cap) / cap) ** 12
    chosen: list[int] = []
    for _ in range(min(size, ratio.shape[1])):
        chosen.append(int(costs_with_one_more(cost, base, chosen).argmin()))
    return swapped(cost, base, chosen, least=1e-9)
