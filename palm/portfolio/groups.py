"""Policies for groups of bases: what few policies for many bases have to be.

With fewer policies than bases one policy must serve several vertices of the simplex, and its weight lies between all of them. No
affordable uniform grid holds such weights: with K = 12 bases a grid of 300 has vertices and the middles of edges only.
"""

import numpy as np

from palm.portfolio.oracle import Oracle

_MOST_BASES = 24  # K^3 / 6 weights are solved


def weights_between(oracle: Oracle, size: int) -> np.ndarray:
    """Middles of groups of bases, from merging the bases into `size` groups, always the two that then serve their bases best.

    Every pair that is considered counts, so that a search has other groupings to choose from.

    Args:
        oracle: must be cheap: about K^3 / 6 weights are solved.
        size: groups to end with, at least 1.

    Returns:
        (n, K) distinct weights, each with equal shares of two or more bases; none if there are no more bases than groups.
    """
    bases = oracle.bases
    if not size < bases <= _MOST_BASES:
        return np.zeros((0, bases))
    best_at_vertex = oracle.optimum(np.eye(bases))
    groups = [frozenset([basis]) for basis in range(bases)]
    left: dict[frozenset[int], float] = {}  # what one policy leaves at the worst of a group's vertices
    while len(groups) > size:
        pairs = [(one, other) for number, one in enumerate(groups) for other in groups[:number]]
        new = [union for one, other in pairs if (union := one | other) not in left]
        if new:
            solution = oracle.solve(_middles(new, bases))
            utility = solution.value - solution.cost[:, None]  # at the vertices
            lack = best_at_vertex / np.maximum(utility, 1e-300) - 1
            left |= {union: float(max(lack[row, list(union)])) for row, union in enumerate(new)}
        one, other = min(pairs, key=lambda pair: left[pair[0] | pair[1]])
        groups = [group for group in groups if group not in (one, other)] + [one | other]
    return _middles(list(left), bases)


def _middles(groups: list[frozenset[int]], bases: int) -> np.ndarray:
    weights = np.zeros((len(groups), bases))
    for row, group in enumerate(groups):
        weights[row, list(group)] = 1 / len(group)
    return weights
