"""Which weight to train for next, and which of the trained policies the gap needs.

The steps of the lazy search (`palm.portfolio.lazy`, DESIGN's "lazy search") where each solve is a real training and values are
estimates: a corner weight that a policy was trained for already, in vain, must not be asked for again and again, and a policy that
was paid for need not be served.

Source of the search: D. Roijers, S. Whiteson, F. Oliehoek, "Computing convex coverage sets for multi-objective coordination
graphs", ADT 2013 (optimistic linear support).
"""

from collections.abc import Sequence

import numpy as np

from palm.portfolio.certify import Policies, folded, served_utility, worst_gap
from palm.portfolio.corners import corner_weights
from palm.portfolio.oracle import Oracle

NEAR = 0.02  # L1 distance within which a weight counts as one that was trained for


def hardest_weight(
    policies: Policies, oracle: Oracle, *, epsilon: float, delta: float = 0.0, spent: np.ndarray | None = None
) -> np.ndarray | None:
    """The weight with the largest gap among those that the target leaves open.

    Args:
        policies: what there is; `value`, `cost` and `reference` are used.
        oracle: gives its upper bound on OPT at the corner weights; nothing is solved.
        epsilon, delta: the target: (1 + epsilon) L(w) + delta >= OPT(w). Corners where it holds are no candidates.
        spent: (n, K) weights where training did not help; corners within `NEAR` of one in L1 distance are no candidates.

    Returns:
        (K,) the corner with the largest epsilon beside `delta`, ties to the lexicographically first; None if none is left.

    Raises:
        ValueError: a target is negative or not a number, or policies and oracle have different numbers of bases.
    """
    _check(policies, oracle, epsilon, delta)
    corners = corner_weights(folded(policies.value, policies.cost, policies.reference))
    optimum = oracle.upper_bound(corners)
    served = served_utility(corners, policies.value, policies.cost, policies.reference)
    open_corners = optimum - delta > (1 + epsilon) * served
    if spent is not None and len(spent):
        open_corners &= np.abs(corners[:, None, :] - spent[None, :, :]).sum(axis=2).min(axis=1) > NEAR
    if not open_corners.any():
        return None
    corners, optimum, served = corners[open_corners], optimum[open_corners], served[open_corners]
    return np.asarray(corners[worst_gap(optimum, served, corners @ policies.reference, given_delta=delta).at_epsilon])


def needed(policies: Policies, oracle: Oracle, *, delta: float = 0.0, among: Sequence[int]) -> list[int]:
    """Positions of the policies to serve: those of `among` whose absence leaves the worst gap as it is are left out.

    They are tried one after the other, the last first, each without those left out before it, so what remains has the gap of all.

    Args:
        policies: m of them.
        oracle: bounds OPT.
        delta: additive gap that is given; the gap is the epsilon that remains beside it.
        among: positions that may be left out; all others stay.

    Returns:
        positions in increasing order. All of them where the gap is infinite: then it cannot tell what a policy is good for.

    Raises:
        ValueError: a position is not one of 0 to m - 1, `delta` is negative, or the numbers of bases differ.
    """
    _check(policies, oracle, 0.0, delta)
    size = len(policies.value)
    kept = list(range(size))
    if any(not 0 <= place < size for place in among):
        raise ValueError(f"among: expected positions from 0 to {size - 1}, got {list(among)}")
    all_of_them = _worst_epsilon(policies, oracle, kept, delta)
    if not np.isfinite(all_of_them):
        return kept
    for place in sorted(among, reverse=True):
        others = [other for other in kept if other != place]
        if _worst_epsilon(policies, oracle, others, delta) <= all_of_them + 1e-12:
            kept = others
    return kept


def _worst_epsilon(policies: Policies, oracle: Oracle, places: list[int], delta: float) -> float:
    value, cost, reference = policies.value[places], policies.cost[places], policies.reference
    corners = corner_weights(folded(value, cost, reference))
    served = served_utility(corners, value, cost, reference)
    return worst_gap(oracle.upper_bound(corners), served, corners @ reference, given_delta=delta).epsilon


def _check(policies: Policies, oracle: Oracle, epsilon: float, delta: float) -> None:
    for name, given in (("epsilon", epsilon), ("delta", delta)):
        if not (np.isfinite(given) and given >= 0):
            raise ValueError(f"{name}: expected a number of at least 0, got {given}")
    if policies.value.shape[1] != oracle.bases:
        raise ValueError(f"oracle: expected {policies.value.shape[1]} bases as the policies have, got {oracle.bases}")
