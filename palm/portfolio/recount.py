"""What a certificate claims, counted again by other means: for `palm.portfolio.verify`, which trusts nothing of its maker.

Nothing here is shared with `certify`, `corners`, `oracle` or `search`, and nothing but NumPy is imported: optima prompt by prompt,
policies from their probabilities, KL from its definition, cells by the double description method instead of Qhull, and a search
for counterexamples that knows no cells at all.
"""

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np

_SAME = 1e-10
_MOST_RAYS = 20_000


class Recount:
    """OPT, policies and the reference on candidates, prompt by prompt."""

    def __init__(self, rewards: np.ndarray, kl: float, mask: np.ndarray | None = None) -> None:
        """Keep each prompt's candidates.

        Args:
            rewards: (P, N, K).
            kl: coefficient of the KL cost, positive.
            mask: (P, N) bool, False where a prompt has no such candidate.
        """
        present = np.ones(rewards.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
        self._prompts = [np.asarray(row, dtype=np.float64)[there] for row, there in zip(rewards, present, strict=True)]
        self.kl = float(kl)
        self.reference = np.mean([rows.mean(axis=0) for rows in self._prompts], axis=0)
        self.numbers = sum(len(rows) for rows in self._prompts)  # candidates in all: what one weight costs

    def optimum(self, weights: np.ndarray) -> np.ndarray:
        """(M,) OPT at (M, K) weights: the mean over prompts of kl log mean exp(w.phi / kl)."""
        total = np.zeros(len(weights))
        for rows in self._prompts:
            total += self._log_mean(weights, rows)
        return self.kl * total / len(self._prompts)

    def members(self, policies: np.ndarray) -> np.ndarray:
        """(P, m, K + 1) J and, last, the KL cost of the policies that are optimal at (m, K) weights, prompt by prompt."""
        rows = [[self._on_prompt(weight, rows) for weight in policies] for rows in self._prompts]
        return np.array(rows).reshape(len(self._prompts), len(policies), len(self.reference) + 1)

    def lacks(self, weights: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prompt by prompt at (c, K) weights: OPT (P, c), utility of (P, m, K + 1) members (P, m, c) and the reference (P, c)."""
        optimum = np.stack([self.kl * self._log_mean(weights, rows) for rows in self._prompts])
        served = members[:, :, :-1] @ weights.T - members[:, :, -1:]
        return optimum, served, np.stack([weights @ rows.mean(axis=0) for rows in self._prompts])

    def _log_mean(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(M,) log mean exp(w.phi / kl) over one prompt's candidates."""
        tilt = weights @ (rows.T / self.kl)
        top = tilt.max(axis=1)
        return top + np.log(np.exp(tilt - top[:, None]).mean(axis=1))

    def policy(self, weight: np.ndarray) -> tuple[np.ndarray, float]:
        """J (K,) and KL cost of the policy that is optimal at one weight, both from its probabilities."""
        total = np.sum([self._on_prompt(weight, rows) for rows in self._prompts], axis=0) / len(self._prompts)
        return total[:-1], float(total[-1])

    def _on_prompt(self, weight: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(K + 1,) J and, last, the KL cost of the policy that is optimal at one weight, on one prompt's candidates."""
        tilt = rows @ weight / self.kl
        probability = np.exp(tilt - tilt.max())
        probability /= probability.sum()
        some = probability > 0
        divergence = float((probability[some] * np.log(probability[some] * len(rows))).sum())
        return np.append(probability @ rows, self.kl * divergence)


def cell_corners(values: np.ndarray) -> np.ndarray | None:
    """Vertices of the cells into which max_j v_j.w divides the simplex, by the double description method.

    {(w, t): w >= 0, t >= v_j.w for all j} is a cone; its extreme rays but the one straight up are the corners. One policy's
    half-space after the other cuts it, and new rays appear between adjacent rays on its two sides: those that lie together on
    planes that no third ray lies on. Equal policies and many policies through one point are no special case.

    Args:
        values: (m, K) values with the KL cost subtracted, m at least 1.

    Returns:
        (c, K) weights, or None if there would be too many for this method (above 20,000 at any time).

    Source: T. Motzkin, H. Raiffa, G. Thompson, R. Thrall, "The double description method" (1953); the adjacency test is
    proposition 7 of K. Fukuda, A. Prodon, "Double description method revisited" (1996).
    """
    bases = values.shape[1]
    values = values - values.min()
    values = values / max(float(values.max()), 1e-300)
    rays = np.vstack([np.column_stack([np.eye(bases), values[0]]), np.append(np.zeros(bases), 1.0)])
    planes = np.vstack([np.column_stack([np.eye(bases), np.zeros(bases)]), np.append(-values[0], 1.0)])
    for value in values[1:]:
        plane = np.append(-value, 1.0)
        side = rays @ plane
        above, below = np.flatnonzero(side > _SAME), np.flatnonzero(side < -_SAME)
        planes = np.vstack([planes, plane])
        if len(below) == 0:
            continue
        upper, lower = _adjacent(np.abs(rays @ planes[:-1].T) <= _SAME, above, below, bases)
        crossed = side[upper, None] * rays[lower] - side[lower, None] * rays[upper]
        crossed /= crossed[:, :-1].sum(axis=1, keepdims=True)
        rays = np.vstack([rays[side >= -_SAME], crossed])
        if len(rays) > _MOST_RAYS:
            return None
    corners = np.maximum(rays[rays[:, :-1].sum(axis=1) > 0.5][:, :-1], 0.0)
    return corners / corners.sum(axis=1, keepdims=True)


def _adjacent(zero: np.ndarray, above: np.ndarray, below: np.ndarray, bases: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rays, one of each side, that share an edge; `zero` says which ray lies on which plane."""
    counts = zero[above].astype(np.float32) @ zero[below].T.astype(np.float32)
    upper, lower = np.nonzero(counts >= bases - 1)
    upper, lower = above[upper], below[lower]
    edges = np.zeros(len(upper), dtype=bool)
    off = (~zero).T.astype(np.float32)
    step = max(1, 2**24 // len(zero))
    for start in range(0, len(upper), step):
        rows = slice(start, start + step)
        common = zero[upper[rows]] & zero[lower[rows]]
        edges[rows] = (common.astype(np.float32) @ off < 0.5).sum(axis=1) == 2  # the two themselves
    return upper[edges], lower[edges]


def random_weights(count: int, bases: int, rng: np.random.Generator) -> np.ndarray:
    """(count, K) weights: a third uniform, a third near faces and vertices, a third near the middle."""
    shapes = rng.choice([0.25, 1.0, 4.0], size=count)
    gamma = rng.gamma(shapes[:, None], size=(count, bases)) + 1e-300
    return gamma / gamma.sum(axis=1, keepdims=True)


def ascend(height: Callable[[np.ndarray], np.ndarray], starts: np.ndarray, *, rounds: int = 60, seed: int = 0) -> np.ndarray:
    """Climb from each start by moving weight between two bases or towards another point; steps halve where nothing is gained.

    Args:
        height: (M, K) weights to (M,) numbers.
        starts: (s, K).
        rounds: of moves, each looking at K (K - 1) + 2 K neighbours of every point.
        seed: of the points moved towards.

    Returns:
        (s, K) where the climbs ended; never lower than they began.
    """
    points, bases = starts.copy(), starts.shape[1]
    best, step = height(points), np.full(len(points), 0.25)
    pairs = np.array(list(permutations(range(bases), 2)), dtype=np.intp).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        swaps = np.zeros((len(points), len(pairs), bases))
        amount = np.minimum(step[:, None], points[:, pairs[:, 0]])
        columns = np.arange(len(pairs))
        swaps[:, columns, pairs[:, 0]], swaps[:, columns, pairs[:, 1]] = -amount, amount
        towards = np.concatenate([np.eye(bases), random_weights(bases, bases, rng)])[None] - points[:, None, :]
        neighbours = points[:, None, :] + np.concatenate([swaps, step[:, None, None] * towards], axis=1)
        neighbours = np.maximum(neighbours, 0.0)
        neighbours /= neighbours.sum(axis=2, keepdims=True)
        heights = height(neighbours.reshape(-1, bases)).reshape(len(points), -1)
        pick = heights.argmax(axis=1)
        found = heights[np.arange(len(points)), pick]
        better = found > best
        points[better], best[better] = neighbours[better, pick[better]], found[better]
        step[~better] /= 2
    return points


def apart(best: Callable[[np.ndarray], np.ndarray], one: np.ndarray, other: np.ndarray, factor: float, delta: float) -> bool:
    """Whether factor best(t) + delta - chord(t), convex in t, goes below 0 between two weights; a golden-section search."""
    ends = best(np.stack([other, one]))

    def excess(share: float) -> float:
        between = float(best((share * one + (1 - share) * other)[None])[0])
        return factor * between + delta - (share * float(ends[1]) + (1 - share) * float(ends[0]))

    low, high, golden = 0.0, 1.0, (math.sqrt(5) - 1) / 2
    first, second = high - golden, low + golden
    at_first, at_second = excess(first), excess(second)
    for _ in range(60):
        if min(at_first, at_second) < 0:
            return True
        if at_first < at_second:
            high, second, at_second = second, first, at_first
            first = high - golden * (high - low)
            at_first = excess(first)
        else:
            low, first, at_first = first, second, at_second
            second = low + golden * (high - low)
            at_second = excess(second)
    return False
