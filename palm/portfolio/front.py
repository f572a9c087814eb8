"""The Pareto front of policies' values, and the volume that it dominates: what a portfolio offers, without any weight.

The hypervolume of points is the volume of all values that are at most some point's in every basis and above a reference point:
one number that grows whenever the front moves outward anywhere. Two sets of points compare only at the same reference point.

Source: E. Zitzler, L. Thiele, "Multiobjective optimization using evolutionary algorithms", PPSN V (1998), for the measure;
L. While, L. Bradstreet, L. Barone, "A fast way of calculating exact hypervolumes", IEEE Transactions on Evolutionary Computation 16
(2012), algorithm 1 (WFG), for the recursion.
"""

import numpy as np


def pareto_front(value: np.ndarray) -> np.ndarray:
    """Positions, in order, of policies whose value no other policy's equals or exceeds in every basis and exceeds in one.

    Args:
        value: (m, K) finite numbers, larger is better. Of equal rows the first is kept.

    Returns:
        (f,) int. O(m^2 K).

    Raises:
        ValueError: `value` has another shape, or a number is not finite.
    """
    value = _check(value)
    no_less = (value[:, None, :] >= value[None, :, :]).all(axis=2)  # [i, j]: i is at least j in every basis
    beaten = no_less & ~no_less.T
    equal_before = np.triu(no_less & no_less.T, k=1)
    return np.flatnonzero(~(beaten | equal_before).any(axis=0))


def hypervolume(value: np.ndarray, *, above: np.ndarray | None = None) -> float:
    """Volume between a reference point and the front, exactly.

    Args:
        value: (m, K) finite numbers, larger is better. What does not exceed `above` in every basis adds nothing.
        above: (K,) the reference point; by default 0, the worst of a reward that is calibrated into [0, 1]: the volume then is
            a share of the unit cube.

    Returns:
        0 without policies. O(m log m) for K = 2; exponential in m at worst for K above 2, but quick for tens of
        policies and K up to 6.

    Raises:
        ValueError: a shape is wrong, or a number is not finite.
    """
    value = _check(value)
    point = np.zeros(value.shape[1]) if above is None else np.asarray(above, dtype=np.float64)
    if point.shape != value.shape[1:] or not np.isfinite(point).all():
        raise ValueError(f"above: expected {value.shape[1]} finite numbers, got {point.tolist()}")
    height = value - point
    return _volume(height[(height > 0).all(axis=1)])


def _volume(height: np.ndarray) -> float:
    """Volume of the union of the boxes from 0 to each row."""
    height = height[pareto_front(height)]
    if len(height) <= 1 or height.shape[1] == 1:
        return float(height.prod(axis=1).max(initial=0.0))
    height = height[np.argsort(-height[:, 0], kind="stable")]
    if height.shape[1] == 2:  # a staircase: first falls, second rises
        return float((height[:, 0] * np.diff(height[:, 1], prepend=0.0)).sum())
    # What a box adds to those after it is its own volume less that of its common part with them.
    total = 0.0
    for row in range(len(height)):
        total += float(height[row].prod()) - _volume(np.minimum(height[row + 1 :], height[row]))
    return total


def _check(value: np.ndarray) -> np.ndarray:
    value = np.asarray(value, dtype=np.float64)
    if value.ndim != 2 or value.shape[1] == 0:
        raise ValueError(f"value: expected the shape (m policies, K bases), K at least 1, got {value.shape}")
    if not np.isfinite(value).all():
        row, column = np.argwhere(~np.isfinite(value))[0].tolist()
        raise ValueError(f"value: expected finite numbers, got {value[row, column]} of policy {row} in basis {column}")
    return value
