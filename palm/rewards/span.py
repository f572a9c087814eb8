"""A subspace in which fits of wide features find their solutions, grown as they need it.

A fit evaluates its loss hundreds of times, each time reading every feature twice. Solutions of related problems (folds, penalties,
rounds) lie near one subspace of a few hundred directions; in its coordinates an evaluation reads d / r times less. Whoever solves a
problem there must look at the gradient outside: `palm.rewards.logistic.fit_directions` grows the span until that is small.
"""

from collections.abc import Callable

import numpy as np

MOST = 512
"""Directions that are kept; when more are needed the span begins anew."""

_NEW = 1e-5  # share of a direction that must lie outside the span to be worth a place


class Span:
    """Orthonormal directions and a matrix's products with them; it only ever saves time, so those who share it may let it grow."""

    def __init__(self, width: int, project: Callable[[np.ndarray], np.ndarray]) -> None:
        """Begin with nothing.

        Args:
            width: d.
            project: (m, r) float32 products of the features with (d, r) directions.
        """
        self._width, self._project = width, project
        self.basis = np.zeros((width, 0))
        self.projected = project(self.basis)

    def coordinates(self, directions: np.ndarray) -> np.ndarray | None:
        """(r, K) of (d, K) directions; None if they do not lie in the span, but for rounding."""
        found = self.basis.T @ directions
        away = np.linalg.norm(directions - self.basis @ found)
        return found if away <= 1e-6 * np.linalg.norm(directions) else None

    def outside(self, directions: np.ndarray) -> np.ndarray:
        """(d, K): what of the directions is orthogonal to the span."""
        for _ in range(2):  # twice, for rounding
            directions = directions - self.basis @ (self.basis.T @ directions)
        return directions

    def include(self, directions: np.ndarray) -> None:
        """Grow to hold (d, K) directions; if that takes too many, hold these alone."""
        if self.basis.shape[1] + directions.shape[1] > MOST:
            self.basis, self.projected = self.basis[:, :0], self.projected[:, :0]
        length = np.linalg.norm(directions, axis=0)
        away = self.outside(directions[:, length > 0] / length[length > 0])
        new: list[np.ndarray] = []
        for column in away.T:
            for other in new * 2:
                column = column - other * (other @ column)
            size = np.linalg.norm(column)
            if size > _NEW:
                new.append(self.outside((column / size)[:, None])[:, 0])
                new[-1] /= np.linalg.norm(new[-1])
        if new:
            added = np.column_stack(new)
            self.basis = np.hstack([self.basis, added])
            self.projected = np.hstack([self.projected, self._project(added)])
