"""palm.portfolio.search: what each step of the two searches decides, recounted on pools small enough to try every choice."""

from itertools import combinations

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import Pool, Trials, solve_all
from palm.portfolio.search import _epsilon_left, _fewer_tests, _least_epsilon, _needed, cut_search, fixed_size_search, swap_search
from palm.portfolio.select import Effort
from palm.simplex import sample_simplex


def left(wanted, utility):
    """epsilon with (1 + epsilon) utility >= wanted, one number at a time."""
    if wanted <= utility:
        return 0.0
    return wanted / utility - 1 if utility > 0 else np.inf


def left_by(pool, tests, reference, chosen, delta):
    """The largest epsilon that chosen policies leave on the tests, one test and policy at a time."""
    worst = 0.0
    for weight, optimum in zip(tests.weights, tests.optimum, strict=True):
        utility = [float(weight @ reference), *(float(weight @ pool.value[j] - pool.cost[j]) for j in chosen)]
        worst = max(worst, min(left(optimum - delta, each) for each in utility))
    return worst


def random_pool(seed, policies=7, tests=9, bases=3):
    """Policies with costs, some utilities of which are negative, tests of their own and a poor reference."""
    rng = np.random.default_rng(seed)
    weights = sample_simplex(tests, bases, rng)
    pool = Pool(sample_simplex(policies, bases, rng), rng.random((policies, bases)), rng.random(policies) * 0.3, np.zeros(policies))
    optimum = np.maximum((weights @ pool.value.T - pool.cost).max(axis=1), 0.05) + rng.random(tests) * 0.2
    return pool, Trials(weights, optimum), rng.random(bases) * 0.3


@pytest.mark.parametrize(
    ("wanted", "utility", "expected"),
    [
        (0.6, 0.5, 0.2),
        (0.5, 0.5, 0.0),
        (0.4, 0.5, 0.0),
        (0.0, 0.0, 0.0),
        (0.1, 0.0, np.inf),
        (-1.0, -2.0, np.inf),
        (-2.0, -1.0, 0.0),
    ],
)
def test_epsilon_left(wanted, utility, expected):
    assert _epsilon_left(np.array(wanted), np.array(utility)) == pytest.approx(expected)


def swapped(ratio, free, size):
    """Farthest-first and best single swaps, in plain loops."""
    finite = [float(each) for each in free if np.isfinite(each)]
    cap = 2 * max([*finite, *(min(row) for row in ratio.tolist()), 1e-9])

    def total(few):
        rows = range(len(ratio))
        return sum((min([free[row], cap, *(ratio[row, column] for column in few)]) / cap) ** 12 for row in rows)

    chosen, columns = [], range(ratio.shape[1])
    for _ in range(min(size, len(columns))):
        chosen.append(min(columns, key=lambda new: total([*chosen, new])))
    while True:
        swaps = [[*chosen[:at], new, *chosen[at + 1 :]] for at in range(len(chosen)) for new in columns]
        best = min(swaps, key=total)
        if total(best) >= total(chosen) * (1 - 1e-9):
            return sorted(set(chosen))
        chosen = best


@pytest.mark.parametrize("seed", range(30))
def test_swapping_is_the_plain_loops(seed):
    rng = np.random.default_rng(seed)
    ratio, free = rng.random((10, 6)) ** 3, rng.random(10) * rng.choice([0.2, 1.0, 5.0])
    ratio[rng.random(ratio.shape) < 0.2] = np.inf
    ratio[:, 0] = rng.random(10)  # no row is left without a finite choice
    free[rng.random(10) < 0.3] = np.inf
    for size in (1, 2, 3, 4):
        assert swap_search(ratio, free, size).tolist() == swapped(ratio, free, size)


def test_swapping_ends_where_all_columns_are_alike():
    np.testing.assert_array_equal(swap_search(np.zeros((3, 4)), np.ones(3), 1), [0])
    assert len(swap_search(np.full((3, 4), 0.5), np.ones(3), 2)) <= 2


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("delta", [0.0, 0.05, 0.3])
def test_least_epsilon_is_that_of_the_best_of_all_choices(seed, delta):
    pool, tests, reference = random_pool(seed)
    for size in (1, 2, 3):
        best = min(left_by(pool, tests, reference, few, delta) for few in combinations(range(len(pool)), size))
        bound, reached, chosen = _least_epsilon(pool, tests, reference, size, delta, Effort())
        assert bound == pytest.approx(best, abs=1e-9)
        assert reached == pytest.approx(best, abs=1e-9)
        assert left_by(pool, tests, reference, chosen, delta) == pytest.approx(best, abs=1e-9)
        assert len(chosen) <= size


@pytest.mark.parametrize("seed", range(12))
def test_without_effort_least_epsilon_is_what_swapping_found_and_a_bound_that_holds(seed):
    pool, tests, reference = random_pool(seed)
    best = min(left_by(pool, tests, reference, few, 0.0) for few in combinations(range(len(pool)), 2))
    bound, reached, chosen = _least_epsilon(pool, tests, reference, 2, 0.0, Effort(0.0))
    assert bound <= best + 1e-9
    assert best <= reached + 1e-9
    assert left_by(pool, tests, reference, chosen, 0.0) == pytest.approx(reached, abs=1e-9)


