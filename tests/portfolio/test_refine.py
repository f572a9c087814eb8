import numpy as np
import pytest

import palm.portfolio.refine as module
from palm.portfolio import GibbsOracle, PoolOracle, Population, certify, plan_portfolio, refine_for_users, refine_weights
from palm.simplex import sample_simplex


def certified(portfolio_of, oracle, weights, delta=0.0):
    return certify(portfolio_of(oracle, weights), oracle, delta=delta, search_bound=False).epsilon


@pytest.mark.parametrize("bases", [2, 3, 4])
@pytest.mark.parametrize("delta", [0.0, 0.01])
def test_the_certified_gap_shrinks_and_never_grows(random_tensor, portfolio_of, bases, delta):
    shrunk = []
    for seed in range(8):
        oracle = GibbsOracle(random_tensor(seed, bases), 0.05)
        weights = sample_simplex(1 + seed % 4, bases, np.random.default_rng(seed))
        found = refine_weights(oracle, weights, delta=delta)
        assert found.before == pytest.approx(certified(portfolio_of, oracle, weights, delta), abs=1e-12)
        assert found.after == pytest.approx(certified(portfolio_of, oracle, found.weights, delta), abs=1e-9)
        assert found.after <= found.before
        np.testing.assert_allclose(found.value, oracle.solve(found.weights).value, atol=1e-12)
        np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
        assert found.weights.min() >= 0
        shrunk.append(found.after < 0.8 * found.before)
    assert sum(shrunk) >= 5


def test_two_mirrored_policies_go_where_a_fine_net_has_the_best_pair(two_sided):
    oracle = two_sided(0.3)
    weights = np.column_stack([t := np.linspace(0.5, 1, 1001), 1 - t])
    solution = oracle.solve(weights)
    served = np.maximum(solution.value @ weights.T - solution.cost[:, None], 0.5)
    best = (oracle.optimum(weights) / served).max(axis=1).min() - 1
    for start in ([[0.95, 0.05], [0.2, 0.8]], [[0.6, 0.4], [0.35, 0.65]]):
        assert refine_weights(oracle, np.array(start)).after == pytest.approx(best, rel=2e-2)


def test_the_best_choice_from_a_grid_is_not_the_best_position(random_tensor):
    for seed in range(4):
        oracle = GibbsOracle(random_tensor(seed, 3, prompts=8), 0.05)
        plan = plan_portfolio(oracle, size=3, method="uniform", weights=60)
        assert refine_weights(oracle, plan.weights).after < 0.99 * plan.certificate.epsilon


def test_where_nothing_moves_the_weights_stay(random_tensor):
    oracle = GibbsOracle(random_tensor(0, 3), 0.05)
    none = refine_weights(oracle, np.zeros((0, 3)))
    assert none.weights.shape == (0, 3)
    assert none.before == none.after > 0
    one = refine_weights(GibbsOracle(random_tensor(0, 1), 0.05), np.ones((1, 1)))
    assert one.after == one.before
    pool = PoolOracle([[1, 0], [0, 1], [0.6, 0.6]], np.zeros(3), reference=[0.2, 0.2])  # steps, not slopes
    stays = refine_weights(pool, np.eye(2))
    np.testing.assert_array_equal(stays.weights, np.eye(2))
    assert stays.after == stays.before == pytest.approx(0.2)
    beyond = refine_weights(PoolOracle([[1, 0], [0, 1]], np.zeros(2), reference=[0, 0]), np.eye(2)[:1])
    assert np.isinf(beyond.after)
    flat = refine_weights(GibbsOracle(np.full((2, 3, 3), 0.5), 0.1), np.eye(3))
    assert flat.after == flat.before == pytest.approx(0, abs=1e-12)
    twice = refine_weights(oracle, np.full((2, 3), 1 / 3))  # the same policy twice
    assert twice.after <= twice.before


def test_rounds_and_solves_are_counted(random_tensor):
    lines, solved = [], []
    oracle = GibbsOracle(random_tensor(1, 3), 0.05)
    solve = oracle.solve
    oracle.solve = lambda weights: (solved.append(len(weights)), solve(weights))[1]
    found = refine_weights(oracle, np.eye(3), rounds=3, advance=lines.append)
    assert found.solves == sum(solved) <= 3 + 3 * (9 + 3)
    assert 1 <= len(lines) <= 3
    assert "refined: epsilon" in lines[0]


@pytest.mark.parametrize("welfare", [None, 1.0, 0.0, -4.0])
def test_for_users_regret_shrinks_or_welfare_grows_and_never_the_other_way(random_tensor, welfare):
    better = 0
    for seed in range(6):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.05)
        users = Population.of(np.random.default_rng(seed).dirichlet([1, 2, 0.5], size=40), oracle)
        start = sample_simplex(2, 3, np.random.default_rng(seed))
        found = refine_for_users(oracle, start, users, welfare=welfare)
        worth = []
        for weights in (start, found.weights):
            solution = oracle.solve(weights)
            served = np.maximum((users.weights @ solution.value.T - solution.cost).max(axis=1), users.weights @ oracle.reference)
            worth.append(-users.regret(served) if welfare is None else users.welfare(served, welfare))
        assert worth[1] >= worth[0] - 1e-12
        assert (found.after < found.before) == (worth[1] > worth[0] + 1e-13)
        better += worth[1] > worth[0] + 1e-3
    assert better >= 4


def test_one_policy_for_users_is_the_optimum_at_their_mean(random_tensor):
    oracle = GibbsOracle(random_tensor(2, 3), 0.5)
    weights = np.random.default_rng(0).dirichlet([5, 5, 5], size=20)
    found = refine_for_users(oracle, np.array([[0.5, 0.3, 0.2]]), Population.of(weights, oracle))
    np.testing.assert_allclose(found.weights, weights.mean(axis=0)[None], atol=1e-8)
    assert refine_for_users(oracle, np.zeros((0, 3)), Population.of(weights, oracle)).solves == 0


def test_from_the_best_position_every_move_that_is_tried_is_refused(random_tensor):
    for seed in range(3):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.05)
        start = refine_weights(oracle, sample_simplex(3, 3, np.random.default_rng(seed)))
        for rounds in range(5):
            assert refine_weights(oracle, start.weights, rounds=rounds).after <= start.after


@pytest.mark.parametrize("welfare", [None, -8.0, -30.0])
def test_for_users_every_round_is_at_least_as_good_as_the_one_before(random_tensor, welfare):
    for seed in range(12):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.02)
        users = Population.of(np.random.default_rng(seed).dirichlet(np.full(3, 0.5), size=25), oracle)
        start = sample_simplex(3, 3, np.random.default_rng(seed))
        after = [refine_for_users(oracle, start, users, welfare=welfare, rounds=rounds).after for rounds in range(8)]
        assert (np.diff(after) <= 1e-12 * np.abs(after[0])).all()


@pytest.mark.parametrize("welfare", [None, 1.0, 0.0, -4.0])
def test_users_count_by_how_fast_their_loss_falls(welfare):
    users, step = Population(np.eye(3), np.array([1.0, 0.8, 0.5])), 1e-6
    served = np.array([0.4, 0.6, 0.45])
    falls = -(users.losses(served + step, welfare, scale=served) - users.losses(served, welfare, scale=served)) / step
    counts = module._importance(users, served, welfare)
    np.testing.assert_allclose(counts / counts.sum(), falls / falls.sum(), rtol=1e-4)
