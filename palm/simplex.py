"""Weights on the probability simplex: check, project, sample, grid."""

import math
from itertools import combinations

import numpy as np

TOLERANCE = 1e-6
"""How far from 1 a weight's sum may be, and how far below 0 an entry, before it is refused."""


def nearest(weights: np.ndarray, weight: np.ndarray) -> int:
    """Number of the weight out of (n, K), n at least 1, that is nearest to another in L1 distance; the last of several."""
    away = np.abs(np.asarray(weights) - weight).sum(axis=1)
    return int(np.flatnonzero(away <= away.min() + 1e-12)[-1])


def check_weights(weights: np.ndarray, *, bases: int | None = None, name: str = "weights") -> np.ndarray:
    """Return weights as float64 rows that sum to 1 up to rounding, or say what is wrong with them.

    Args:
        weights: (n, K) or (K,) numbers; one weight becomes one row.
        bases: K if it is known.
        name: the argument's name in messages.

    Returns:
        (n, K) float64, a copy; entries that rounding had put below 0 are 0. Checked again, it does not change.

    Raises:
        ValueError: not numbers, not one or two dimensions, no columns, not K columns, not finite, or off the simplex
            by more than `TOLERANCE`.
    """
    try:
        rows = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers in the shape (n, K), got {weights!r:.80}") from error
    if rows.ndim == 1:
        rows = rows[None, :]
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name}: expected the shape (n, K) with K at least 1, got {np.shape(weights)}")
    if bases is not None and rows.shape[1] != bases:
        raise ValueError(f"{name}: expected {bases} columns, one per basis, got {rows.shape[1]}")
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name}: expected finite numbers, got {rows[row].tolist()} in row {row}")
    bad = (np.abs(rows.sum(axis=1) - 1.0) > TOLERANCE) | (rows < -TOLERANCE).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"{name}: expected rows of the simplex (at least 0, sum 1), got {rows[row].tolist()} in row {row} "
            f"with sum {rows[row].sum():.9g}; project_to_simplex finds the nearest such row"
        )
    rows = np.maximum(rows, 0.0)
    total = rows.sum(axis=1, keepdims=True)
    off = np.abs(total - 1.0) > rows.shape[1] * np.finfo(np.float64).eps  # so that checking twice changes no bit
    return np.where(off, rows / total, rows)


def project_to_simplex(points: np.ndarray) -> np.ndarray:
    """Nearest weights in Euclidean distance, in O(n K log K).

    Args:
        points: (n, K) or (K,) finite numbers.

    Returns:
        The same shape, every row on the simplex.

    Raises:
        ValueError: `points` has no columns or is not finite.

    Source: J. Duchi et al., "Efficient projections onto the l1-ball", ICML 2008, algorithm 1.
    """
    rows = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] == 0 or not np.isfinite(rows).all():
        raise ValueError(f"points: expected finite numbers in the shape (n, K) with K at least 1, got {points!r:.80}")
    descending = -np.sort(-rows, axis=1)
    excess = (np.cumsum(descending, axis=1) - 1.0) / np.arange(1, rows.shape[1] + 1)
    kept = (descending > excess).sum(axis=1)  # at least 1: the largest entry always exceeds itself minus 1
    shift = excess[np.arange(len(rows)), kept - 1]
    return np.maximum(rows - shift[:, None], 0.0).reshape(np.shape(points))


def sample_simplex(count: int, bases: int, rng: np.random.Generator) -> np.ndarray:
    """(count, bases) weights, uniform on the simplex."""
    if bases < 1:
        raise ValueError(f"bases: expected at least 1, got {bases}")
    return rng.dirichlet(np.ones(bases), size=count)


def uniform_grid(bases: int, steps: int) -> np.ndarray:
    """All weights whose entries are multiples of 1 / steps.

    Returns:
        (C(steps + bases - 1, bases - 1), bases) float64, in lexicographic order.

    Raises:
        ValueError: `bases` or `steps` is below 1, or there would be more than ten million weights.
    """
    if bases < 1:
        raise ValueError(f"bases: expected at least 1, got {bases}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    size = math.comb(steps + bases - 1, bases - 1)
    if size > 10_000_000:
        raise ValueError(f"steps: expected a grid of at most 10,000,000 weights, got {size:,} for {bases} bases")
    # Stars and bars: choose where the bars stand, the gaps between them are the entries.
    bars = np.array(list(combinations(range(steps + bases - 1), bases - 1)), dtype=np.int64).reshape(size, bases - 1)
    edges = np.column_stack([np.full(size, -1), bars, np.full(size, steps + bases - 1)])
    return (np.diff(edges, axis=1) - 1) / steps


def tangent_basis(bases: int) -> np.ndarray:
    """(K, K - 1) orthonormal columns that span the directions within the simplex (those that sum to 0)."""
    centred = np.eye(bases) - 1.0 / bases
    return np.linalg.svd(centred)[0][:, : bases - 1]


def uniform_covariance(bases: int) -> np.ndarray:
    """(K, K) covariance of weights drawn uniformly from the simplex."""
    return (np.eye(bases) / bases - 1.0 / bases**2) / (bases + 1)
