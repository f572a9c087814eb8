"""Corners of a portfolio's cells, and the hull bound on the optimum: all polyhedral geometry, nothing else.

L_S(w) = max_j v_j.w is piecewise linear on the simplex; its cells are where one policy is best. OPT is convex, so
OPT - (1 + epsilon) L_S is convex on each cell and largest at one of the cell's vertices: a *corner weight*.
"""

from itertools import combinations

import numpy as np
from scipy.spatial import ConvexHull, HalfspaceIntersection, QhullError

_SAME = 1e-12
_AT_ONCE = 2**20  # comparisons


def corner_weights(values: np.ndarray) -> np.ndarray:
    """All vertices of the cells into which max_j v_j.w divides the simplex, the simplex's own vertices included.

    Args:
        values: (m, K) finite numbers; one policy's value per row, its KL cost subtracted from every entry.

    Returns:
        (c, K) weights without duplicates, in lexicographic order. For K = 1 it is [[1.]].

    O(m^floor(K / 2)) corners in the worst case; Qhull finds them in about as many steps.
    """
    values = _preferable(np.asarray(values, dtype=np.float64))
    bases = values.shape[1]
    vertices = np.eye(bases)
    if bases == 1 or len(values) == 1:
        return vertices
    scale = np.ptp(values)
    scaled = (values - values.min()) / (scale if scale > 0 else 1.0)
    found = _crossings(scaled) if bases == 2 else _halfspaces(scaled)
    return _unique(np.vstack([vertices, found]))


def upper_bound(weights: np.ndarray, solved: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """Bound OPT from above where it was not solved: OPT is convex, so it lies below every chord of solved weights.

    Args:
        weights: (M, K) where the bound is wanted.
        solved: (n, K) weights that were solved, the simplex's vertices among them.
        optima: (n,) OPT at them.

    Returns:
        (M,) the least of sum_k lambda_k optima_k over convex combinations sum_k lambda_k solved_k = w: the lower convex
        hull of the points (w, OPT(w)).
    """
    return hull_height(weights, lower_hull(solved, optima))


def lower_hull(solved: np.ndarray, optima: np.ndarray) -> np.ndarray:
    """(h, K) planes of the lower convex hull of (w, OPT(w)): its height is the largest of plane.(w_1, ..., w_{K-1}, 1)."""
    bases = solved.shape[1]
    if bases == 1:
        return np.full((1, 1), float(optima.min()))
    least, scale = optima.min(), float(np.ptp(optima)) or 1.0  # heights as large as weights: Qhull's tolerances are absolute
    heights = (optima - least) / scale
    roof = 2.0  # a point above all others makes the hull full-dimensional
    points = np.vstack([np.column_stack([solved[:, :-1], heights]), np.append(np.full(bases - 1, 1.0 / bases), roof)])
    try:
        equations = ConvexHull(points).equations
    except QhullError:
        equations = ConvexHull(points, qhull_options="QJ Pp").equations
    lower = equations[equations[:, -2] < -1e-9]  # outward normal pointing down
    planes: np.ndarray = -np.column_stack([lower[:, :-2], lower[:, -1]]) / lower[:, -2:-1]
    planes *= scale
    planes[:, -1] += least
    return planes


def hull_height(weights: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """(M,) height at (M, K) weights of a hull given by its planes.

    Qhull's own rounding may put a plane above a solved point by about 1e-15 of the largest height; the bound stays above OPT by
    as much.
    """
    height: np.ndarray = np.column_stack([weights[:, :-1], np.ones(len(weights))]).dot(planes.T).max(axis=1)
    return height


def _preferable(values: np.ndarray) -> np.ndarray:
    """Rows that some weight may prefer: without repeats and without rows that another row exceeds everywhere."""
    values = np.unique(values, axis=0)
    keep = np.ones(len(values), dtype=bool)
    step = max(1, _AT_ONCE // values.size)
    for start in range(0, len(values), step):
        rows = values[start : start + step, None, :]
        keep[start : start + step] = (values >= rows).all(axis=2).sum(axis=1) == 1  # itself, as there are no repeats
    return values[keep]


def _crossings(values: np.ndarray) -> np.ndarray:
    """Corners for K = 2: from one end of the simplex to the other, which line overtakes the best one first. O(m) a corner."""
    slope = values[:, 0] - values[:, 1]
    best, crossed = int(np.lexsort((slope, values[:, 1]))[-1]), []
    while len(steeper := np.flatnonzero(slope > slope[best] + _SAME)):
        crossing = (values[best, 1] - values[steeper, 1]) / (slope[steeper] - slope[best])
        first = float(crossing.min())
        if not first < 1:
            break
        crossed.append(first)
        together = steeper[crossing <= first + _SAME]
        best = int(together[slope[together].argmax()])
    weights = np.array(crossed).clip(0, 1)
    return np.column_stack([weights, 1 - weights])


def _halfspaces(values: np.ndarray) -> np.ndarray:
    """Corners for K >= 3: vertices of {(w, t): w on the simplex, v_j.w <= t <= roof} by Qhull."""
    bases = values.shape[1]
    roof = 2.0  # values are scaled into [0, 1]
    walls = np.zeros((bases + 1, bases + 1))  # columns: w_1..w_{K-1}, t, offset; a row means row.(w, t, 1) <= 0
    walls[: bases - 1, : bases - 1] = -np.eye(bases - 1)
    walls[bases - 1] = np.append(np.ones(bases - 1), [0.0, -1.0])
    walls[bases] = np.append(np.zeros(bases - 1), [1.0, -roof])
    policies = np.column_stack([values[:, :-1] - values[:, -1:], -np.ones(len(values)), values[:, -1]])
    inside = np.append(np.full(bases - 1, 1.0 / bases), 0.5 * (1.0 + roof))
    halfspaces = np.vstack([walls, policies])
    try:
        vertices = HalfspaceIntersection(halfspaces, inside, qhull_options="Qx" if bases > 3 else "").intersections
    except QhullError:
        vertices = _by_enumeration(halfspaces)
    vertices = vertices[np.isfinite(vertices).all(axis=1)]
    partial = vertices[vertices[:, -1] < roof - _SAME][:, :-1]
    weights = np.maximum(np.column_stack([partial, 1.0 - partial.sum(axis=1)]), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _by_enumeration(halfspaces: np.ndarray) -> np.ndarray:
    """Vertices from every choice of as many planes as there are dimensions; only for what Qhull refuses."""
    size = halfspaces.shape[1] - 1
    vertices = []
    for rows in combinations(range(len(halfspaces)), size):
        block = halfspaces[list(rows)]
        if np.linalg.cond(block[:, :-1]) < 1e10:
            vertex = np.linalg.solve(block[:, :-1], -block[:, -1])
            if (halfspaces[:, :-1] @ vertex + halfspaces[:, -1] <= 1e-9).all():
                vertices.append(vertex)
    return np.array(vertices).reshape(-1, size)


def _unique(weights: np.ndarray) -> np.ndarray:
    """Distinct rows up to rounding, each kept as it was computed."""
    rounded = np.round(weights, 11) + 0.0
    return weights[np.unique(rounded, axis=0, return_index=True)[1]]
