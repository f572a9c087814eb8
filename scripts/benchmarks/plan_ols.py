"""Optimistic linear support as a textbook has it: what our searches are compared with.

After every solve all corners are enumerated from scratch, and at each of them a linear program of its own bounds OPT from above by
convex combinations of what was solved. (D. Roijers, S. Whiteson, F. Oliehoek, AAMAS 2014; corners by the same Qhull as ours.)
"""

import numpy as np
from scipy.optimize import linprog

from palm.portfolio import Oracle
from palm.portfolio.corners import corner_weights


def textbook_ols(oracle: Oracle, epsilon: float) -> tuple[int, float]:
    """Solves until every corner's bound is within `epsilon`, and the epsilon that is proven."""
    weights = np.eye(oracle.bases)
    while True:
        solution = oracle.solve(weights)  # all at once here, one at a time there: the same policies
        corners = corner_weights(np.vstack([solution.value - solution.cost[:, None], oracle.reference]))
        bounds = np.array([_bound(corner, weights, solution.optimum) for corner in corners])
        served = np.maximum((corners @ solution.value.T - solution.cost).max(axis=1), corners @ oracle.reference)
        gaps = bounds / served - 1
        if gaps.max() <= epsilon:
            return len(weights), float(gaps.max())
        weights = np.vstack([weights, corners[gaps.argmax()]])


def _bound(corner: np.ndarray, weights: np.ndarray, optima: np.ndarray) -> float:
    return float(linprog(optima, A_eq=weights.T, b_eq=corner).fun)
