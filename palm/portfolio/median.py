"""Which columns to keep so that rows cost least in all, each served by its cheapest: the p-median problem.

Greedy choice and swaps find a good answer. An integer program proves it: every row has one variable for its cost, bounded from
below by cuts that are made where they are violated (Benders' cuts), so the program has a variable per row and per column and
not one per pair. Its relaxation is that of the full program, which is tight more often than not.

Source: C. Duran-Mateluna, Z. Ales, S. Elloumi, "An efficient Benders decomposition for the p-median problem", European Journal of
Operational Research 308 (2023), equation 10 for the cuts.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, hstack, vstack

from palm.portfolio.select import Effort
from palm.portfolio.swap import costs_with_one_more, swapped, total_cost

_PROVEN = 1e-6  # relative to what the incumbent costs: the feasibility tolerance of the integer programs


@dataclass(frozen=True)
class Median:
    """Columns kept, and the evidence.

    Attributes:
        chosen: (s,) column numbers in increasing order, s at most the size asked for; none is superfluous.
        cost: what all rows cost together.
        at_least: proven: no choice of so many columns costs less, up to a millionth of what is above every row's cheapest.
    """

    chosen: np.ndarray
    cost: float
    at_least: float


def least_cost(cost: np.ndarray, free: np.ndarray, size: int, *, exact: bool = True, effort: Effort | None = None) -> Median:
    """At most `size` columns at which rows, each served by the cheapest of them or for `free`, cost least in all.

    Args:
        cost: (r, c) numbers, c at least 1; infinity where a row must not be served by a column.
        free: (r,) numbers or infinity; what a row costs without any column.
        size: columns to keep, at least 1.
        exact: prove it by integer programming, as far as the effort goes; otherwise greedy choice and swaps, and the bound
            that every row has its cheapest column.
        effort: of all integer programs together.

    Raises:
        ValueError: a shape is wrong, a number is not a number, a row has no finite cost, or `size` is below 1.
    """
    _check(cost, free, size)
    cost = np.minimum(cost, free[:, None])
    cheapest = cost.min(axis=1)
    # What a row costs above its cheapest. A finite stand-in for infinity, above any sum of finite ones, lets swaps compare.
    excess, spare = cost - cheapest[:, None], free - cheapest
    ceiling = 1.0 + len(cost) * max(float(excess[np.isfinite(excess)].max()), 1e-300)
    excess, spare = np.minimum(excess, ceiling), np.minimum(spare, ceiling)
    chosen = swap_least(excess, spare, size)
    total = total_cost(excess, spare, chosen)
    bound = 0.0
    if exact and total > 0:
        # A choice that beats the incumbent has no row above the incumbent's total: capping there changes no such choice.
        chosen, bound = _prove(np.minimum(excess, total), np.minimum(spare, total), size, chosen, effort or Effort())
    chosen = _without_superfluous(excess, spare, chosen)
    base = float(cheapest.sum())
    return Median(chosen, base + total_cost(excess, spare, chosen), base + min(bound, total_cost(excess, spare, chosen)))


def swap_least(cost: np.ndarray, free: np.ndarray, size: int) -> np.ndarray:
    """Greedy choice, then the best single swap until none helps: (s,) column numbers. O(r c size) a swap."""
    chosen: list[int] = []
    for _ in range(min(size, cost.shape[1])):
        sums = costs_with_one_more(cost, free, chosen)
        sums[chosen] = np.inf
        chosen.append(int(sums.argmin()))
    return swapped(cost, free, chosen, least=1e-12)


def _prove(cost: np.ndarray, free: np.ndarray, size: int, chosen: np.ndarray, effort: Effort) -> tuple[np.ndarray, float]:
    """The best choice found and a lower bound on every choice's cost, by cuts on the relaxation and then on the program."""
    scale = total_cost(cost, free, chosen)
    columns = _worth_opening(cost)
    cost, free, best = cost[:, columns] / scale, free / scale, (1.0, chosen)
    cuts = _Cuts(cost, free)
    start = np.isin(columns, chosen).astype(np.float64)
    cuts.add(start, np.full(len(cost), -1.0))
    bound, whole = 0.0, False
    while not effort.spent:
        opened, row_cost, value = cuts.solve(size, whole, effort)
        if opened is None or row_cost is None:
            break
        bound = max(bound, value)
        picked = np.flatnonzero(opened > 0.5)
        if np.abs(opened - np.round(opened)).max() < 1e-6 and (total := total_cost(cost, free, picked)) < best[0]:
            best = total, columns[picked]
        if best[0] <= bound + _PROVEN:
            break
        if cuts.add(opened, row_cost) == 0:
            if whole:  # what is left between bound and incumbent is rounding, or a program that was cut short
                break
            whole = True
    return best[1], bound * scale


