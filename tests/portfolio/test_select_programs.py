"""palm.portfolio.select: what is made of an integer program's answer, whatever it is."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palm.portfolio import select
from palm.portfolio.select import Effort, cover_within, greedy_cover, smallest_cover

# Greedy takes columns 2, 3 and 4; columns 0 and 1 do.
HALVES = np.repeat(np.eye(2, dtype=bool), 7, axis=0)
STRADDLING = np.tile(np.repeat(np.eye(3, dtype=bool), [4, 2, 1], axis=0), (2, 1))
TRAP = np.column_stack([HALVES, STRADDLING])


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the solver say something, and keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    def says(**parts: Any) -> list[dict[str, Any]]:
        def milp(cost: np.ndarray, **named: Any) -> SimpleNamespace:
            asked.append({"cost": cost, **named})
            x = parts.get("x")
            full = None if x is None else np.isin(np.arange(len(cost)), x).astype(float)
            return SimpleNamespace(x=full, mip_dual_bound=parts.get("bound"), mip_node_count=parts.get("nodes", 0))

        monkeypatch.setattr(select, "milp", milp)
        return asked

    return says


def test_a_program_without_a_solution_leaves_greedys_cover_and_its_own_bound(answer: Any) -> None:
    answer(x=None, bound=1.2)
    chosen, bound = smallest_cover(TRAP)
    np.testing.assert_array_equal(chosen, greedy_cover(TRAP))
    assert bound == 2
    assert cover_within(TRAP, 2) is None


def test_a_bound_that_rounding_put_above_a_whole_number_is_not_rounded_up(answer: Any) -> None:
    answer(x=None, bound=2.0 + 1e-9)
    assert smallest_cover(TRAP)[1] == 2
    answer(x=None, bound=None)
    assert smallest_cover(TRAP)[1] == 1


def test_an_answer_that_does_not_cover_is_not_believed(answer: Any) -> None:
    answer(x=[0], bound=1.0)
    np.testing.assert_array_equal(smallest_cover(TRAP)[0], greedy_cover(TRAP))
    assert cover_within(TRAP, 2) is None


def test_a_better_cover_is_taken_and_no_bound_exceeds_it(answer: Any) -> None:
    answer(x=[0, 1], bound=3.0)
    chosen, bound = smallest_cover(TRAP)
    np.testing.assert_array_equal(chosen, [0, 1])
    assert bound == 2


def test_no_program_is_asked_where_greedy_is_small_enough(answer: Any) -> None:
    asked = answer(x=None)
    np.testing.assert_array_equal(cover_within(TRAP, 3), greedy_cover(TRAP))
    assert asked == []


def test_a_program_is_charged_by_its_rows_times_columns(answer: Any) -> None:
    """Two rows of seven and six of the straddling columns' twelve are left out: what covers them covers others too."""
    asked, effort = answer(x=[0, 1], bound=2.0, nodes=16), Effort(1000.0)
    smallest_cover(TRAP, effort=effort)
    rows, columns = asked[0]["constraints"][0].A.shape
    assert (rows, columns) == (6, 5)
    assert asked[0]["options"]["node_limit"] == Effort(1000.0).nodes_for(30)
    assert effort.units == pytest.approx(1000 - 30 * (0.05 + 0.5 + 16 / 80))


def test_rows_and_columns_that_others_imply_are_left_out() -> None:
    covers = np.array([[1, 0, 1, 0], [1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]], dtype=bool)
    rows = select._hardest_rows(covers)
    np.testing.assert_array_equal(rows, [[0, 1, 0, 0], [1, 0, 1, 0]])  # who covers the first row covers the second
    np.testing.assert_array_equal(select._best_columns(rows), [0, 1])  # of equal columns the first
