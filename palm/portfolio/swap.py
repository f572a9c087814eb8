"""Single swaps: from a choice of columns to one that no exchange of one column for another makes cheaper."""

import numpy as np


def total_cost(cost: np.ndarray, free: np.ndarray, chosen: np.ndarray | list[int]) -> float:
    """The sum over rows of the cheapest chosen column, or of what is free: cost (r, c), free (r,)."""
    return float(np.minimum(free, cost[:, chosen].min(axis=1, initial=np.inf)).sum())


def costs_with_one_more(cost: np.ndarray, free: np.ndarray, chosen: list[int]) -> np.ndarray:
    """(c,) total costs of the chosen columns with each column beside them, in O(r c)."""
    left = np.minimum(free, cost[:, chosen].min(axis=1, initial=np.inf))
    return np.minimum(left[:, None], cost).sum(axis=0)


def swapped(cost: np.ndarray, free: np.ndarray, chosen: list[int], *, least: float) -> np.ndarray:
    """The best single swap, again and again until none lowers the total by more than the share `least` of it.

    Args:
        cost: (r, c) finite; what a row costs with column j.
        free: (r,) finite; what it costs without any.
        chosen: columns to begin with, at least one.
        least: above 0, so that rounding cannot go round in circles.

    Returns:
        (s,) distinct column numbers in increasing order. O(r c s) a swap.
    """
    chosen, total = list(chosen), total_cost(cost, free, chosen)
    while True:
        best = (total * (1 - least), -1, -1)
        for position in range(len(chosen)):
            sums = costs_with_one_more(cost, free, chosen[:position] + chosen[position + 1 :])
            if sums.min() < best[0]:
                best = float(sums.min()), position, int(sums.argmin())
        if best[1] < 0:
            return np.unique(np.array(chosen, dtype=np.intp))
        total, position, column = best
        chosen[position] = column
