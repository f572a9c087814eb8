"""Looking ahead: which few further weights would complete a certificate, if a surrogate of OPT were right."""

from math import comb

import numpy as np
from scipy.linalg import LinAlgError

from palm.portfolio.bounds import bound_between, curvature_of, optima_of
from palm.portfolio.certify import folded, worst_gap
from palm.portfolio.corners import corner_weights
from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, served_by
from palm.portfolio.select import greedy_cover
from palm.portfolio.surrogate import Surrogate
from palm.simplex import uniform_grid

_SHARES = (0.6, 0.5)  # of the tolerance that a policy may lack half-way to the next, as a scheme begins; chords lack as much again
_MARGIN = 0.995  # of the tolerance that a scheme must reach, for what the surrogate gets wrong
_MOVES = (25, 8)  # of all weights of a scheme: at first, and after an addition
_STEP = 0.3
_POLISHED = 24  # weights of a scheme that are moved for every weight that may be spared, and once more at the end
_NET = 250  # weights that a scheme begins on
_MOST_BASES = 5  # beyond, so few weights are no net
_MOST_SOLVES = 160  # beyond, looking ahead costs more than the oracles it is for
_SURPRISE = 0.05  # of the tolerance: an error of the surrogate that calls for a new scheme
_PATIENCE = 6  # surprises in a row after which the surrogate is given up


