"""A guess of OPT between solved weights, for choosing where to solve next. Nothing is ever certified with it.

Every solve tells OPT and its gradient, which is the policy's value (envelope theorem), so a Gaussian process with both as
observations knows K numbers from each: C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press
2006, section 9.4.
"""

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from palm.portfolio.pool import Pool
from palm.simplex import tangent_basis

_LENGTHS = ((2.0, 0.0), (1.0, -2.0))  # the simplex's edges are 1.4 long; and the logarithm of how likely each length is beforehand
_NUGGET = 1e-8


class Surrogate:
    """OPT as a Gaussian process with a squared exponential kernel, given OPT and its gradient at n solved weights.

    The kernel's length is the likeliest of two. O((n K)^3).
    """

    def __init__(self, pool: Pool) -> None:
        """Fit to the solved weights of a pool."""
        self._basis = tangent_basis(pool.weights.shape[1])
        self._points = pool.weights @ self._basis
        self._centre = float(pool.optimum.mean())
        slopes = (pool.value @ self._basis).T  # (K - 1, n)
        observed = np.concatenate([pool.optimum - self._centre, slopes.ravel()])
        fits = [(fit[0] + prior, *fit[1:]) for length, prior in _LENGTHS if (fit := self._fit(observed, length)) is not None]
        if not fits:
            raise LinAlgError("surrogate: the kernel of the solved weights is singular")
        _, self._length, self._mixture = max(fits, key=lambda fit: fit[0])

    def _fit(self, observed: np.ndarray, length: float) -> tuple[float, float, np.ndarray] | None:
        kernel = _kernel(self._points, self._points, length)
        kernel[np.diag_indices_from(kernel)] += _NUGGET * np.diag(kernel)
        try:
            factor = cho_factor(kernel, lower=True)
        except LinAlgError:
            return None
        mixture = cho_solve(factor, observed)
        scale = max(float(observed @ mixture) / len(observed), 1e-300)
        return -0.5 * len(observed) * np.log(scale) - float(np.log(np.diag(factor[0])).sum()), length, mixture

    def tangents(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """OPT (M,) at (M, K) weights, and slopes (M, K) with OPT's plane there: OPT(w) + slope.(v - w)."""
        points = weights @ self._basis
        guess = (_kernel(points, self._points, self._length) @ self._mixture).reshape(1 + points.shape[1], len(points))
        return guess[0] + self._centre, guess[1:].T @ self._basis.T


def _kernel(left: np.ndarray, right: np.ndarray, length: float) -> np.ndarray:
    """Covariance of [values, slopes] at the left points with those at the right: ((1 + d) n, (1 + d) m)."""
    apart = (left[:, None, :] - right[None, :, :]) / length**2  # (n, m, d)
    same = np.exp(-0.5 * (apart**2).sum(axis=2) * length**2)
    count, dims = same.shape, left.shape[1]
    blocks = np.empty((1 + dims, count[0], 1 + dims, count[1]))
    blocks[0, :, 0, :] = same
    for i in range(dims):
        blocks[0, :, 1 + i, :] = apart[:, :, i] * same
        blocks[1 + i, :, 0, :] = -apart[:, :, i] * same
        for j in range(dims):
            blocks[1 + i, :, 1 + j, :] = ((i == j) / length**2 - apart[:, :, i] * apart[:, :, j]) * same
    return blocks.reshape((1 + dims) * count[0], (1 + dims) * count[1])
