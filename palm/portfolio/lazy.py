"""Where to solve when a solve is expensive: as few weights as a certificate needs."""

import numpy as np

from palm.portfolio.cover import Advance
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.scheme import Scheme, proven


def lazy_search(
    oracle: Oracle,
    *,
    epsilon: float,
    delta: float,
    most: int = 1000,
    ahead: bool = True,
    solved: np.ndarray | None = None,
    advance: Advance | None = None,
) -> tuple[Pool, float]:
    """Solve at one weight after another until what was solved proves the tolerance, for oracles where a solve is a training.

    OPT at a corner is bounded by `bounds.bound_between`; optimistic linear support solves where that leaves the largest gap.
    It halves what it splits, so cells end up smaller than they need be. This search looks ahead: a surrogate of OPT says
    which few further weights would complete the certificate, and these are solved; they are chosen anew when a solve is a
    surprise. Where the surrogate is often wrong (OPT has kinks), the largest gap decides.

    Args:
        oracle: solved at the K vertices first.
        epsilon, delta: stop when (1 + epsilon) L(w) + delta >= the bound on OPT at every corner w.
        most: solves to spend, at least K.
        ahead: False always solves at the largest gap: optimistic linear support as published, with the better bound.
        solved: (n, K) weights that were solved already, whose policies join those of the vertices.
        advance: called with a line of text after every solve.

    Returns:
        the pool, and the epsilon (given delta) that its bound proves; above `epsilon` if `most` ran out.

    Source: D. Roijers, S. Whiteson, F. Oliehoek, "Linear support for multi-objective coordination graphs", AAMAS 2014
    (optimistic linear support), with the KL cost folded into the value.
    """
    pool, scheme = solve_all(oracle, np.eye(oracle.bases)), Scheme(oracle, epsilon, delta)
    for weight in np.zeros((0, oracle.bases)) if solved is None else solved:
        pool = pool if _solved(pool, weight) else pool.joined(oracle, weight[None, :])
    while True:
        gap, worst = proven(oracle, pool, delta)
        if advance is not None:
            advance(f"{len(pool)} solves, epsilon at most {gap:.4f}")
        if gap <= epsilon or len(pool) >= most:
            return pool, gap
        weight = scheme.following(pool) if ahead else None
        if weight is None or _solved(pool, weight):
            weight = worst
            if _solved(pool, weight):  # rounding, or the oracle's slack, keeps the bound apart
                return pool, gap
        pool = pool.joined(oracle, weight[None, :])


def _solved(pool: Pool, weight: np.ndarray) -> bool:
    return bool(np.abs(pool.weights - weight).max(axis=1).min() < 1e-9)