def test_a_program_given_up_is_no_proof(monkeypatch):
    """Swapping is made to choose the worst; a program that ends without an answer as the effort ends raises no bound."""
    pool, tests, reference = random_pool(1)
    monkeypatch.setattr(search, "swap_search", lambda ratio, free, size: np.array([int(ratio.sum(axis=0).argmax())]))

    def gives_up(covers, size, *, effort):
        effort.units = 0.0

    monkeypatch.setattr(search, "cover_within", gives_up)
    bound, reached, _ = _least_epsilon(pool, tests, reference, 2, 0.0, Effort())
    best = min(left_by(pool, tests, reference, few, 0.0) for few in combinations(range(len(pool)), 2))
    assert bound <= best < reached


def test_an_answer_found_with_the_last_of_the_effort_is_kept(monkeypatch):
    pool, tests, reference = random_pool(1)
    best = min(combinations(range(len(pool)), 2), key=lambda few: left_by(pool, tests, reference, few, 0.0))
    worst = np.array([max(range(len(pool)), key=lambda one: left_by(pool, tests, reference, [one], 0.0))])
    monkeypatch.setattr(search, "swap_search", lambda ratio, free, size: worst)

    def finds(covers, size, *, effort):
        effort.units = 0.0
        return np.array(best)

    monkeypatch.setattr(search, "cover_within", finds)
    np.testing.assert_array_equal(_least_epsilon(pool, tests, reference, 2, 0.0, Effort())[2], best)


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


