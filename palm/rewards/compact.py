"""Standardised features of pairs in memory, for a fit that reads them hundreds of times.

On disk features are float16 and memory-mapped; turning them into float32 takes longer than multiplying them by a few directions.
So a fit keeps what it needs in float32: one row per distinct text, or one per pair (the difference of its two texts) where there
are fewer pairs than texts. Where that is larger than `LARGEST`, `Compact.of` gives None and features are read from disk each time.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from palm.features.pairs import PairFeatures
from palm.rewards.span import Span

LARGEST = 2**30
"""Bytes that are kept in memory at most."""

_BLOCK = 2**20  # numbers read at a time: 4 MiB, which stay in cache
_LARGE = 2**24  # numbers from which on a matrix is worth a span


@dataclass(frozen=True)
class Compact:
    """What pairs need of their features.

    Attributes:
        matrix: (m, d) float32, standardised: texts (centred), or differences of pairs.
        first: (n,) row of each pair's chosen text, or of its difference.
        second: (n,) row of its rejected text; None where rows are differences.
        span: where solutions were found; None where the matrix is small. Selections share it.
    """

    matrix: np.ndarray
    first: np.ndarray
    second: np.ndarray | None
    span: Span | None = None

    @classmethod
    def of(cls, pairs: PairFeatures, mean: np.ndarray, scale: np.ndarray, *, largest: int = LARGEST) -> Self | None:
        """Read the texts that the pairs are of.

        Args:
            pairs: n pairs.
            mean, scale: (d,) of the columns; a column of scale infinity becomes 0.
            largest: bytes; None is returned where more would be needed.
        """
        used, place = np.unique(np.concatenate([pairs.chosen_row, pairs.rejected_row]), return_inverse=True)
        rows = min(len(used), len(pairs))
        if rows * pairs.width * 4 > largest:
            return None
        matrix = np.empty((rows, pairs.width), dtype=np.float32)
        centre, factor = mean.astype(np.float32), (1 / scale).astype(np.float32)
        step = max(1, _BLOCK // pairs.width)
        for start in range(0, rows, step):
            part = slice(start, start + step)
            if len(used) <= len(pairs):
                matrix[part] = pairs.items.rows(used[part]) - centre
            else:
                matrix[part] = pairs.items.rows(pairs.chosen_row[part])
                matrix[part] -= pairs.items.rows(pairs.rejected_row[part])
            matrix[part] *= factor
        span = Span(pairs.width, lambda directions: matrix @ directions.astype(np.float32)) if matrix.size >= _LARGE else None
        if len(used) <= len(pairs):
            return cls(matrix, place[: len(pairs)], place[len(pairs) :], span)
        return cls(matrix, np.arange(len(pairs)), None, span)

    def select(self, rows: np.ndarray) -> Self:
        """Some of the pairs, by row number or by a mask; the matrix is shared."""
        return replace(self, first=self.first[rows], second=None if self.second is None else self.second[rows])

    def inside(self) -> Self:
        """The same pairs in the coordinates of the span."""
        assert self.span is not None
        return replace(self, matrix=self.span.projected, span=None)

    def project(self, directions: np.ndarray) -> np.ndarray:
        """(m, K) float64 products of the rows with (d, K) directions; within the span if they lie there."""
        inside = None if self.span is None else self.span.coordinates(directions)
        if self.span is not None and inside is not None:
            return self.inside().project(inside)
        return (self.matrix @ directions.astype(np.float32)).astype(np.float64)

    def gather(self, coefficients: np.ndarray) -> np.ndarray:
        """(d, K) float64: transpose of `project` applied to (m, K) numbers."""
        rows = np.ascontiguousarray(coefficients.T, dtype=np.float32)
        return np.ascontiguousarray((rows @ self.matrix).T, dtype=np.float64)
