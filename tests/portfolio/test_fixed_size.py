"""palm.portfolio.fixed_size: what each step decides, recounted on pools small enough to try every choice."""

from itertools import combinations

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, fixed_size
from palm.portfolio.fixed_size import _epsilon_left, _least_epsilon, _needed, fixed_size_search, swap_search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.pool import Pool, Trials, solve_all
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
    free[rng.random(10) < (0.3, 0.3, 1.0)[seed % 3]] = np.inf  # 1: the reference serves no row at all
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


@pytest.mark.parametrize("seed", range(6))
def test_integer_programs_mend_the_poorest_choice(seed, monkeypatch):
    """Swapping hardly ever leaves them anything on so small a pool: here it is made to choose the worst."""
    pool, tests, reference = random_pool(seed)
    best = min(left_by(pool, tests, reference, few, 0.0) for few in combinations(range(len(pool)), 2))
    monkeypatch.setattr(fixed_size, "swap_search", lambda ratio, free, size: np.array([int(ratio.sum(axis=0).argmax())]))
    bound, reached, chosen = _least_epsilon(pool, tests, reference, 2, 0.0, Effort())
    assert bound == pytest.approx(best, abs=1e-9)
    assert left_by(pool, tests, reference, chosen, 0.0) == pytest.approx(best, abs=1e-9) == pytest.approx(reached, abs=1e-9)


def test_a_test_that_the_reference_serves_to_the_level_needs_no_policy(monkeypatch):
    """At the first vertex the reference leaves .3 and each policy more; at the second the first policy leaves .1."""
    pool = Pool(np.eye(2), np.array([[0.3, 0.9], [0.2, 0.5]]), np.zeros(2), np.zeros(2))
    tests, reference = Trials(np.eye(2), np.array([0.65, 0.99])), np.array([0.5, 0.1])
    monkeypatch.setattr(fixed_size, "swap_search", lambda *_: np.array([1]))
    bound, reached, chosen = _least_epsilon(pool, tests, reference, 1, 0.0, Effort())
    assert bound == pytest.approx(0.3)
    assert reached == pytest.approx(0.3)
    np.testing.assert_array_equal(chosen, [0])


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
    monkeypatch.setattr(fixed_size, "swap_search", lambda ratio, free, size: np.array([int(ratio.sum(axis=0).argmax())]))

    def gives_up(covers, size, *, effort):
        effort.units = 0.0

    monkeypatch.setattr(fixed_size, "cover_within", gives_up)
    bound, reached, _ = _least_epsilon(pool, tests, reference, 2, 0.0, Effort())
    best = min(left_by(pool, tests, reference, few, 0.0) for few in combinations(range(len(pool)), 2))
    assert bound <= best < reached


def test_an_answer_found_with_the_last_of_the_effort_is_kept(monkeypatch):
    pool, tests, reference = random_pool(1)
    best = min(combinations(range(len(pool)), 2), key=lambda few: left_by(pool, tests, reference, few, 0.0))
    worst = np.array([max(range(len(pool)), key=lambda one: left_by(pool, tests, reference, [one], 0.0))])
    monkeypatch.setattr(fixed_size, "swap_search", lambda ratio, free, size: worst)

    def finds(covers, size, *, effort):
        effort.units = 0.0
        return np.array(best)

    monkeypatch.setattr(fixed_size, "cover_within", finds)
    np.testing.assert_array_equal(_least_epsilon(pool, tests, reference, 2, 0.0, Effort())[2], best)


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
    corners, optimum, served = fixed_size._at_corners(oracle, first, chosen)
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
    monkeypatch.setattr(fixed_size, "_CUTS", 2)
    oracle = GibbsOracle(random_tensor(8, 3), 0.05)
    first = solve_all(oracle, grid_of_size(3, 10))
    chosen = _least_epsilon(first, Trials(first.weights, first.optimum), oracle.reference, 4, 0.0, Effort())[2]
    corners, optimum, served = fixed_size._at_corners(oracle, first, chosen)
    order = sorted(range(len(corners)), key=lambda row: -left(optimum[row], served[row]))
    pool = rounds_of(oracle, size=4, pool=first, rounds=1)[1]
    np.testing.assert_allclose(pool.weights[len(first) :], corners[order[:2]])


def test_weights_between_bases_join_a_pool_that_may_grow_only(random_tensor):
    oracle = GibbsOracle(random_tensor(0, 4), 0.1)
    first = solve_all(oracle, np.eye(4))
    assert len(rounds_of(oracle, size=2, pool=first, grow=False, rounds=1)[1]) == 4
    grown = rounds_of(oracle, size=2, pool=first, rounds=1)[1].weights
    assert {tuple(row) for row in fixed_size.weights_between(oracle, 2)} <= {tuple(row) for row in grown}


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
    _, optimum, served = fixed_size._at_corners(oracle, pool, chosen)
    assert max(left(best, had) for best, had in zip(optimum, served, strict=True)) == pytest.approx(told[-1], abs=6e-5)


@pytest.mark.parametrize(("tolerance", "rounds"), [(0.5, 1), (0.3, 2)])
def test_within_the_tolerance_of_the_bound_no_corner_is_added_though_it_exceeds_what_was_reached(
    pool_oracle, monkeypatch, tolerance, rounds
):
    """The specialists' gap is 40 % in the middle, against a bound of 30 %: within half of it more, not within three tenths."""
    oracle = pool_oracle([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]], reference=[0.1, 0.1])
    monkeypatch.setattr(fixed_size, "_least_epsilon", lambda *_: (0.3, 0.3, np.array([0, 1])))
    assert rounds_of(oracle, size=2, pool=solve_all(oracle, np.eye(2)), grow=False, tolerance=tolerance, rounds=5)[0] == rounds


def test_corners_that_were_tried_are_not_added_again(pool_oracle, monkeypatch):
    """All corners of the specialists' cells are among the tests, so a choice that fails there all the same ends the search."""
    oracle = pool_oracle([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]], reference=[0.1, 0.1])
    monkeypatch.setattr(fixed_size, "_least_epsilon", lambda *_: (0.1, 0.1, np.array([0, 1])))
    first = solve_all(oracle, np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    count, pool, _ = rounds_of(oracle, size=2, pool=first, rounds=5)
    assert (count, len(pool)) == (1, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_where_no_gap_is_finite_the_smallest_additive_one_is_kept(pool_oracle, monkeypatch, order):
    """One of two policies leaves a vertex with nothing, whichever: of what could be had there 1 is lost, or .7."""
    oracle = pool_oracle([[0.7, 0.0], [0.0, 1.0]], reference=[0.0, 0.0])
    pool, answers = solve_all(oracle, np.array([[0.9, 0.1], [0.1, 0.9]])), iter(order)
    monkeypatch.setattr(fixed_size, "_least_epsilon", lambda *_: (0.0, 0.1, np.array([next(answers)])))
    lines = []
    _, chosen = fixed_size_search(oracle, size=1, pool=pool, grow=False, rounds=2, advance=lines.append)
    assert len(lines) == 2
    np.testing.assert_array_equal(chosen, [1])