def proven(oracle: Oracle, pool: Pool, delta: float, optima: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """The epsilon (given delta) that a pool's policies are proven to have by the pool alone, and the corner that attains it.

    `optima` (n,) are bounds on OPT at the pool's weights, by default the oracle's.
    """
    optima = optima_of(oracle, pool) if optima is None else optima
    corners = corner_weights(folded(pool.value, pool.cost, oracle.reference))
    served = served_by(pool, np.arange(len(pool)), corners, oracle.reference)
    gap = worst_gap(bound_between(oracle, pool, corners, optima), served, corners @ oracle.reference, given_delta=delta)
    return gap.epsilon, corners[gap.at_epsilon]


class Scheme:
    """Weights that are to be solved, as far as the surrogate can tell."""

    def __init__(self, oracle: Oracle, epsilon: float, delta: float) -> None:
        """An empty scheme for a tolerance; the oracle is never solved here."""
        self._oracle, self._epsilon, self._delta = oracle, epsilon, delta
        self._open: list[tuple[np.ndarray, float]] = []  # weights and the OPT expected there
        self._expected: float | None = None
        self._surprises = 0
        self._stale = False  # a scheme that a surprise has spoilt is only where the next begins

    def following(self, pool: Pool) -> np.ndarray | None:
        """The next weight to solve, or None where the largest gap is to decide."""
        bases = pool.weights.shape[1]
        if not 1 < bases <= _MOST_BASES or len(pool) > _MOST_SOLVES or self._epsilon + self._delta <= 0:
            return None
        if self._expected is not None:
            allowed = _SURPRISE * (self._epsilon * abs(float(pool.optimum[-1])) + self._delta)
            surprised = abs(self._expected - float(pool.optimum[-1])) > allowed
            self._surprises = self._surprises + 1 if surprised else 0
            self._stale = self._stale or surprised
        self._expected = None
        if self._surprises >= _PATIENCE:
            return None
        if self._stale or not self._open:
            try:
                self._open, self._stale = self._made(pool), False
            except LinAlgError:
                return None
        if not self._open:
            return None
        weight, self._expected = self._open.pop(0)
        return weight

    def _made(self, pool: Pool) -> list[tuple[np.ndarray, float]]:
        """The fewest further weights found that would prove the tolerance, those that lack most first.

        Of schemes of equal size the one with the smallest gap is best: it bears the largest error of the surrogate.
        """
        surrogate = Surrogate(pool)
        starts = [self._covered(surrogate, pool, share) for share in _SHARES]
        if self._open:
            starts.append(np.array([weight for weight, _ in self._open]))
        best: tuple[int, float, np.ndarray] = (10**9, np.inf, np.zeros((0, pool.weights.shape[1])))
        for start in starts:
            found = self._completed(surrogate, pool, start)
            best = min(best, (len(found), self._relaxed(surrogate, pool, found, 0)[0], found), key=lambda scheme: scheme[:2])
        best = min(best, self._gridded(surrogate, pool, best[0]), key=lambda scheme: scheme[:2])
        weights = best[2]
        if len(weights) <= _POLISHED:
            weights = self._relaxed(surrogate, pool, weights, _MOVES[0], wanted=0.0)[2]
        optimum = surrogate.tangents(weights)[0] if len(weights) else np.zeros(0)
        served = served_by(pool, np.arange(len(pool)), weights, self._oracle.reference)
        order = np.argsort(served / np.maximum(optimum, 1e-300), kind="stable")
        return [(weights[row], float(optimum[row])) for row in order]

    def _gridded(self, surrogate: Surrogate, pool: Pool, most: int) -> tuple[int, float, np.ndarray]:
        """The coarsest uniform grid that would prove the tolerance, if that takes at most so many further weights."""
        bases = pool.weights.shape[1]
        steps = 2
        while comb(steps + bases - 1, steps) - len(pool) <= most:
            grid = uniform_grid(bases, steps)
            new = grid[np.abs(grid[:, None, :] - pool.weights).max(axis=2).min(axis=1) > _STEP / steps]
            gap, _, moved = self._relaxed(surrogate, pool, new, _MOVES[1])
            if gap <= self._epsilon * _MARGIN:
                return len(moved), gap, moved
            steps += 1
        return 10**9, np.inf, np.zeros((0, bases))

    def _covered(self, surrogate: Surrogate, pool: Pool, share: float) -> np.ndarray:
        """Few weights of a net whose policies would be good enough, with a share of the tolerance, on all of it."""
        epsilon, delta = self._epsilon * share, self._delta * share
        net = grid_of_size(pool.weights.shape[1], _NET)
        guess = _imagined(surrogate, net)
        target = guess.optimum * (1 - 1e-9) - delta
        good: np.ndarray = (1 + epsilon) * (net @ np.vstack([guess.value, pool.value - pool.cost[:, None]]).T) >= target[:, None]
        good = good & self._may_vouch(net, np.vstack([net, pool.weights]), guess.optimum)
        needs = ((1 + epsilon) * (net @ self._oracle.reference) < target) & ~good[:, len(net) :].any(axis=1)
        if not needs.any():
            return net[:0]
        covers = good[:, : len(net)]
        np.fill_diagonal(covers, val=True)
        return net[greedy_cover(covers[needs])]

    def _may_vouch(self, at: np.ndarray, of: np.ndarray, optimum: np.ndarray) -> np.ndarray:
        """[i, j] whether solving `of[j]` can bound OPT at `at[i]`: from the same face, or by a bowl that is flat enough.

        Chords that meet a face come from solved weights of that face alone.
        """
        same = np.asarray(((of[None, :, :] <= 1e-9) | (at[:, None, :] > 1e-9)).all(axis=2))
        curvature = curvature_of(self._oracle)
        if curvature is not None:
            apart = np.abs(at[:, None, :] - of[None, :, :])
            bend = 0.5 * ((apart @ curvature) * apart).sum(axis=2)
            same |= bend <= 0.5 * (self._epsilon * optimum + self._delta)[:, None]
        return same

    def _completed(self, surrogate: Surrogate, pool: Pool, weights: np.ndarray) -> np.ndarray:
        """These weights, moved and added to until the proof would be complete, less those that can be spared."""
        wanted = self._epsilon * _MARGIN
        gap, worst, weights = self._relaxed(surrogate, pool, weights, _MOVES[0])
        while gap > wanted and len(pool) + len(weights) < 2 * _MOST_SOLVES:
            if np.abs(np.vstack([pool.weights, weights]) - worst).max(axis=1).min() < 1e-9:
                break
            gap, worst, weights = self._relaxed(surrogate, pool, np.vstack([weights, worst]), _MOVES[1])
        moves = _MOVES[1] if len(weights) <= _POLISHED else 0
        for row in range(len(weights) - 1, -1, -1):
            gap, _, fewer = self._relaxed(surrogate, pool, np.delete(weights, row, axis=0), moves)
            if gap <= wanted:
                weights = fewer
        return weights

    def _relaxed(
        self, surrogate: Surrogate, pool: Pool, weights: np.ndarray, moves: int, wanted: float | None = None
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Gap, worst corner and positions of further weights, each moved towards the corners of its cell that lack most.

        A weight stays on its face of the simplex. Moving ends at the gap that is wanted, by default the tolerance.
        """
        wanted = self._epsilon * _MARGIN if wanted is None else wanted
        best: tuple[float, np.ndarray, np.ndarray] = (np.inf, weights, weights)
        for _ in range(moves + 1):
            guess = pool.and_of(_imagined(surrogate, weights))
            corners = corner_weights(folded(guess.value, guess.cost, self._oracle.reference))
            utility = corners @ guess.value.T - guess.cost
            served = np.maximum(utility.max(axis=1), corners @ self._oracle.reference)
            lack = bound_between(self._oracle, guess, corners, guess.optimum + self._oracle.slack) - self._delta
            gaps = lack / np.maximum(served, 1e-300) - 1
            if gaps.max() < best[0]:
                best = float(gaps.max()), corners[gaps.argmax()], weights
            if best[0] <= wanted or len(weights) == 0:
                break
            pull = np.maximum(gaps / gaps.max(), 0.0)[:, None] ** 6 * (utility[:, len(pool) :] >= served[:, None] * (1 - 1e-9))
            total = pull.sum(axis=0)[:, None]
            aim = np.where(total > 1e-12, pull.T @ corners / np.maximum(total, 1e-12), weights)
            moved = np.where(weights > 1e-9, weights + _STEP * (aim - weights), 0.0)
            weights = moved / moved.sum(axis=1, keepdims=True)
        return best


def _imagined(surrogate: Surrogate, weights: np.ndarray) -> Pool:
    """Policies as the surrogate's tangent planes describe them, with the KL cost folded into the value."""
    optimum, slope = surrogate.tangents(weights)
    value = slope + (optimum - (weights * slope).sum(axis=1))[:, None]
    return Pool(weights, value, np.zeros(len(weights)), optimum)
