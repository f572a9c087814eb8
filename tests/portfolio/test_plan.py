import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, plan_portfolio


def gap_on(oracle, portfolio, count=3000, delta=0.0):
    weights = np.random.default_rng(5).dirichlet(np.full(oracle.bases, 0.7), size=count)
    return ((oracle.optimum(weights) - delta) / portfolio.served(weights) - 1).max()


@pytest.mark.parametrize("bases", [1, 2, 3, 4])
@pytest.mark.parametrize("method", ["cut", "lazy"])
@pytest.mark.parametrize("select", ["milp", "greedy"])
def test_what_was_asked_for_is_reached_and_certified(random_tensor, bases, method, select):
    oracle, epsilon = GibbsOracle(random_tensor(1, bases), 0.2), 0.1 if bases < 4 else 0.2
    portfolio = plan_portfolio(oracle, epsilon=epsilon, method=method, select=select)
    assert portfolio.certificate.epsilon <= epsilon + 1e-6
    assert gap_on(oracle, portfolio) <= portfolio.certificate.epsilon + 1e-9
    assert len(portfolio) >= portfolio.certificate.size_at_least
    solution = oracle.solve(portfolio.weights)
    np.testing.assert_allclose(portfolio.value, solution.value, atol=1e-12)
    np.testing.assert_allclose(portfolio.cost, solution.cost, atol=1e-12)
    assert portfolio.kl == 0.2
    assert portfolio.solves >= len(portfolio)


@pytest.mark.parametrize(("method", "delta"), [("grid", 0.2), ("uniform", 0.0), ("random", 0.0)])
def test_fixed_weights_reach_what_their_pool_can(random_tensor, method, delta):
    oracle = GibbsOracle(random_tensor(2, 3), 0.2)
    few, many = (plan_portfolio(oracle, epsilon=0.1, delta=delta, method=method, weights=count) for count in (3, 100))
    assert gap_on(oracle, many, delta=delta) <= many.certificate.epsilon + 1e-9
    assert many.certificate.epsilon <= 0.1 + 1e-6
    assert many.certificate.given_delta == delta
    if method != "grid":  # three weights cannot reach it, and say so
        assert few.certificate.epsilon > 0.1
        assert few.solves == 3


@pytest.mark.parametrize("method", ["cut", "lazy", "uniform"])
def test_a_size_is_kept_to_and_more_policies_leave_a_smaller_gap(random_tensor, method):
    oracle = GibbsOracle(random_tensor(3, 3), 0.05)
    gaps = []
    for size in (1, 2, 4):
        portfolio = plan_portfolio(oracle, size=size, method=method, epsilon=0.1)
        assert len(portfolio) <= size
        assert gap_on(oracle, portfolio) <= portfolio.certificate.epsilon + 1e-9
        gaps.append(portfolio.certificate.epsilon)
    assert gaps[0] > gaps[1] > gaps[2]


def test_one_policy_for_two_opposed_bases_is_the_compromise_known_by_hand(two_sided):
    """By symmetry one policy can do no better than the reference at the worse vertex, which is free: nothing is gained."""
    oracle, kl = two_sided(0.3), 0.3
    at_vertex = kl * np.log((np.exp(1 / kl) + 1) / 2)
    one = plan_portfolio(oracle, size=1)
    assert one.certificate.epsilon == pytest.approx(at_vertex / 0.5 - 1)

    # Two mirrored policies and the reference in between: every such pair, on a fine net of weights of the one half.
    weights = np.column_stack([t := np.linspace(0.5, 1, 1001), 1 - t])
    solution = oracle.solve(weights)
    served = np.maximum(solution.value @ weights.T - solution.cost[:, None], 0.5)  # (policy, weight)
    best = (oracle.optimum(weights) / served).max(axis=1).min() - 1
    two = plan_portfolio(oracle, size=2).certificate
    assert best * 0.99 <= two.epsilon <= best * 1.02


def test_the_bases_alone_are_a_plan_with_the_gap_that_they_leave(random_tensor, portfolio_of):
    oracle = GibbsOracle(random_tensor(3, 3), 0.05)
    portfolio = plan_portfolio(oracle, epsilon=0.01, method="vertices")
    assert portfolio.solves == 3
    assert {tuple(row) for row in portfolio.weights} <= {tuple(row) for row in np.eye(3)}
    assert portfolio.certificate.epsilon == pytest.approx(certify(portfolio_of(oracle, np.eye(3)), oracle).epsilon, rel=1e-5)
    assert portfolio.certificate.epsilon > 0.01


