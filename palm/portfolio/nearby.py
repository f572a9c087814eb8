"""Search again near what was found: a pool that is fine where policies are, and coarse elsewhere.

A uniform grid of 300 weights is coarse from K = 4 on, and moving weights a little (`palm.portfolio.refine`) ends where no small
move helps. Choosing anew among the policies found, their neighbours and a few others everywhere finds other patterns.
"""

import numpy as np

from palm.portfolio.cover import Advance
from palm.portfolio.fixed_size import fixed_size_search, gap_of
from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.select import Effort

_STEPS = (0.05, 0.05, 0.025, 0.025, 0.0125)  # how far neighbours are; twice as far, too
_EFFORT = 2e4  # of integer programs, a step: with more, their choices are seldom better
_GRID = 60
_MOST = 1000  # neighbours
_MOST_POLICIES = 10  # for more, a pool takes minutes, and a uniform grid is as fine as they are close


def nearby_search(
    oracle: Oracle, pool: Pool, chosen: np.ndarray, *, size: int, delta: float = 0.0, advance: Advance | None = None
) -> tuple[Pool, np.ndarray]:
    """A choice of at most `size` policies with a smaller multiplicative gap beside `delta`, from pools around the last choice.

    Args:
        oracle: must be cheap: each of the five pools is solved.
        pool: from which was chosen.
        chosen: positions of the chosen policies.
        size: policies to keep.
        delta: additive gap allowed.
        advance: called with a line of text after every round.

    Returns:
        the pool with all that was solved added, and positions in it; those given where nothing better is found, where there is
        nothing to gain (one basis, no policies, a gap of 0 or without bound), or where that takes too long (more than ten
        policies, or 1,000 neighbours of them).
    """
    around = 2 * len(chosen) * oracle.bases * (oracle.bases - 1)  # neighbours: none of no policy, or where there is one basis
    if not 0 < around <= _MOST or len(chosen) > _MOST_POLICIES:
        return pool, chosen
    gap = gap_of(oracle, pool, chosen, delta)
    if not 0 < gap < np.inf:
        return pool, chosen
    for step in _STEPS:
        weights = np.vstack([grid_of_size(oracle.bases, _GRID), neighbours(pool.weights[chosen], step)])
        near, few = fixed_size_search(
            oracle, size=size, delta=delta, pool=solve_all(oracle, weights), effort=Effort(_EFFORT), advance=advance
        )
        if (found := gap_of(oracle, near, few, delta)) < gap:
            gap, chosen = found, len(pool) + few
        pool = pool.and_of(near)
    return pool, chosen


def neighbours(weights: np.ndarray, step: float) -> np.ndarray:
    """(M, K) weights and what comes of them if `step` or twice that is taken from one basis and given to another; without repeats.

    Where a basis has less than that, all it has is taken.
    """
    bases = weights.shape[1]
    exchanges = np.array([np.eye(bases)[to] - np.eye(bases)[of] for to in range(bases) for of in range(bases) if to != of])
    taken = np.minimum(np.array([step, 2 * step])[:, None, None], (weights @ np.maximum(-exchanges.T, 0))[None])  # (2, M, pairs)
    moved = weights[None, :, None, :] + taken[..., None] * exchanges
    every = np.vstack([weights, np.maximum(moved, 0.0).reshape(-1, bases)])
    return every[np.sort(np.unique(np.round(every, 11), axis=0, return_index=True)[1])]