def test_policies_that_the_gap_does_not_need_are_left_out(pool_oracle):
    oracle = pool_oracle([[1.0, 0.0], [0.0, 1.0], [0.5, 0.49]], reference=[0.1, 0.1])
    pool = solve_all(oracle, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    kept = _needed(oracle, pool, np.array([0, 1, 2]), 0.0, 0.0)
    np.testing.assert_array_equal(kept, [0, 1])  # the last is the first once more
    np.testing.assert_array_equal(_needed(oracle, pool, np.array([0, 1]), 9.0, 0.0), [])  # .1 times ten is enough
    np.testing.assert_array_equal(_needed(oracle, pool, np.array([0, 1]), 8.9, 0.0), [0, 1])  # either lacks it at a vertex
    np.testing.assert_array_equal(_needed(oracle, pool, np.array([0, 1]), 0.0, 0.9), [])  # and .1 beside .9
    np.testing.assert_array_equal(_needed(oracle, pool, np.array([0, 1]), 0.0, 0.89), [0, 1])


def rounds_of(oracle, **options):
    lines = []
    pool, chosen = fixed_size_search(oracle, advance=lines.append, **options)
    return len(lines), pool, chosen


@pytest.mark.parametrize(("seed", "size", "grid"), [(8, 4, 10), (9, 5, 10), (2, 5, 6)])
def test_a_round_adds_the_corners_that_exceed_what_was_reached_and_are_new(random_tensor, seed, size, grid):
    oracle, tolerance = GibbsOracle(random_tensor(seed, 3), 0.05), 0.1
    first = solve_all(oracle, grid_of_size(3, grid))
    tests = Trials(first.weights, first.optimum)
    _, reached, chosen = _least_epsilon(first, tests, oracle.reference, size, 0.0, Effort())
    corners, optimum, served = search._at_corners(oracle, first, chosen)
    expected = {
        tuple(np.round(corner, 9))
        for corner, best, had in zip(corners, optimum, served, strict=True)
        if left(best, had) > reached * (1 + tolerance / 2) and np.abs(first.weights - corner).max(axis=1).min() > 1e-9
    }
    count, pool, _ = rounds_of(oracle, size=size, pool=first, rounds=1, tolerance=tolerance)
    assert count == 1
    added = [tuple(np.round(row, 9)) for row in pool.weights[len(first) :]]
    assert len(expected) >= 2
    assert len(added) == len(expected)
    assert set(added) == expected
    worst = max(zip(corners, optimum, served, strict=True), key=lambda each: left(each[1], each[2]))[0]
    assert added[0] == tuple(np.round(worst, 9))


def test_more_corners_than_fit_a_round_are_added_worst_first(random_tensor, monkeypatch):
    monkeypatch.setattr(search, "_CUTS", 2)
    oracle = GibbsOracle(random_tensor(8, 3), 0.05)
    first = solve_all(oracle, grid_of_size(3, 10))
    chosen = _least_epsilon(first, Trials(first.weights, first.optimum), oracle.reference, 4, 0.0, Effort())[2]
    corners, optimum, served = search._at_corners(oracle, first, chosen)
    order = sorted(range(len(corners)), key=lambda row: -left(optimum[row], served[row]))
    pool = rounds_of(oracle, size=4, pool=first, rounds=1)[1]
    np.testing.assert_allclose(pool.weights[len(first) :], corners[order[:2]])


def test_weights_between_bases_join_a_pool_that_may_grow_only(random_tensor):
    oracle = GibbsOracle(random_tensor(0, 4), 0.1)
    first = solve_all(oracle, np.eye(4))
    assert len(rounds_of(oracle, size=2, pool=first, grow=False, rounds=1)[1]) == 4
    grown = rounds_of(oracle, size=2, pool=first, rounds=1)[1].weights
    assert {tuple(row) for row in search.weights_between(oracle, 2)} <= {tuple(row) for row in grown}


def test_the_search_ends_where_the_bound_is_met(pool_oracle):
    """All policies and corners there are in the pool: one round proves it; a wide tolerance is met at once, a narrow one later."""
    oracle = pool_oracle(np.eye(2), reference=[0.1, 0.1])
    assert rounds_of(oracle, size=2, pool=solve_all(oracle, grid_of_size(2, 3)))[0] == 1


def test_a_wider_tolerance_ends_sooner_and_is_kept_to(random_tensor, portfolio_of):
    oracle = GibbsOracle(random_tensor(3, 3), 0.05)
    pool = solve_all(oracle, grid_of_size(3, 15))
    counts = {}
    for tolerance in (1e-6, 0.5, 3.0):
        lines = []
        fixed_size_search(oracle, size=3, pool=pool, grow=False, tolerance=tolerance, advance=lines.append)
        counts[tolerance] = len(lines)
        reached, bound = (float(lines[-1].split(word)[1].split()[0].rstrip(",")) for word in ("epsilon ", "at least "))
        assert reached <= bound * (1 + tolerance) + 1e-3
        for line in lines[:-1]:
            early, least = (float(line.split(word)[1].split()[0].rstrip(",")) for word in ("epsilon ", "at least "))
            assert early > least * (1 + tolerance) - 1e-3  # else it would have ended there
    assert counts[3.0] < counts[1e-6]


def test_the_best_of_all_rounds_is_kept(random_tensor, portfolio_of):
    """Certified gaps are told as the best so far, and the last told is what the result has."""
    oracle = GibbsOracle(random_tensor(5, 3), 0.05)
    lines = []
    pool, chosen = fixed_size_search(
        oracle, size=3, pool=solve_all(oracle, grid_of_size(3, 10)), grow=False, tolerance=1e-6, advance=lines.append
    )
    told = [float(line.split("epsilon ")[1].split()[0]) for line in lines]
    assert told == sorted(told, reverse=True)
    assert len(told) > 1
    _, optimum, served = search._at_corners(oracle, pool, chosen)
    assert max(left(best, had) for best, had in zip(optimum, served, strict=True)) == pytest.approx(told[-1], abs=6e-5)


@pytest.mark.parametrize(("tolerance", "rounds"), [(0.5, 1), (0.3, 2)])
def test_within_the_tolerance_of_the_bound_no_corner_is_added_though_it_exceeds_what_was_reached(
    pool_oracle, monkeypatch, tolerance, rounds
):
    """The specialists' gap is 40 % in the middle, against a bound of 30 %: within half of it more, not within three tenths."""
    oracle = pool_oracle([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]], reference=[0.1, 0.1])
    monkeypatch.setattr(search, "_least_epsilon", lambda *_: (0.3, 0.3, np.array([0, 1])))
    assert rounds_of(oracle, size=2, pool=solve_all(oracle, np.eye(2)), grow=False, tolerance=tolerance, rounds=5)[0] == rounds


def test_corners_that_were_tried_are_not_added_again(pool_oracle, monkeypatch):
    """All corners of the specialists' cells are among the tests, so a choice that fails there all the same ends the search."""
    oracle = pool_oracle([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]], reference=[0.1, 0.1])
    monkeypatch.setattr(search, "_least_epsilon", lambda *_: (0.1, 0.1, np.array([0, 1])))
    first = solve_all(oracle, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    count, pool, _ = rounds_of(oracle, size=2, pool=first, rounds=5)
    assert (count, len(pool)) == (1, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_no_gap_is_finite_the_smallest_additive_one_is_kept(pool_oracle, monkeypatch, order):
    """One of two policies leaves a vertex with nothing, whichever: of what could be had there 1 is lost, or .7."""
    oracle = pool_oracle([[0.7, 0.0], [0.0, 1.0]], reference=[0.0, 0.0])
    pool, answers = solve_all(oracle, np.array([[0.9, 0.1], [0.1, 0.9]])), iter(order)
    monkeypatch.setattr(search, "_least_epsilon", lambda *_: (0.0, 0.1, np.array([next(answers)])))
    lines = []
    _, chosen = fixed_size_search(oracle, size=1, pool=pool, grow=False, rounds=2, advance=lines.append)
    assert len(lines) == 2
    np.testing.assert_array_equal(chosen, [1])


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