@pytest.mark.parametrize("wish", [{"size": 3}, {"epsilon": 0.1}, {"size": 2, "delta": 0.02}, {"size": 4, "method": "uniform"}])
def test_refined_plans_are_never_worse_and_count_their_solves(random_tensor, wish):
    better = 0
    for seed in range(2):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.05)
        plain, refined = (plan_portfolio(oracle, **wish, refine=refine) for refine in (False, True))
        assert len(refined) == len(plain)
        assert refined.certificate.epsilon <= plain.certificate.epsilon + 1e-9
        assert gap_on(oracle, refined, delta=wish.get("delta", 0.0)) <= refined.certificate.epsilon + 1e-9
        assert refined.solves > plain.solves
        solution = oracle.solve(refined.weights)
        np.testing.assert_allclose(refined.value, solution.value, atol=1e-12)
        better += refined.certificate.epsilon < plain.certificate.epsilon * 0.995
    assert better >= 1


def test_a_population_gets_less_regret_than_from_a_plan_for_everyone(random_tensor):
    oracle = GibbsOracle(random_tensor(4, 3), 0.05)
    users = np.random.default_rng(0).dirichlet([6, 3, 0.5], size=80)

    def regret(portfolio):
        return (oracle.optimum(users) - portfolio.served(users)).mean()

    everyone, theirs, refined = (
        plan_portfolio(oracle, size=2, **wish)
        for wish in ({}, {"select": "population", "users": users}, {"select": "population", "users": users, "refine": True})
    )
    assert len(theirs) == len(refined) == 2
    assert regret(theirs) < 0.8 * regret(everyone)
    assert regret(refined) <= regret(theirs) + 1e-12
    assert everyone.certificate.epsilon < theirs.certificate.epsilon  # which still is over every weight
    assert gap_on(oracle, theirs) <= theirs.certificate.epsilon + 1e-9
    fair = plan_portfolio(oracle, size=2, select="population", users=users, welfare=-30.0)
    worst = [(p.served(users) / oracle.optimum(users)).min() for p in (theirs, fair)]
    assert worst[1] > worst[0]


def test_nothing_is_trained_where_the_reference_is_good_enough(random_tensor):
    for oracle in (GibbsOracle(np.full((2, 3, 3), 0.4), 0.1), GibbsOracle(random_tensor(0, 3), 1e4)):
        portfolio = plan_portfolio(oracle, epsilon=0.01)
        assert len(portfolio) == 0
        assert portfolio.value.shape == (0, 3)
        assert portfolio.certificate.epsilon <= 0.01
        assert portfolio.certificate.size_at_least == 0
        assert portfolio.ids == ()


def test_missing_candidates_are_left_out_of_the_plan(random_tensor):
    rewards = random_tensor(4, 3)
    mask = np.ones(rewards.shape[:2], dtype=bool)
    mask[:, 4:] = False
    first = plan_portfolio(GibbsOracle(rewards, 0.1, mask=mask), epsilon=0.05)
    second = plan_portfolio(GibbsOracle(rewards[:, :4], 0.1), epsilon=0.05)
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-9)
    assert first.certificate.epsilon == pytest.approx(second.certificate.epsilon, abs=1e-9)


