"""How users' weights are spread over the simplex, whatever the form: the nonparametric maximum-likelihood mixing distribution.

Every user's weight is a draw from one unknown distribution G on the simplex. G is sought among distributions on finitely many
points, where its likelihood prod_u sum_j g_j L_u(w_j) is concave in g; expectation-maximisation climbs it. No posterior is
approximated by a normal distribution on the way, which is what makes a population's spread come out too small where users sit in
the simplex's corners: there a normal prior that is learned from its own posteriors pulls them inwards, and so believes itself.

Source: J. Kiefer, J. Wolfowitz, "Consistency of the maximum likelihood estimator in the presence of infinitely many incidental
parameters", 1956; N. Laird, "Nonparametric maximum likelihood estimation of a mixing distribution", 1978.
"""

import numpy as np

from palm.seeds import derive_seed

_POINTS = 300  # drawn over the simplex
_OWN = 200  # most users whose own weights are points, too
_PAIRS = 60_000  # most pairs whose likelihood is taken at every point
_FLOOR = -600.0  # least log-likelihood beside a user's best point: exp of less is 0


def population_moments(
    scores: np.ndarray, code: np.ndarray, weights: np.ndarray, *, rounds: int = 300, tolerance: float = 1e-6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of users' weights over the population.

    A distribution spread over the simplex counts as one user more: it decides where there are no users or no pairs to speak of,
    and hardly matters beside a hundred.

    Args:
        scores: (n, K) chosen minus rejected basis reward, in logits.
        code: (n,) number of each pair's user, 0 to U - 1.
        weights: (U, K) a guess of each user's weight; G may have mass there.
        rounds: most rounds of expectation-maximisation.
        tolerance: on the largest change of the mean and covariance in a round.
        seed: of the points.

    Returns:
        mean (K,) and covariance (K, K), whose rows sum to 0. The cost is O(min(n, 60,000) K 500) and O(500 U) a round.
    """
    bases = scores.shape[1]
    points, spread = _points(bases, weights, seed)
    likelihood = _likelihoods(scores, code, len(weights), points)
    mass = np.full(len(points), 1.0 / len(points))
    before = np.zeros(0)
    for _ in range(rounds):
        shared = likelihood * mass
        mass = (shared / shared.sum(axis=1, keepdims=True)).sum(axis=0) + spread
        mass /= len(likelihood) + 1
        mean = mass @ points
        away = points - mean
        covariance = away.T @ (mass[:, None] * away)
        now = np.append(mean, covariance.ravel())
        if len(before) and np.abs(now - before).max() < tolerance:
            break
        before = now
    return mean, covariance


def _points(bases: int, weights: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, K) points of the simplex, and (M,) masses of the distribution that is spread over it, with sum 1."""
    rng = np.random.default_rng(derive_seed(seed, "mixing"))
    drawn = rng.dirichlet(np.full(bases, 0.5), _POINTS)
    own = weights[np.unique(np.linspace(0, len(weights) - 1, _OWN).astype(np.intp))] if len(weights) else weights
    points = np.vstack([drawn, np.eye(bases), np.full((1, bases), 1.0 / bases), own])
    return points, np.append(np.full(_POINTS, 1.0 / _POINTS), np.zeros(len(points) - _POINTS))


def _likelihoods(scores: np.ndarray, code: np.ndarray, users: int, points: np.ndarray) -> np.ndarray:
    """(V, M) of V of the users, evenly spaced among those with pairs, in units of the user's best point."""
    counts = np.bincount(code, minlength=users)
    able = np.flatnonzero(counts)
    wanted = len(able) if len(code) <= _PAIRS else max(1, int(len(able) * _PAIRS / len(code)))
    taken = np.zeros(users, dtype=bool)
    taken[able[np.linspace(0, len(able) - 1, wanted).astype(np.intp)] if len(able) else able] = True
    rows = np.flatnonzero(taken[code])
    rows = rows[np.argsort(code[rows], kind="stable")]
    logs = np.empty((int(taken.sum()), len(points)))
    starts = np.concatenate([[0], np.cumsum(counts[taken])])
    step = max(1, 2_000_000 // len(points))
    begin = 0
    while begin < len(logs):  # whole users, about `step` pairs at a time
        end = max(begin + 1, int(np.searchsorted(starts, starts[begin] + step, side="right")) - 1)
        margins = scores[rows[starts[begin] : starts[end]]] @ points.T
        logs[begin:end] = -np.add.reduceat(np.logaddexp(0.0, -margins), starts[begin:end] - starts[begin], axis=0)
        begin = end
    return np.exp(np.maximum(logs - logs.max(axis=1, keepdims=True), _FLOOR))
