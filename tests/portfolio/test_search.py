from itertools import combinations

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, certify, plan_portfolio
from palm.portfolio.fixed_size import fixed_size_search, swap_search
from palm.portfolio.grid import grid_of_size
from palm.portfolio.lazy import lazy_search
from palm.portfolio.pool import Pool, served_by, solve_all
from palm.portfolio.search import cut_search
from palm.portfolio.select import Effort
from palm.simplex import sample_simplex


def certified(portfolio_of, oracle, pool, chosen, **given):
    return certify(portfolio_of(oracle, pool.weights[chosen]), oracle, search_bound=False, **given)


@pytest.mark.parametrize(("bases", "epsilon"), [(1, 0.05), (2, 0.005), (3, 0.08), (4, 0.15)])
@pytest.mark.parametrize("exact", [True, False])
def test_cut_search_reaches_what_was_asked_for(random_tensor, portfolio_of, optimum_at, served_at, bases, epsilon, exact):
    rewards, kl = random_tensor(0, bases), 0.1
    oracle = GibbsOracle(rewards, kl)
    pool, chosen = cut_search(oracle, epsilon=epsilon, delta=0.0, exact=exact)
    assert certified(portfolio_of, oracle, pool, chosen).epsilon <= epsilon + 1e-7
    weights = sample_simplex(5000, bases, np.random.default_rng(1))
    served = served_at(portfolio_of(oracle, pool.weights[chosen]), weights)
    assert (optimum_at(rewards, weights, kl) / served - 1).max() <= epsilon + 1e-7


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("epsilon", "delta"), [(0.03, 0.0), (0.0, 0.01), (0.01, 0.005)])
def test_cut_search_keeps_the_fewest_policies_of_a_given_pool(random_tensor, portfolio_of, seed, epsilon, delta):
    oracle = GibbsOracle(random_tensor(seed, 2), 0.05)
    pool, chosen = cut_search(oracle, epsilon=epsilon, delta=delta, pool=solve_all(oracle, grid_of_size(2, 12)))
    assert len(pool) == 12  # a pool that was given does not grow
    assert certified(portfolio_of, oracle, pool, chosen, delta=delta).epsilon <= epsilon + 1e-7
    for fewer in combinations(range(12), len(chosen) - 1):
        assert certified(portfolio_of, oracle, pool, list(fewer), delta=delta).epsilon > epsilon


def test_exact_selection_is_never_larger_than_greedy(random_tensor):
    sizes = []
    for seed in range(5):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.05)
        pool = solve_all(oracle, grid_of_size(3, 80))
        exact, greedy = (cut_search(oracle, epsilon=0.04, delta=0.0, exact=how, pool=pool)[1] for how in (True, False))
        sizes.append((len(exact), len(greedy)))
    assert all(exact <= greedy for exact, greedy in sizes)
    assert any(exact < greedy for exact, greedy in sizes)


@pytest.mark.parametrize("bases", [1, 2, 3])
def test_lazy_search_claims_no_less_than_the_certificate_of_its_pool(random_tensor, portfolio_of, bases):
    oracle = GibbsOracle(random_tensor(1, bases), 0.1)
    for epsilon, most in ((0.01, 1000), (0.01, bases + 1)):
        pool, claimed = lazy_search(oracle, epsilon=epsilon, delta=0.0, most=most)
        proven = certified(portfolio_of, oracle, pool, np.arange(len(pool))).epsilon
        assert proven <= claimed + 1e-9
        assert len(pool) <= most
        assert claimed <= epsilon or len(pool) == most
        np.testing.assert_array_equal(pool.weights[:bases], np.eye(bases))


def test_lazy_search_stops_at_a_pool_that_cannot_be_improved(pool_oracle):
    """Finitely many policies: once all are found the hull meets L everywhere, and a gap of 0 can be asked for."""
    oracle = pool_oracle([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.6, 0.1], [0.5, 0.5, 0.5]], reference=[0.1, 0.1, 0.1])
    pool, claimed = lazy_search(oracle, epsilon=0.0, delta=0.0)
    assert claimed == pytest.approx(0, abs=1e-9)
    assert {tuple(row) for row in pool.value} == {tuple(row) for row in oracle.values}
    assert len(pool) <= 20


