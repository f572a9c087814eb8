"""How few policies no portfolio can do without: weights of which no two can share a policy.

Weights w, w' are incompatible if for some t in (0, 1)
(1 + epsilon) OPT(t w + (1 - t) w') + delta < t OPT(w) + (1 - t) OPT(w'): a policy that is good enough for both would be better than
the optimum in between. Mutually incompatible weights each need a policy of their own, in any portfolio whatever.
"""

from collections.abc import Sequence
from math import comb

import numpy as np

from palm.portfolio.oracle import Oracle, trains
from palm.portfolio.rounding import NOTHING, size_of
from palm.simplex import uniform_grid

_SHARES = (1 / 2, 1 / 3, 2 / 3)  # t
_LOOKS = 4_200  # weights between others at which OPT is asked, for one t
_GRID = 500  # weights of a grid
_MARGIN = 1e-9  # of the largest OPT: rounding, of weights too, must not turn equality into a strict inequality


def incompatible_weights(
    oracle: Oracle, weights: np.ndarray, *, epsilon: float, delta: float, most: int = 96, looks: int | None = None
) -> np.ndarray:
    """Weights of which no two can share a policy. Weights that the reference serves well enough are left out: it is free.

    Args:
        oracle: bounds OPT from below at the weights and from above in between, so its slack makes fewer weights incompatible.
        weights: (n, K) candidates; at most `most` of them are looked at, in order.
        epsilon, delta: what is good enough.
        most: keeps the n^2 pairs in bounds.
        looks: weights in between at which OPT may be asked for one t, beyond which that t is left out; by default any number.
            Where solves are cheap, the policies that are optimal at the weights tell of most pairs that OPT need not be asked.

    Returns:
        (s, K) mutually incompatible weights; s is the largest found by a greedy search from every start, a lower bound
        on the number of policies in any portfolio that is good enough.
    """
    weights = np.unique(np.round(weights, 12), axis=0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    optimum = oracle.lower_bound(weights)
    margin = max(_MARGIN * float(np.abs(oracle.upper_bound(np.eye(oracle.bases))).max()), NOTHING * size_of(oracle))
    needy = np.flatnonzero((1 + epsilon) * (weights @ oracle.reference) + delta < optimum - margin)[:most]
    weights, optimum = weights[needy], optimum[needy]
    if len(weights) < 2:
        return weights
    solution = None if trains(oracle) else oracle.solve(weights)
    first, second = np.triu_indices(len(weights), k=1)
    conflict = np.zeros((len(weights), len(weights)), dtype=bool)
    for share in _SHARES:
        left = ~conflict[first, second]
        one, other = first[left], second[left]
        if len(one) == 0:
            break
        distinct, which = _distinct(share * weights[one] + (1 - share) * weights[other])
        target = share * optimum[one] + (1 - share) * optimum[other] - margin
        unknown = np.ones(len(one), dtype=bool)
        if solution is not None:  # what policies have that are optimal at the weights, OPT exceeds
            least = (distinct @ solution.value.T - solution.cost).max(axis=1)
            unknown = (1 + epsilon) * least[which] + delta < target
        asked, place = np.unique(which[unknown], return_inverse=True)
        if len(asked) == 0 or (looks is not None and len(asked) > looks):
            continue
        between = oracle.upper_bound(distinct[asked])[place]
        conflict[one[unknown], other[unknown]] = (1 + epsilon) * between + delta < target[unknown]
    conflict |= conflict.T
    return weights[_greedy_clique(conflict)]


def incompatible_on_grid(oracle: Oracle, *, epsilon: float, delta: float) -> np.ndarray:
    """The same among the weights of a uniform grid, of at most 500, whose n^2 pairs have only about 2^(K - 1) n middles.

    For K so large that even a grid of the vertices and the middles of edges has too many, there are the vertices alone.
    """
    bases, steps = oracle.bases, 1
    while comb(steps + bases, steps + 1) <= _GRID and comb(2 * steps + bases + 1, bases - 1) <= _LOOKS:
        steps += 1
        if bases == 1:
            break
    return incompatible_weights(oracle, uniform_grid(bases, steps), epsilon=epsilon, delta=delta, most=_GRID, looks=_LOOKS)


def _distinct(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of (M, K) weights that differ by more than rounding, and (M,) which of them each is.

    Bounds are as smooth as utilities, so a rounding of 1e-10 stays far below the margin.
    """
    distinct, which = np.unique(np.round(weights, 10), axis=0, return_inverse=True)
    return distinct / distinct.sum(axis=1, keepdims=True), which.ravel()


def _greedy_clique(adjacent: np.ndarray) -> Sequence[int]:
    """The largest clique among those grown greedily from every vertex, ties to the lowest index."""
    best: list[int] = []
    edges = adjacent.astype(np.float32)
    for start in range(len(adjacent)):
        clique, open_set = [start], edges[start].copy()
        while open_set.any():
            pick = int(np.where(open_set > 0, edges @ open_set, -1.0).argmax())
            clique.append(pick)
            open_set *= edges[pick]
        if len(clique) > len(best):
            best = clique
    return best
