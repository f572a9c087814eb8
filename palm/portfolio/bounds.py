"""Upper bounds on OPT between solved weights: from convexity alone, and from how strongly OPT can bend.

*Chords.* OPT is convex, so it lies below every chord of solved weights (`corners.upper_bound`). That holds for every oracle.

*Bowls.* Let the utility be KL-regularised with rewards that lie, for prompt x and basis k, in an interval of length r_xk. Then
OPT(w) = kl E_x log E_ref exp(w.phi / kl) for every real w, on the simplex or not; its gradient at w is J, and its second derivative
along d is E_x Var(d.phi) / kl under the policies that are optimal in between. A number in an interval of length R has variance at
most R^2 / 4 (Popoviciu), and d.phi lies in one of length sum_k |d_k| r_xk. So with B = E_x r_x r_x' / (4 kl)

    OPT(w + d) <= OPT(w) + J.d + |d|' B |d| / 2,

a bowl above OPT that touches it at w (Hoeffding's lemma). Candidates that are two equally likely points attain it to leading order.

*With slack.* A policy that misses the optimum at its weight by at most eta has J and C with w.J - C <= OPT(w) for every real w, so
a step of length t along d shows that J.d misses the gradient's by at most eta / t + t |d|' B |d| / 2. At the best t,

    OPT(w + d) <= (w + d).J - C + (sqrt(eta) + sqrt(|d|' B |d| / 2))^2.

*Both.* OPT is convex and below every bowl, so it is below the convex hull of all points on all bowls: the chord bound over solved
weights *and* other weights, where a bowl stands in for OPT. Bases that hardly vary make bowls flat in their directions, and a solve
then speaks for its neighbours on faces of the simplex where nothing was solved.
"""

import numpy as np

from palm.portfolio.corners import hull_height, lower_hull
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool

_MOST_BASES = 5  # beyond, the hull of the added points costs more than it saves


def curvature_of(oracle: Oracle) -> np.ndarray | None:
    """(K, K) B above, of an oracle whose `most_curvature` tells it; None of others, which get chords alone."""
    curvature: np.ndarray | None = getattr(oracle, "most_curvature", None)
    return curvature


def optima_of(oracle: Oracle, pool: Pool) -> np.ndarray:
    """(n,) OPT at most, at the weights that were solved."""
    return np.minimum(pool.optimum + oracle.slack, oracle.upper_bound(pool.weights)) if oracle.slack else pool.optimum


def bound_between(oracle: Oracle, pool: Pool, weights: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """(M,) OPT at most, at (M, K) weights, from what the pool holds and nothing else.

    Args:
        oracle: its slack and curvature are used, if it knows the latter.
        pool: the simplex's vertices among its weights.
        weights: where the bound is wanted.
        optima: (n,) OPT at most, at the pool's weights; see `optima_of`.

    Returns:
        the height of one convex function that is at least OPT everywhere, with chords alone for K > 5.
    """
    bases = pool.weights.shape[1]
    chords = lower_hull(pool.weights, optima)
    curvature = curvature_of(oracle)
    if curvature is None or not 1 < bases <= _MOST_BASES:
        return hull_height(weights, chords)
    elsewhere = np.vstack([weights, _moved(pool.weights)])
    bowl = bowls(elsewhere, pool, curvature, oracle.slack)
    helps = bowl < hull_height(elsewhere, chords) - 1e-12 * np.ptp(optima)
    if helps.any():
        chords = lower_hull(np.vstack([pool.weights, elsewhere[helps]]), np.append(optima, bowl[helps]))
    return hull_height(weights, chords)


def bowls(weights: np.ndarray, pool: Pool, curvature: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """(M,) height of the lowest bowl at (M, K) weights, over a pool whose policies miss their optima by at most `slack`."""
    apart = np.abs(weights[:, None, :] - pool.weights)
    bend = ((apart @ curvature) * apart).sum(axis=2)
    tangent = weights @ pool.value.T - pool.cost  # OPT_i + J_i.(w - w_i), since OPT_i = w_i.J_i - C_i
    lowest: np.ndarray = (tangent + (np.sqrt(slack) + np.sqrt(0.5 * bend)) ** 2).min(axis=1)
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