@pytest.mark.parametrize("seed", range(6))
def test_lazy_and_cut_agree(random_tensor, portfolio_of, seed):
    """Both reach the gap, and the fewest policies out of the lazy pool are at most one more than out of cut's own."""
    oracle, epsilon = GibbsOracle(random_tensor(seed, 2), 0.1), 0.02
    own, few = cut_search(oracle, epsilon=epsilon, delta=0.0)
    pool, claimed = lazy_search(oracle, epsilon=epsilon / 10, delta=0.0)
    assert claimed <= epsilon / 10
    _, chosen = cut_search(oracle, epsilon=epsilon, delta=0.0, pool=pool)
    for candidates, picked in ((own, few), (pool, chosen)):
        assert certified(portfolio_of, oracle, candidates, picked).epsilon <= epsilon + 1e-7
    assert abs(len(few) - len(chosen)) <= 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_fixed_size_search_finds_the_smallest_gap_of_so_many(random_tensor, portfolio_of, seed, size):
    oracle = GibbsOracle(random_tensor(seed, 2), 0.05)
    pool, chosen = fixed_size_search(oracle, size=size, pool=solve_all(oracle, grid_of_size(2, 11)), grow=False)
    assert len(chosen) <= size
    assert len(pool) == 11
    found = certified(portfolio_of, oracle, pool, chosen).epsilon
    best = min(certified(portfolio_of, oracle, pool, list(few)).epsilon for few in combinations(range(11), size))
    assert best <= found + 1e-9
    assert 1 + found <= (1 + best) * 1.006  # the tolerance that is promised: 0.5 % of epsilon plus rounding
    assert found <= best * 1.006 + 1e-9


def test_fixed_size_search_only_gains_from_a_growing_pool(random_tensor, portfolio_of):
    oracle = GibbsOracle(random_tensor(9, 3), 0.05)
    pool = solve_all(oracle, grid_of_size(3, 15))
    (still, few), (grown, more) = (fixed_size_search(oracle, size=3, pool=pool, grow=grow) for grow in (False, True))
    assert len(still) == 15 < len(grown)
    gaps = [certified(portfolio_of, oracle, *found).epsilon for found in ((still, few), (grown, more))]
    assert gaps[1] <= gaps[0] * 1.01


@pytest.mark.parametrize("seed", range(20))
def test_no_single_swap_improves_what_swapping_chose(seed):
    rng = np.random.default_rng(seed)
    ratio, free = rng.random((12, 8)) ** 2, rng.random(12) + 0.5

    def total(few):  # high powers of what is left at each row, so that the worst rows decide
        return (np.minimum(ratio[:, list(few)].min(axis=1, initial=np.inf), free) ** 12).sum()

    for size in (1, 2, 3):
        chosen = swap_search(ratio, free, size).tolist()
        swaps = [{*chosen} - {old} | {new} for old in chosen for new in range(8)]
        assert len(chosen) == size
        assert total(chosen) <= min(map(total, swaps)) * (1 + 1e-6)
    assert len(swap_search(ratio, free, 20)) <= 8


def test_swapping_leaves_the_trap_that_greedy_choice_falls_into():
    """The middle column is best alone, but of two columns the outer ones are: found only by swapping."""
    ratio = np.array([[0.0, 1.0, 0.45], [0.0, 1.0, 0.45], [1.0, 0.0, 0.45], [1.0, 0.0, 0.45]])
    free = np.full(4, 2.0)
    np.testing.assert_array_equal(swap_search(ratio, free, 1), [2])
    np.testing.assert_array_equal(swap_search(ratio, free, 2), [0, 1])


