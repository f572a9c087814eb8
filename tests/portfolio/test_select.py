from itertools import combinations

import numpy as np
import pytest

from palm.portfolio.select import Effort, cover_within, greedy_cover, needed_columns, smallest_cover


def fewest(covers):
    """Size of the smallest cover, by trying every set of columns."""
    columns = range(covers.shape[1])
    return next(
        size for size in range(covers.shape[1] + 1) for few in combinations(columns, size) if covers[:, list(few)].any(axis=1).all()
    )


def random_covers(seed):
    rng = np.random.default_rng(seed)
    covers = rng.random((rng.integers(3, 14), rng.integers(3, 10))) < rng.uniform(0.15, 0.6)
    covers[~covers.any(axis=1), 0] = True
    return covers


# The textbook case: two columns cover half each, and three straddle the halves with 8, 4 and 2 of the 14 rows.
HALVES = np.repeat(np.eye(2, dtype=bool), 7, axis=0)
STRADDLING = np.tile(np.repeat(np.eye(3, dtype=bool), [4, 2, 1], axis=0), (2, 1))
GREEDY_TRAP = np.column_stack([HALVES, STRADDLING])
# Rows are pairs out of three columns: half of each column covers all, so the relaxation says 1.5 and the answer is 2.
FRACTIONAL = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=bool)


@pytest.mark.parametrize("seed", range(40))
def test_covers_are_covers_and_the_smallest_is_that_of_brute_force(seed):
    covers = random_covers(seed)
    size = fewest(covers)
    greedy, (exact, bound) = greedy_cover(covers), smallest_cover(covers)
    for chosen in (greedy, exact):
        assert covers[:, chosen].any(axis=1).all()
        assert (np.diff(chosen) > 0).all()
    assert len(exact) == bound == size
    assert size <= len(greedy) <= size * (1 + np.log(len(covers)))
    for column in greedy:
        assert not covers[:, np.setdiff1d(greedy, column)].any(axis=1).all()


@pytest.mark.parametrize("seed", range(40))
def test_cover_within_finds_a_cover_exactly_when_there_is_one(seed):
    covers = random_covers(seed)
    size = fewest(covers)
    found = cover_within(covers, size)
    assert len(found) <= size
    assert covers[:, found].any(axis=1).all()
    assert cover_within(covers, size - 1) is None


def test_greedy_needs_more_where_integer_programming_does_not():
    np.testing.assert_array_equal(greedy_cover(GREEDY_TRAP), [2, 3, 4])
    chosen, bound = smallest_cover(GREEDY_TRAP)
    np.testing.assert_array_equal(chosen, [0, 1])
    assert bound == 2
    assert smallest_cover(FRACTIONAL)[1] == 2


def test_greedy_drops_what_became_superfluous():
    covers = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]], dtype=bool)  # ties go to column 0, which is not needed
    np.testing.assert_array_equal(greedy_cover(covers), [1, 2])


def test_no_rows_need_no_columns():
    nothing = np.zeros((0, 4), dtype=bool)
    assert len(greedy_cover(nothing)) == 0
    assert smallest_cover(nothing)[1] == 0


@pytest.mark.parametrize("cover", [greedy_cover, smallest_cover, lambda covers: cover_within(covers, 2)])
def test_a_row_that_no_column_covers_is_named(cover):
    covers = np.ones((4, 3), dtype=bool)
    covers[2] = False
    with pytest.raises(ValueError, match="covers: expected every row to be covered by some column, row 2 is by none"):
        cover(covers)


def test_effort_that_is_spent_leaves_the_greedy_cover_and_an_honest_bound():
    """On 150 rows and 60 columns one node of branch and bound proves little."""
    rng = np.random.default_rng(0)
    covers = rng.random((150, 60)) < 0.1
    covers[~covers.any(axis=1), 0] = True
    effort = Effort(1)
    chosen, bound = smallest_cover(covers, effort=effort)
    assert effort.spent
    assert covers[:, chosen].any(axis=1).all()
    assert bound <= len(smallest_cover(covers)[0]) <= len(chosen) <= len(greedy_cover(covers))
    assert bound < len(chosen)


def test_effort_is_counted_in_cells_and_nodes():
    effort = Effort(100.0)
    effort.charge(1000, 0)  # solved by presolving
    assert effort.units == 50
    effort.charge(40, 80)
    assert effort.units == 50 - 2 - 20 - 40
    assert effort.spent
    assert Effort(1000.0).nodes_for(10) == 80 * 99.5
    assert Effort(-5.0).nodes_for(10) == 1


def test_needed_columns_leave_none_to_spare_and_keep_the_later_of_two_that_agree():
    np.testing.assert_array_equal(needed_columns(np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)), [1, 2])
    np.testing.assert_array_equal(needed_columns(np.eye(3, dtype=bool)), [0, 1, 2])
    np.testing.assert_array_equal(needed_columns(np.array([[1, 1], [1, 0]], dtype=bool)), [0])
