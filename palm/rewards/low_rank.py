"""The largest singular values and vectors of a sparse matrix plus one of low rank, the same in every run.

Block Krylov iteration with restarts on the smaller side (C. Musco, C. Musco, "Randomized block Krylov methods for stronger and
faster approximate singular value decomposition", arXiv 1504.05477), from a beginning that the caller's generator draws. ARPACK,
which scipy offers for this, restarts from noise that cannot be seeded in all its versions wherever it meets an invariant
subspace, and so differs from run to run where singular values are equal.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.sparse import csr_array

_SMALL = 100  # rows on the smaller side up to which its space is searched whole
_SPARE = 2  # vectors beside those wanted
_DEPTH = 4  # products between restarts
_RESTARTS = 6
_NOTHING = 1e-8  # of a product, relative to its largest vector, outside of the space so far
_TOLERANCE = 1e-7  # on the residual, relative to the largest squared singular value


@dataclass(frozen=True)
class Filled:
    """The matrix correction + left right'.

    Attributes:
        correction: (rows, columns), sparse.
        left, right: (rows, K) and (columns, K).
    """

    correction: csr_array
    left: np.ndarray
    right: np.ndarray

    @property
    def transposed(self) -> Self:
        """The matrix transposed."""
        return type(self)(self.correction.T, self.right, self.left)

    def __matmul__(self, other: np.ndarray) -> np.ndarray:
        """(rows, b) product with (columns, b) vectors."""
        return np.asarray(self.correction @ other + self.left @ (self.right.T @ other))


def largest_factors(matrix: Filled, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The best approximation left right' of a rank, with the root of each singular value on either side, largest first.

    Exact to rounding where the smaller side is small. Else to 1e-7 of the largest squared singular value, or as near as six
    restarts come where singular values lie closer together than that takes.

    Args:
        matrix: (rows, columns).
        size: rank, at most the smaller side.
        rng: draws where the search begins beside the matrix' own `right`.

    Returns:
        left (rows, size) and right (columns, size).
    """
    rows, columns = matrix.correction.shape
    if rows < columns:
        right, left = largest_factors(matrix.transposed, size, rng)
        return left, right
    space = _leading(matrix, size, rng)
    u, s, turn = np.linalg.svd(matrix @ space, full_matrices=False)
    return u * np.sqrt(s), (space @ turn.T) * np.sqrt(s)


def _leading(matrix: Filled, size: int, rng: np.random.Generator) -> np.ndarray:
    """(columns, size) orthonormal vectors that span the leading right singular vectors of a matrix with rows >= columns."""
    back, columns = matrix.transposed, matrix.correction.shape[1]
    width = size + _SPARE
    block = np.linalg.qr(np.hstack([matrix.right, rng.standard_normal((columns, width))]))[0]
    whole = columns <= max(_SMALL, (_DEPTH + 2) * width)
    for _ in range(1 if whole else _RESTARTS):
        space, image = _krylov(matrix, back, np.eye(columns) if whole else block)
        values, vectors = np.linalg.eigh(space.T @ image)
        best = vectors[:, : -width - 1 : -1]
        block = space @ best
        residual = image @ best[:, :size] - block[:, :size] * values[: -size - 1 : -1]
        if np.linalg.norm(residual, axis=0).max() <= _TOLERANCE * values[-1]:
            break
    return np.asarray(block[:, :size])


def _krylov(matrix: Filled, back: Filled, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal basis of an orthonormal block and its products with the squared matrix, and the product of that basis."""
    spaces, images = [block], [back @ (matrix @ block)]
    for _ in range(_DEPTH):
        known, product = np.hstack(spaces), images[-1]
        new = product - known @ (known.T @ product)
        q, r = np.linalg.qr(new)
        fresh = np.abs(np.diag(r)) > _NOTHING * np.linalg.norm(product, axis=0).max()
        if not fresh.any():  # invariant, as a whole space is
            break
        new = q[:, fresh] - known @ (known.T @ q[:, fresh])  # again, for what rounding left
        spaces.append(np.linalg.qr(new)[0])
        images.append(back @ (matrix @ spaces[-1]))
    return np.hstack(spaces), np.hstack(images)