def test_what_a_pool_serves_is_its_best_policy_or_the_reference():
    pool = Pool(np.eye(2), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0.1, 0.7]), np.array([0.8, 0.1]))
    weights, reference = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.3, 0.4])
    np.testing.assert_allclose(served_by(pool, np.array([0, 1]), weights, reference), [0.8, 0.4])
    np.testing.assert_allclose(served_by(pool, np.array([], dtype=int), weights, reference), [0.3, 0.4])


def test_progress_is_told_every_round(random_tensor):
    lines = []
    oracle = GibbsOracle(random_tensor(0, 3), 0.1)
    cut_search(oracle, epsilon=0.2, delta=0.0, advance=lines.append)
    lazy_search(oracle, epsilon=0.2, delta=0.0, advance=lines.append)
    fixed_size_search(oracle, size=2, effort=Effort(1e3), advance=lines.append)
    assert any("corners open" in line for line in lines)
    assert any("epsilon at most" in line for line in lines)
    assert any("size 2: epsilon" in line for line in lines)


def test_bases_that_agree_need_one_policy() -> None:
    """K copies of one reward: whatever the size asked for, a second policy would change nothing."""
    rewards = np.repeat(np.random.default_rng(0).uniform(size=(6, 8, 1)), 3, axis=2)
    _, chosen = fixed_size_search(GibbsOracle(rewards, 0.1), size=3)
    assert len(chosen) == 1
    assert certify(plan_portfolio(GibbsOracle(rewards, 0.1), size=3), GibbsOracle(rewards, 0.1)).epsilon < 1e-9


def test_a_fixed_size_has_the_smallest_gap_beside_the_delta_that_is_given(portfolio_of):
    """The two that are best without a delta leave 6 % beside 0.03, where others leave nothing."""
    oracle = GibbsOracle(np.random.default_rng(0).random((10, 6, 3)) * [1, 0.3, 0.1], 0.05)
    planned = plan_portfolio(oracle, size=2, delta=0.03).certificate
    assert (planned.epsilon, planned.given_delta) == (0, 0.03)
    assert planned.delta <= 0.03
    pool = solve_all(oracle, grid_of_size(3, 12))
    pairs = list(combinations(range(len(pool)), 2))
    for delta in (0.01, 0.02):
        chosen = fixed_size_search(oracle, size=2, delta=delta, pool=pool, grow=False)[1]
        best = min(certified(portfolio_of, oracle, pool, list(pair), delta=delta).epsilon for pair in pairs)
        assert certified(portfolio_of, oracle, pool, chosen, delta=delta).epsilon <= best * 1.006 + 1e-9


def test_a_size_is_kept_to_where_no_gap_is_finite():
    """With two of three bases served the third gets nothing, whichever they are; nothing at all would be served without."""
    oracle = PoolOracle(np.eye(3), np.zeros(3), reference=np.zeros(3))
    portfolio = plan_portfolio(oracle, size=2)
    assert len(portfolio) == 2
    assert portfolio.certificate.epsilon == np.inf
    assert plan_portfolio(oracle, size=3).certificate.epsilon == 0


@pytest.mark.parametrize("most_cells", [5500, 60])
def test_a_pool_too_large_for_one_program_still_gets_one_or_the_warning_says_so(random_tensor, portfolio_of, caplog, most_cells):
    oracle = GibbsOracle(random_tensor(2, 3), 0.05)
    pool = solve_all(oracle, grid_of_size(3, 80))
    fewest = cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool)[1]
    caplog.clear()
    chosen = cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, effort=Effort(most_cells=most_cells))[1]
    assert certified(portfolio_of, oracle, pool, chosen).epsilon <= 0.04 + 1e-7
    if most_cells > len(pool):
        assert len(chosen) == len(fewest) < len(cut_search(oracle, epsilon=0.04, delta=0.0, pool=pool, exact=False)[1])
        assert caplog.text == ""
    else:
        assert "78 policies on 1 weights are too many for an integer program: " in caplog.text
        assert "integer programs took" not in caplog.text
