"""Fixed sets of weights: PALM's geometric grid, a uniform grid, random weights."""

import itertools
import math

import numpy as np

from palm.simplex import sample_simplex, uniform_grid

_MOST = 200_000


def palm_grid(bases: int, epsilon: float, delta: float) -> np.ndarray:
    """PALM's grid: largest coordinate 1, the others from geometric levels, brought onto the simplex.

    With tau = delta / (K - 1) the levels are 0 and (1 + epsilon)^-k for k = 0 .. ceil(ln(1 / tau) / ln(1 + epsilon)). For
    values in [0, 1]^K and no KL cost, a policy optimal at the rounded-down weight has utility at least
    (OPT - delta) / (1 + epsilon).

    This is a reconstruction from the paper's description (arXiv 2604.04144); its theorem's text was not at hand.

    Args:
        bases: K, at least 1.
        epsilon: multiplicative gap, positive.
        delta: additive gap, positive.

    Returns:
        (n, K) distinct weights; n is at most K (levels)^(K - 1).

    Raises:
        ValueError: an argument is out of range, or there would be more than 200,000 weights.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon: expected a positive number, got {epsilon}")
    if bases == 1:
        return np.ones((1, 1))
    if not delta > 0:
        raise ValueError(f"delta: expected a positive number for method 'grid', got {delta}")
    size = palm_grid_size(bases, epsilon, delta)
    if size > _MOST:
        raise ValueError(f"epsilon: PALM's grid would have {size:,} weights for K = {bases}, more than {_MOST:,}; use method 'cut'")
    steps = max(0, math.ceil(math.log((bases - 1) / delta) / math.log1p(epsilon)))
    levels = np.append(0.0, (1 + epsilon) ** -np.arange(steps + 1.0))
    weights = []
    for others in itertools.product(levels, repeat=bases - 1):
        for position in range(bases):
            weights.append([*others[:position], 1.0, *others[position:]])
    rows = np.unique(np.array(weights), axis=0)
    return rows / rows.sum(axis=1, keepdims=True)


def palm_grid_size(bases: int, epsilon: float, delta: float) -> int:
    """K (levels)^(K - 1), the bound on the size of `palm_grid` without listing it."""
    if bases == 1:
        return 1
    steps = max(0, math.ceil(math.log((bases - 1) / delta) / math.log1p(epsilon)))
    return int(bases * (steps + 2) ** (bases - 1))


def random_weights(bases: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The simplex's vertices and random weights, `count` in all (at least the vertices)."""
    return np.vstack([np.eye(bases), sample_simplex(max(0, count - bases), bases, rng)])


def grid_of_size(bases: int, count: int) -> np.ndarray:
    """The finest uniform grid of at most `count` weights (at least the vertices)."""
    steps = 1
    while math.comb(steps + bases, bases - 1) <= count and bases > 1:
        steps += 1
    return uniform_grid(bases, steps)
