"""Upper bounds on OPT between solved weights: from convexity alone, and from how strongly OPT can bend.

*Chords.* OPT is convex, so it lies below every chord of solved weights (`corners.upper_bound`). That holds for every oracle.

*Bowls.* Let the utility be KL-regularised with rewards that lie, for prompt x and basis k, in an interval of length r_xk. Then
OPT(w) = kl E_x log E_ref exp(w.phi / kl) for every real w, on the simplex or not; its gradient at w is J, and its second derivative
along d is E_x Var(d.phi) / kl under the policies that are optimal in between. A number in an interval of length R has variance at
most R^2 / 4 (Popoviciu), and d.phi lies in one of length sum_k |d_k| r_xk. So with B = E_x r_x r_x' / (4 kl)

    OPT(w + d) <= OPT(w) + J.d + |d|' B |d| / 2,

a bowl above OPT that touches it at w (Hoeffding's lemma). Candidates that are two equally likely points attain it to leading order.

*Both.* OPT is convex and below every bowl, so it is below the convex hull of all points on all bowls: the chord bound over solved
weights *and* other weights, where a bowl stands in for OPT. Bases that hardly vary make bowls flat in their directions, and a solve
then speaks for its neighbours on faces of the simplex where nothing was solved.
"""

from typing import Protocol, runtime_checkable

import numpy as np

from palm.portfolio.corners import hull_height, lower_hull
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool

_MOST_BASES = 5  # beyond, the hull of the added points costs more than it saves


@runtime_checkable
class SmoothOracle(Protocol):
    """An oracle that knows how strongly OPT can bend."""

    @property
    def most_curvature(self) -> np.ndarray:
        """(K, K) entries of at least 0: OPT(w + d) <= OPT(w) + J.d + |d|' most_curvature |d| / 2."""


def bound_between(oracle: Oracle, pool: Pool, weights: np.ndarray) -> np.ndarray:
    """(M,) OPT at most, at (M, K) weights, from what the pool holds and nothing else.

    Args:
        oracle: its slack is added; if it is a `SmoothOracle`, its bowls are used beside chords.
        pool: the simplex's vertices among its weights.
        weights: where the bound is wanted.
    """
    optima = pool.optimum + oracle.slack
    bases = pool.weights.shape[1]
    chords = lower_hull(pool.weights, optima)
    if not isinstance(oracle, SmoothOracle) or not 1 < bases <= _MOST_BASES:
        return hull_height(weights, chords)
    elsewhere = np.vstack([weights, _moved(pool.weights)])
    bowl = bowls(elsewhere, pool, oracle.most_curvature) + oracle.slack
    helps = bowl < hull_height(elsewhere, chords) - 1e-12
    if helps.any():
        chords = lower_hull(np.vstack([pool.weights, elsewhere[helps]]), np.append(optima, bowl[helps]))
    return hull_height(weights, chords)


def bowls(weights: np.ndarray, pool: Pool, curvature: np.ndarray) -> np.ndarray:
    """(M,) height of the lowest bowl at (M, K) weights."""
    apart = np.abs(weights[:, None, :] - pool.weights)
    bend = ((apart @ curvature) * apart).sum(axis=2)
    tangent = weights @ pool.value.T - pool.cost  # OPT_i + J_i.(w - w_i), since OPT_i = w_i.J_i - C_i
    lowest: np.ndarray = (tangent + 0.5 * bend).min(axis=1)
    return lowest


def _moved(weights: np.ndarray) -> np.ndarray:
    """(n K (K - 1), K) each weight with one basis' share given to another: on other faces of the simplex."""
    bases = weights.shape[1]
    moves = []
    for source in range(bases):
        for target in range(bases):
            if source != target:
                moved = weights.copy()
                moved[:, target] += moved[:, source]
                moved[:, source] = 0.0
                moves.append(moved)
    return np.vstack(moves)
