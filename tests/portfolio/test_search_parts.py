"""palm.portfolio.search: what each step decides, recounted on pools small enough to try every choice."""

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import Pool, Trials, solve_all
from palm.portfolio.search import _fewer_tests, cut_search
from palm.portfolio.select import Effort


@pytest.mark.parametrize(("most", "kept"), [(1000, 20), (60, 20), (59, 9), (20, 3), (1, 1)])
def test_tests_are_thinned_evenly_from_the_first_to_the_last(pool_oracle, most, kept):
    """Twenty tests that need one of three policies, and one that does not: 60 cells of an integer program."""
    pool = Pool(np.eye(3), np.eye(3), np.zeros(3), np.ones(3))
    weights = np.vstack([np.linspace([0.0, 0.0, 1.0], [0.0, 1.0, 0.0], 20), [[1.0, 0.0, 0.0]]])
    tests = Trials(weights, np.append(np.ones(20), 0.0))
    few = _fewer_tests(pool_oracle(np.eye(3), [0.1] * 3), pool, tests, 0.05, 0.0, most)
    if kept == 20:
        assert few is tests
        return
    np.testing.assert_array_equal(few.weights, weights[np.linspace(0, 19, kept).astype(int)])
    np.testing.assert_array_equal(few.optimum, np.ones(kept))


@pytest.mark.parametrize(("lack", "policies"), [(3e-6, 1), (-5e-7, 2)])
def test_an_epsilon_is_kept_to_with_room_for_rounding(pool_oracle, lack, policies):
    """One policy leaves epsilon less or more than a millionth of itself: where more, a second is kept."""
    epsilon = 0.05
    gap = epsilon * (1 - lack)
    oracle = pool_oracle([[1.0, 1.0 / (1 + gap)], [0.0, 1.0]], reference=[0.1, 0.1])
    pool = solve_all(oracle, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    for exact in (True, False):
        chosen = cut_search(oracle, epsilon=epsilon, delta=0.0, exact=exact, pool=pool)[1]
        assert len(np.unique(pool.value[chosen], axis=0)) == policies


@pytest.fixture
def hard(random_tensor):
    """An oracle and a pool of which greedy choice keeps more policies at 4 % than integer programs do."""
    oracle = GibbsOracle(random_tensor(2, 3), 0.05)
    return oracle, solve_all(oracle, grid_of_size(3, 80))


def test_no_integer_program_and_no_bound_where_few_will_do(hard, monkeypatch):
    def never(*_, **__):
        raise AssertionError("not to be asked")

    monkeypatch.setattr(search, "incompatible_on_grid", never)
    monkeypatch.setattr(search, "smallest_cover", never)
    oracle, pool = hard
    assert len(cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, exact=False)[1]) > 1
    assert len(cut_search(oracle, epsilon=0.8, delta=0.0, pool=pool)[1]) == 1


def test_no_integer_program_where_incompatible_weights_prove_the_size(hard, monkeypatch):
    oracle, pool = hard
    greedy = cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, exact=False)[1]
    monkeypatch.setattr(search, "incompatible_on_grid", lambda *_, **__: np.zeros((len(greedy), 3)))
    monkeypatch.setattr(search, "smallest_cover", lambda *_, **__: pytest.fail("proven before"))
    monkeypatch.setattr(search, "_fewer_tests", lambda *_: pytest.fail("proven before"))
    np.testing.assert_array_equal(cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool)[1], greedy)


def test_a_program_that_proves_the_size_is_the_last(hard, monkeypatch):
    """The program's bound, or that of incompatible weights where it is the better one, ends the search."""
    oracle, pool = hard
    greedy = cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, exact=False)[1]
    asked = []

    def proves(covers, *, effort):
        asked.append(covers.shape)
        return np.zeros(1, dtype=np.intp), len(greedy)

    monkeypatch.setattr(search, "smallest_cover", proves)
    lines = []
    np.testing.assert_array_equal(cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, advance=lines.append)[1], greedy)
    assert len(asked) == 1
    assert not any("tried" in line for line in lines)  # what the program chose is not certified any more