class _Cuts:
    """Cuts t_i >= v - sum_j max(v - cost_ij, 0) y_j on each row's cost t_i, at levels v that are made when they are violated."""

    def __init__(self, cost: np.ndarray, free: np.ndarray) -> None:
        self.cost, self.free = cost, free
        self.order = np.argsort(cost, axis=1, kind="stable")
        self.upward = np.take_along_axis(cost, self.order, axis=1)
        self.rows = np.zeros(0, dtype=np.intp)
        self.levels = np.zeros(0)

    def add(self, opened: np.ndarray, row_cost: np.ndarray) -> int:
        """Add for every row the cut that is the strongest at (c,) opened columns, where it exceeds (r,) row_cost; how many."""
        reached = np.cumsum(opened[self.order], axis=1) >= 1 - 1e-9
        first = reached.argmax(axis=1)
        level = np.where(reached.any(axis=1), self.upward[np.arange(len(first)), first], self.free)
        strength = level - (np.maximum(level[:, None] - self.cost, 0.0) @ opened)
        violated = np.flatnonzero(strength > row_cost + 1e-7 / len(row_cost))
        self.rows, self.levels = np.append(self.rows, violated), np.append(self.levels, level[violated])
        return len(violated)

    def solve(self, size: int, whole: bool, effort: Effort) -> tuple[np.ndarray | None, np.ndarray | None, float]:
        """Opened columns, row costs and a lower bound, of the relaxation or of the whole program."""
        count, width = self.cost.shape
        saved = np.maximum(self.levels[:, None] - self.cost[self.rows], 0.0)
        picks = csr_array((np.ones(len(self.rows)), (np.arange(len(self.rows)), self.rows)), shape=(len(self.rows), count))
        matrix = hstack([csr_array(saved), picks], format="csr")
        limit = csr_array(np.append(np.ones(width), np.zeros(count))[None])
        objective = np.append(np.zeros(width), np.ones(count))
        cells = len(self.rows) * width
        if not whole:
            upper = np.append(np.ones(width), np.full(count, np.inf))
            found = linprog(
                objective,
                A_ub=vstack([-matrix, limit], format="csr"),
                b_ub=np.append(-self.levels, size),
                bounds=np.column_stack([np.zeros(width + count), upper]),
                method="highs",
            )
            effort.charge(cells, 0)
            value = float(found.fun) if found.status == 0 else 0.0
        else:
            found = milp(
                objective,
                constraints=[LinearConstraint(matrix, lb=self.levels), LinearConstraint(limit, ub=float(size))],
                integrality=np.append(np.ones(width), np.zeros(count)),
                bounds=Bounds(0, np.append(np.ones(width), np.full(count, np.inf))),
                options={"node_limit": effort.nodes_for(cells), "mip_rel_gap": 0.0},
            )
            effort.charge(cells, found.mip_node_count)
            value = float(found.mip_dual_bound or 0.0)
        if found.x is None:
            return None, None, value
        return found.x[:width], found.x[width:], value


def _worth_opening(cost: np.ndarray) -> np.ndarray:
    """Columns that no other column undercuts or equals everywhere; of equal columns the first."""
    columns = np.sort(np.unique(cost, axis=1, return_index=True)[1])
    kept = cost[:, columns]
    keep = [not ((kept <= kept[:, [j]]).all(axis=0) & (np.arange(len(columns)) != j)).any() for j in range(len(columns))]
    return columns[keep]


def _without_superfluous(cost: np.ndarray, free: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen columns without those that serve nobody better, the last first."""
    total = total_cost(cost, free, chosen)
    for column in chosen[::-1]:
        others = chosen[chosen != column]
        if total_cost(cost, free, others) <= total:
            chosen = others
    return chosen


def _check(cost: np.ndarray, free: np.ndarray, size: int) -> None:
    if cost.ndim != 2 or 0 in cost.shape or free.shape != cost.shape[:1]:
        raise ValueError(
            f"cost, free: expected the shapes (rows, columns) and (rows,), none of them 0, got {cost.shape}, {free.shape}"
        )
    if np.isnan(cost).any() or np.isnan(free).any() or np.isneginf(cost).any() or np.isneginf(free).any():
        raise ValueError("cost, free: expected numbers or infinity, got others")
    lost = ~np.isfinite(np.minimum(cost.min(axis=1), free))
    if lost.any():
        raise ValueError(f"cost, free: expected a finite cost for every row, row {int(lost.argmax())} has none")
    if isinstance(size, bool) or size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
