"""Which policies to keep: the fewest that are good enough on a finite set of weights (set cover)."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

_MOST_CELLS = 5_000_000  # beyond, to find what is superfluous alone takes minutes


@dataclass
class Effort:
    """What integer programs may still cost: counted, not timed, so that a busy machine chooses as an idle one does.

    A program over r rows and c columns is charged r c (1/20, + 1/2 if presolving left something to branch on, + nodes / 80):
    measured with HiGHS, 100,000 of these units are one to three seconds of one core.

    Attributes:
        units: left.
        most_cells: rows times columns of the largest program, before anything superfluous is left out.
    """

    units: float = 5e5
    most_cells: int = _MOST_CELLS

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.units <= 0

    def nodes_for(self, cells: int) -> int:
        """How many nodes of branch and bound a program of so many cells may look at, at least 1."""
        return max(1, int(80 * (self.units / max(cells, 1) - 0.5)))

    def charge(self, cells: int, nodes: int | None) -> None:
        """Count a program that looked at so many nodes."""
        looked_at = int(nodes or 0)
        self.units -= cells * (0.05 + 0.5 * min(looked_at, 1) + looked_at / 80)


def greedy_cover(covers: np.ndarray) -> np.ndarray:
    """Cover all rows with few columns: repeatedly the column that covers most of what is left, ties to the lowest index.

    At most 1 + ln(n) times the fewest (V. Chvatal, "A greedy heuristic for the set-covering problem", Mathematics of
    Operations Research 4 (1979)); columns that became superfluous are dropped at the end.

    Args:
        covers: (n, m) bool; whether column j is good enough for row i.

    Returns:
        (s,) column numbers in increasing order.

    Raises:
        ValueError: a row is covered by no column.
    """
    _check(covers)
    left, chosen = np.ones(len(covers), dtype=bool), []
    counts = covers.sum(axis=0)
    while left.any():
        pick = int(counts.argmax())
        chosen.append(pick)
        newly = left & covers[:, pick]
        counts -= covers[newly].sum(axis=0)
        left &= ~newly
    order = np.array(chosen, dtype=np.intp)
    return np.sort(order[needed_columns(covers[:, order])])


def needed_columns(covers: np.ndarray) -> np.ndarray:
    """Positions of columns left when those that the others make superfluous are dropped in turn, the first ones first.

    Args:
        covers: (n, m) bool; together the columns cover all rows.

    Returns:
        (s,) positions in increasing order; without any one of them a row is uncovered.
    """
    often, keep = covers.sum(axis=1), np.ones(covers.shape[1], dtype=bool)
    for column in range(covers.shape[1]):
        if (often[covers[:, column]] > 1).all():
            keep[column] = False
            often = often - covers[:, column]
    return np.flatnonzero(keep)


def smallest_cover(covers: np.ndarray, *, effort: Effort | None = None) -> tuple[np.ndarray, int]:
    """Cover all rows with the fewest columns, by integer programming (HiGHS).

    Args:
        covers: (n, m) bool.
        effort: what may still be spent, and is charged; the best cover found with it is returned, with the bound proven by then.

    Returns:
        (s,) column numbers in increasing order, and a proven lower bound on the size of any cover (s if optimal).

    Raises:
        ValueError: a row is covered by no column.
    """
    _check(covers)
    greedy = greedy_cover(covers)
    if len(greedy) <= 1:
        return greedy, len(greedy)
    found, bound = _solve_cover(covers, None, effort or Effort())
    chosen = greedy if found is None or len(found) >= len(greedy) else found
    return chosen, min(bound, len(chosen))


def cover_within(covers: np.ndarray, size: int, *, effort: Effort | None = None) -> np.ndarray | None:
    """Cover all rows with at most `size` columns, by integer programming.

    Returns:
        (s,) column numbers, or None if there is no such cover or none was found before the effort was spent.

    Raises:
        ValueError: a row is covered by no column.
    """
    _check(covers)
    greedy = greedy_cover(covers)
    return greedy if len(greedy) <= size else _solve_cover(covers, size, effort or Effort())[0]


def _solve_cover(covers: np.ndarray, size: int | None, effort: Effort) -> tuple[np.ndarray | None, int]:
    """A cover and a bound on its size: the smallest cover, or any of at most `size` columns if that is given."""
    rows = _hardest_rows(covers)
    columns = _best_columns(rows)
    constraints = [LinearConstraint(csr_array(rows[:, columns].astype(np.float64)), lb=1.0)]
    if size is not None:
        constraints.append(LinearConstraint(np.ones((1, len(columns))), ub=float(size)))
    result = milp(
        np.ones(len(columns)) if size is None else np.zeros(len(columns)),
        constraints=constraints,
        integrality=np.ones(len(columns)),
        bounds=Bounds(0, 1),
        options={"node_limit": effort.nodes_for(rows.shape[0] * len(columns)), "mip_rel_gap": 0.0},
    )
    effort.charge(rows.shape[0] * len(columns), result.mip_node_count)
    bound = 1 if size is not None or result.mip_dual_bound is None else int(np.ceil(result.mip_dual_bound - 1e-6))
    if result.x is None:
        return None, max(bound, 1)
    chosen = np.sort(columns[np.flatnonzero(result.x > 0.5)])
    return (chosen if covers[:, chosen].any(axis=1).all() else None), max(bound, 1)


def _check(covers: np.ndarray) -> None:
    uncovered = ~covers.any(axis=1)
    if uncovered.any():
        raise ValueError(f"covers: expected every row to be covered by some column, row {int(uncovered.argmax())} is by none")


def _hardest_rows(covers: np.ndarray) -> np.ndarray:
    """Rows whose columns contain no other row's columns: covering these covers all."""
    rows = np.unique(covers, axis=0)
    return rows[~_contains_another(rows)]


def _best_columns(rows: np.ndarray) -> np.ndarray:
    """Columns whose rows no other column's rows contain; of equal columns the first."""
    first = np.sort(np.unique(rows, axis=1, return_index=True)[1])
    return first[~_contains_another(~rows[:, first].T)]


def _contains_another(sets: np.ndarray) -> np.ndarray:
    """(n,) whether a set, given as a row of (n, d) bool, contains another row's set; no two rows are equal."""
    common = sets.astype(np.float32) @ sets.T.astype(np.float32)
    subset = common == sets.sum(axis=1, dtype=np.float32)[:, None]  # [i, j]: set i lies within set j
    np.fill_diagonal(subset, False)
    return subset.any(axis=0)