def test_effort_that_is_spent_is_said_and_what_was_proven_is_not_forgotten(hard, monkeypatch, caplog):
    oracle, pool = hard
    monkeypatch.setattr(search, "incompatible_on_grid", lambda *_, **__: np.zeros((5, 3)))

    def spends(covers, *, effort):
        effort.units = 0.0
        return np.zeros(1, dtype=np.intp), 2

    monkeypatch.setattr(search, "smallest_cover", spends)
    chosen = cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool)[1]
    assert f"integer programs took all the effort allowed: {len(chosen)} policies kept" in caplog.text
    assert "no fewer than 5 will do" in caplog.text


def test_a_program_as_large_as_is_allowed_is_asked(hard, monkeypatch, caplog):
    oracle, pool = hard
    shapes, solve = [], search.smallest_cover

    def seen(covers, *, effort):
        shapes.append(covers.shape)
        return solve(covers, effort=effort)

    monkeypatch.setattr(search, "smallest_cover", seen)
    cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool)
    rows, columns = first = shapes[0]
    shapes.clear()
    cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, effort=Effort(most_cells=rows * columns))
    assert shapes[0] == first
    shapes.clear()
    cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, effort=Effort(most_cells=rows * columns - 1))
    assert shapes[0] == ((rows * columns - 1) // (2 * columns), columns)


@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_policies_are_spread_anew_as_long_as_fewer_are_good_enough(random_tensor, portfolio_of, delta):
    """From a grid of fifteen, far more than needed: to the fewest that swapping and moving find, and not below the bound."""
    oracle, lines = GibbsOracle(random_tensor(0, 3), 0.2), []
    pool = solve_all(oracle, grid_of_size(3, 15))
    start = np.arange(15)
    grown, few = search._spread_anew(oracle, pool, start, 1, 0.05, delta, lines.append)
    assert len(few) < 10
    assert 1 <= len(lines) <= 15 - len(few)  # more than one may go at once
    assert certify(portfolio_of(oracle, grown.weights[few]), oracle, delta=delta, search_bound=False).epsilon <= 0.05 + 1e-9
    np.testing.assert_allclose(oracle.solve(grown.weights[few]).value, grown.value[few])
    assert len(search._spread_anew(oracle, pool, start, 13, 0.05, delta, None)[1]) == 13
    np.testing.assert_array_equal(search._spread_anew(oracle, pool, start[:1], 1, 0.05, delta, None)[1], [0])
    unreached, same = search._spread_anew(oracle, pool, start[:2], 1, 1e-4, 0.0, None)
    assert unreached is pool
    np.testing.assert_array_equal(same, [0, 1])


def test_many_policies_or_bases_are_left_as_they_are(random_tensor, monkeypatch):
    class Asked(Exception):
        pass

    def asked(*_, **__):
        raise Asked

    monkeypatch.setattr(search, "fixed_size_search", asked)
    for bases, count in ((3, 17), (5, 6)):
        oracle = GibbsOracle(random_tensor(0, bases), 0.2)
        pool = solve_all(oracle, grid_of_size(bases, 30))
        assert len(search._spread_anew(oracle, pool, np.arange(count), 1, 0.5, 0.0, None)[1]) == count
    for bases, count in ((3, 16), (4, 6)):
        oracle = GibbsOracle(random_tensor(0, bases), 0.2)
        pool = solve_all(oracle, grid_of_size(bases, 30))
        with pytest.raises(Asked):
            search._spread_anew(oracle, pool, np.arange(count), 1, 0.5, 0.0, None)


@pytest.mark.parametrize(("proven", "least"), [(0, 1), (4, 4)])
def test_policies_are_not_spread_below_what_incompatible_weights_prove(random_tensor, monkeypatch, proven, least):
    asked = []

    def seen(oracle, pool, chosen, least, *_):
        asked.append(least)
        return pool, chosen

    monkeypatch.setattr(search, "incompatible_on_grid", lambda *_, **__: np.zeros((proven, 3)))
    monkeypatch.setattr(search, "_spread_anew", seen)
    cut_search(GibbsOracle(random_tensor(2, 3), 0.05), epsilon=0.05, delta=0.0, effort=Effort(0.0))
    assert asked == [least]