def test_the_same_seed_gives_the_same_plan_and_another_seed_other_weights(random_tensor):
    oracle = GibbsOracle(random_tensor(5, 3), 0.1)
    first, again, other = (plan_portfolio(oracle, method="random", weights=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert first.certificate.epsilon == again.certificate.epsilon
    assert first.weights.shape != other.weights.shape or not np.allclose(first.weights, other.weights)


def test_of_the_fewest_those_are_kept_that_leave_less(random_tensor):
    smaller = 0
    for seed in range(4):
        oracle = GibbsOracle(random_tensor(seed, 3), 0.1)
        best, first = plan_portfolio(oracle, epsilon=0.15), plan_portfolio(oracle, epsilon=0.15, select="greedy")
        assert len(best) <= len(first)
        assert best.certificate.epsilon <= 0.15 + 1e-9
        smaller += len(best) == len(first) and best.certificate.epsilon < 0.9 * first.certificate.epsilon
        share = plan_portfolio(oracle, captured_gain=0.5)
        assert share.certificate.captured_gain >= 0.5 - 1e-9
    assert smaller >= 2


def test_names_of_the_bases_travel_with_the_plan(two_sided):
    assert plan_portfolio(two_sided(0.1), names=("kürze", "暖かさ")).bases == ("kürze", "暖かさ")
    with pytest.raises(ValueError, match=r"names: expected 2 names, one per basis, got \['one'\]"):
        plan_portfolio(two_sided(0.1), names=("one",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": -0.1}, "epsilon: expected a finite number of at least 0, got -0.1"),
        ({"epsilon": np.inf}, "epsilon: expected a finite number of at least 0, got inf"),
        ({"epsilon": True}, "epsilon: expected a finite number of at least 0, got True"),
        ({"delta": np.nan}, "delta: expected a finite number of at least 0, got nan"),
        ({"epsilon": 0.0}, "epsilon, delta: expected one of them to be positive, got 0 and 0"),
        ({"size": 0}, "size: expected a whole number of at least 1, got 0"),
        ({"size": 2.5}, "size: expected a whole number of at least 1, got 2.5"),
        ({"size": "two"}, "size: expected a whole number of at least 1, got 'two'"),
        ({"epsilon": "small"}, "epsilon: expected a finite number of at least 0, got 'small'"),
        ({"size": True}, "size: expected a whole number of at least 1, got True"),
        ({"method": "magic"}, "method: expected one of cut, lazy, grid, uniform, random, vertices, got 'magic'"),
        ({"select": "best"}, "select: expected 'milp', 'greedy' or 'population', got 'best'"),
        ({"select": "population", "size": 2}, "users: expected their weights for select 'population', got None"),
        (
            {"select": "population", "users": np.eye(2)},
            "size: expected how many policies to keep for select 'population', got None",
        ),
        ({"users": np.eye(2)}, "users: expected none for select 'milp', which covers every weight"),
        ({"welfare": 0.5}, "welfare: expected none for select 'milp'; it goes with users"),
        ({"select": "population", "size": 1, "users": np.eye(2), "welfare": 1.5}, "welfare: expected a finite power of at most 1"),
        ({"select": "population", "size": 1, "users": np.eye(2), "welfare": -np.inf}, "welfare: expected a finite power of at m"),
        ({"select": "population", "size": 1, "users": np.eye(2), "welfare": True}, "welfare: expected a finite power of at most 1"),
        ({"select": "population", "size": 1, "users": np.eye(3)}, "users: expected 2 columns, one per basis, got 3"),
        (
            {"select": "population", "size": 1, "users": np.zeros((0, 2))},
            r"users: expected the shape .* none of them 0, got \(0, 2\)",
        ),
        ({"select": "population", "size": 1, "users": np.array([[0.5, np.nan]])}, r"users: expected finite numbers"),
        ({"weights": 0}, "weights: expected a whole number of at least 1, got 0"),
        ({"weights": "a"}, "weights: expected a whole number of at least 1, got 'a'"),
        ({"weights": 2.5}, "weights: expected a whole number of at least 1, got 2.5"),
        ({"weights": True}, "weights: expected a whole number of at least 1, got True"),
        ({"captured_gain": "x"}, "captured_gain: expected a share above 0 and at most 1, got 'x'"),
        ({"names": "ab"}, "names: expected 2 names, one per basis, got 'ab'"),
        ({"names": ("a", "a")}, "names: expected another name for every basis, got 'a' more than once"),
        ({"names": None}, "names: expected 2 names, one per basis, got None"),
        ({"names": ("a", " ")}, "names: expected a line of text that can be printed for every basis, got ' '"),
        ({"names": ("a", "b\nc")}, r"names: expected a line of text that can be printed for every basis, got 'b\\nc'"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 1.5}, "seed: expected an integer of at least 0, got 1.5"),
        ({"epsilon": 9e-7}, "epsilon: expected at least 1e-06, or a positive delta, got 9e-07"),
        (
            {"size": 2, "method": "uniform", "weights": 5001},
            r"weights: expected a pool of at most 5,000 weights to choose size = 2 policies from, got 5,001",
        ),
        (
            {"size": 2, "method": "grid", "epsilon": 1e-3, "delta": 1e-3},
            r"epsilon, delta: expected a grid of at most 5,000 weights to choose size = 2 policies from, got 13,",
        ),
        ({"method": "grid"}, "delta: expected a positive number for method 'grid', got 0.0"),
    ],
)
def test_bad_wishes_are_refused_by_name(two_sided, arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_portfolio(two_sided(0.1), **arguments)


def test_names_are_refused_before_anything_is_solved(two_sided, monkeypatch):
    oracle = two_sided(0.1)
    monkeypatch.setattr(oracle, "solve", None)
    with pytest.raises(ValueError, match="names: expected 2 names"):
        plan_portfolio(oracle, names=("one",))


def test_a_captured_gain_needs_no_epsilon(random_tensor):
    portfolio = plan_portfolio(GibbsOracle(random_tensor(1, 2), 0.2), captured_gain=0.6, epsilon=0.0)
    assert portfolio.certificate.captured_gain >= 0.6 - 1e-9
