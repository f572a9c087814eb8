import json

import numpy as np
import pytest

from palm.artifacts import ArtifactError
from palm.portfolio import (
    CallbackOracle,
    GibbsOracle,
    Population,
    certify,
    extend,
    plan_curve,
    plan_portfolio,
    refine_for_users,
    refine_weights,
)
from palm.portfolio.incompatible import incompatible_weights
from palm.simplex import sample_simplex


@pytest.fixture
def trained(random_tensor):
    """(bases[, miss, folder, slack]) -> (oracle, exact, calls): training is solving a Gibbs oracle, `miss` of value short."""

    def make(bases, miss=0.0, folder=None, slack=None, seed=0):
        exact, calls = GibbsOracle(random_tensor(seed, bases), 0.1), []

        def train(weight):
            calls.append(tuple(weight))
            solution = exact.solve(weight)
            return solution.value[0] - miss * np.abs(np.sin(100 * weight.sum() + 50 * weight[0])), solution.cost[0]

        slack = miss if slack is None else slack
        return CallbackOracle(train, bases, exact.reference, 0.1, slack, folder=folder), exact, calls

    return make


@pytest.mark.parametrize("bases", [1, 2, 3])
@pytest.mark.parametrize("miss", [0.0, 0.02])
def test_bounds_hold_at_weights_that_were_never_solved(trained, bases, miss):
    oracle, exact, calls = trained(bases, miss)
    oracle.solve(np.vstack([np.eye(bases), sample_simplex(6, bases, np.random.default_rng(0))]))
    count, weights = len(calls), sample_simplex(500, bases, np.random.default_rng(1))
    truth = exact.optimum(weights)
    assert (oracle.upper_bound(weights) >= truth - 1e-12).all()
    assert (oracle.lower_bound(weights) <= truth + 1e-12).all()
    assert (oracle.lower_bound(weights) >= weights @ oracle.reference).all()
    assert (oracle.optimum(weights) + oracle.slack >= truth - 1e-12).all()
    assert (oracle.optimum(weights) >= oracle.lower_bound(weights)).all()
    middle = oracle.upper_bound(0.5 * (weights[:-1] + weights[1:]))
    assert (middle <= 0.5 * (oracle.upper_bound(weights[:-1]) + oracle.upper_bound(weights[1:])) + 1e-12).all()
    assert len(calls) == count
    if miss == 0:
        np.testing.assert_allclose(oracle.upper_bound(oracle.weights), exact.optimum(oracle.weights), atol=1e-12)


def test_the_same_weight_is_never_trained_twice(trained):
    oracle, exact, calls = trained(2)
    first = oracle.solve(np.array([[0.25, 0.75], [1.0, 0.0], [0.25, 0.75]]))
    again = oracle.solve(np.array([[1.0, 0.0], [0.25 + 1e-10, 0.75 - 1e-10]]))
    assert len(calls) == len(oracle) == 2
    np.testing.assert_allclose(first.value[[1, 0]], again.value)
    np.testing.assert_allclose(first.optimum, exact.optimum(np.array([[0.25, 0.75], [1.0, 0.0], [0.25, 0.75]])), atol=1e-12)
    assert oracle.solve(np.array([[0.25 + 1e-6, 0.75 - 1e-6]])).value.shape == (1, 2)
    assert len(calls) == 3


@pytest.mark.parametrize("miss", [0.0, 0.01])
@pytest.mark.parametrize("bases", [2, 3])
def test_a_plan_trains_only_in_its_search_and_its_certificate_holds_for_the_true_optimum(trained, bases, miss):
    oracle, exact, calls = trained(bases, miss)
    portfolio = plan_portfolio(oracle, epsilon=0.1, method="lazy")
    assert len(calls) == len(set(calls)) == portfolio.solves == len(oracle)
    found = certify(portfolio, oracle)
    assert len(calls) == portfolio.solves
    assert found.epsilon == pytest.approx(portfolio.certificate.epsilon, abs=1e-12)
    weights = sample_simplex(3000, bases, np.random.default_rng(0))
    gaps = exact.optimum(weights) / portfolio.served(weights) - 1
    assert gaps.max() <= found.epsilon + 1e-9
    assert certify(portfolio, exact, search_bound=False).epsilon <= found.epsilon + 1e-9
    assert certify(portfolio, exact, search_bound=False).captured_gain >= found.captured_gain - 1e-9
    assert found.size_at_least <= len(portfolio)
    assert any(f"at most {oracle.slack:g}" in line for line in found.assumptions) == (miss > 0)
    if miss == 0:
        assert found.epsilon <= 0.1 + 1e-6


def test_where_only_vertices_are_solved_the_certificate_rests_on_chords(trained):
    oracle, exact, _ = trained(2)
    portfolio = plan_portfolio(oracle, method="vertices", epsilon=0.01)
    found, middle = portfolio.certificate, np.array([[0.5, 0.5]])
    chord = exact.optimum(np.eye(2)).mean()
    np.testing.assert_allclose(oracle.upper_bound(middle), chord, atol=1e-12)
    assert exact.optimum(middle)[0] < chord - 1e-3
    assert found.epsilon >= chord / portfolio.served(middle)[0] - 1 - 1e-12


def test_incompatible_weights_are_those_of_the_true_optimum_at_most(trained):
    for miss in (0.0, 0.02):
        oracle, exact, _ = trained(2, miss)
        grid = np.column_stack([t := np.linspace(0, 1, 11), 1 - t])
        oracle.solve(grid[::2])
        for epsilon in (0.005, 0.02, 0.05):
            known = incompatible_weights(oracle, grid, epsilon=epsilon, delta=0.0)
            truth = incompatible_weights(exact, grid, epsilon=epsilon, delta=0.0)
            assert len(known) <= len(truth)


def test_results_survive_a_crash_and_are_taken_up_again(trained, tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    oracle, _, calls = trained(2, folder=folder)
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    train = oracle._function

    def dies(weight):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(weight)

    monkeypatch.setattr(oracle, "_function", dies)
    with pytest.raises(KeyboardInterrupt):
        oracle.solve(weights)
    later, exact, calls = trained(2, folder=folder)
    assert len(later) == 2
    solution = later.solve(weights)
    assert calls == [(0.3, 0.7)]
    np.testing.assert_allclose(solution.value, exact.solve(weights).value, rtol=1e-14)
    np.testing.assert_array_equal(solution.value[:2], oracle.value)
    assert [path.name for path in folder.iterdir()] == ["solved.json"]  # nothing half-written is left


def test_results_of_another_oracle_or_damaged_ones_are_refused(trained, tmp_path):
    oracle, _, _ = trained(2, folder=tmp_path)
    oracle.solve(np.eye(2))
    with pytest.raises(ArtifactError, match=r"expected results for kl = 0.2, got those for 0.1"):
        CallbackOracle(oracle._function, 2, oracle.reference, 0.2, folder=tmp_path)
    with pytest.raises(ArtifactError, match=r"expected results for reference = \[0.0, 0.0\]"):
        CallbackOracle(oracle._function, 2, np.zeros(2), 0.1, folder=tmp_path)
    path = tmp_path / "solved.json"
    record = json.loads(path.read_text())
    for damage in (
        {"format": "other"},
        {"policies": [{"weight": [0.5, 0.5]}]},
        {"policies": [{**record["policies"][0], "cost": None}]},
    ):
        path.write_text(json.dumps({**record, **damage}))
        with pytest.raises(ArtifactError, match=r"solved.json: (expected the format|not complete results)"):
            CallbackOracle(oracle._function, 2, oracle.reference, 0.1, folder=tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match="expected complete JSON"):
        CallbackOracle(oracle._function, 2, oracle.reference, 0.1, folder=tmp_path)


def test_a_slack_that_measurements_contradict_is_widened_and_said(trained, caplog):
    """The policy for (1, 0) is bad, and the one for (0.9, 0.1) shows it."""
    values = {(1.0, 0.0): [0.3, 0.2], (0.0, 1.0): [0.1, 0.9], (0.9, 0.1): [0.8, 0.5]}
    oracle = CallbackOracle(lambda weight: (values[tuple(weight)], 0.0), 2, np.array([0.1, 0.1]), 0.1, 0.05)
    oracle.solve(np.eye(2))
    assert oracle.slack == 0.05
    oracle.solve(np.array([[0.9, 0.1]]))
    assert oracle.slack == pytest.approx(0.8 - 0.3)
    assert "more than the slack of 0.05" in caplog.text
    assert (oracle.upper_bound(np.array([[1.0, 0.0]])) >= 0.8 - 1e-12).all()


def test_without_the_vertices_nothing_is_bounded(trained):
    oracle, _, calls = trained(3)
    oracle.solve(np.eye(3)[:2])
    with pytest.raises(ValueError, match="expected every vertex of the simplex to be solved before OPT can be bounded, basis 2 is"):
        oracle.upper_bound(np.eye(3))
    assert len(calls) == 2


def test_hundreds_of_trainings_are_not_started_by_default(trained):
    oracle, _, calls = trained(2)
    with pytest.raises(ValueError, match="method: expected 'lazy' or fixed weights for an oracle that trains, got 'cut'"):
        plan_portfolio(oracle)
    assert calls == []


@pytest.mark.parametrize(
    "result",
    [
        None,
        0.5,
        ([0.1, 0.2], np.nan),
        ([0.1, np.inf], 0.0),
        ([0.1], 0.0),
        ([0.1, 0.2], -0.1),
        ([0.1, 0.2], [0.1]),
        ([0.1, -0.2], 0),
        ("x", 0),
    ],
)
def test_what_is_no_measurement_is_refused_with_its_weight_and_not_remembered(result):
    oracle = CallbackOracle(lambda weight: result, 2, np.zeros(2), 0.1)
    with pytest.raises(ValueError, match=r"function: expected a value of 2 finite numbers .* for weight \[0.5, 0.5\], got"):
        oracle.solve(np.array([0.5, 0.5]))
    assert len(oracle) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bases": 0}, "bases: expected a whole number of at least 1, got 0"),
        ({"bases": True}, "bases: expected a whole number of at least 1, got True"),
        ({"reference": np.zeros(3)}, "reference: expected 2 finite numbers"),
        ({"reference": np.array([0.1, np.nan])}, "reference: expected 2 finite numbers"),
        ({"reference": np.array([0.1, -0.2])}, "reference: expected at least 0, got -0.2 for basis 1"),
        ({"kl": -1.0}, "kl: expected a number of at least 0, got -1.0"),
        ({"slack": np.nan}, "slack: expected a number of at least 0, got nan"),
        ({"slack": True}, "slack: expected a number of at least 0, got True"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        CallbackOracle(**{"function": print, "bases": 2, "reference": np.zeros(2), "kl": 0.1, **arguments})


def test_every_training_for_a_captured_gain_is_counted_and_used(trained):
    oracle, exact, calls = trained(3)
    portfolio = plan_portfolio(oracle, captured_gain=0.5, method="lazy")
    assert len(calls) == portfolio.solves == len(oracle)
    assert portfolio.certificate.captured_gain >= 0.5 - 1e-9
    assert certify(portfolio, exact, search_bound=False).captured_gain >= 0.5 - 1e-9


def test_bases_alone_are_all_that_is_trained_for_a_captured_gain_too(trained):
    oracle, _, calls = trained(3, seed=4)
    portfolio = plan_portfolio(oracle, captured_gain=0.5, method="vertices")
    assert len(calls) == portfolio.solves == 3
    opposed = CallbackOracle(lambda weight: (calls.append(0) or weight, 0.0), 3, np.full(3, 0.4), 0.1)
    calls.clear()
    with pytest.raises(ValueError, match="captured_gain: expected a share above 0 and at most 1, got 2"):
        plan_portfolio(opposed, captured_gain=2, method="vertices")
    assert calls == []
    with pytest.raises(
        ValueError, match=r"weights, most_solves: the 3 policies solved leave some weight with utility \(or gain\) 0"
    ):
        plan_portfolio(opposed, captured_gain=0.9, method="vertices")
    assert len(calls) == 3


@pytest.mark.parametrize("seed", [0, 1, 3, 5, 6])
def test_a_gain_that_is_nothing_but_rounding_is_none(trained, seed):
    """Between two bases the reference is as good as either's policy: there nothing is gained, whichever way 1e-17 falls."""
    oracle, _, calls = trained(3, seed=seed)
    with pytest.raises(ValueError, match=r"the 3 policies solved leave some weight with utility \(or gain\) 0"):
        plan_portfolio(oracle, captured_gain=0.5, method="vertices")
    assert len(calls) == 3


@pytest.mark.parametrize("aim", [{"epsilon": 1e-4}, {"captured_gain": 0.99}, {"size": 2}])
def test_no_more_is_trained_than_was_allowed_and_what_is_proven_is_said(trained, caplog, aim):
    oracle, exact, calls = trained(3)
    portfolio = plan_portfolio(oracle, **aim, method="lazy", most_solves=5)
    assert len(calls) == portfolio.solves == 5
    assert ("5 policies solved prove" in caplog.text) == ("size" not in aim)
    assert 0 < certify(portfolio, exact, search_bound=False).epsilon <= portfolio.certificate.epsilon
    assert len(plan_portfolio(oracle, **aim, method="lazy", most_solves=5)) == len(portfolio)
    assert len(calls) == 5


def test_that_nothing_can_be_gained_somewhere_is_found_with_few_trainings(random_tensor):
    """Two opposed bases: in the middle every candidate has the same reward, and near it no share of the gain can be had."""
    rewards = random_tensor(0, 1)
    exact, calls = GibbsOracle(np.dstack([rewards, 1 - rewards]), 0.1), []

    def train(weight):
        calls.append(weight)
        solution = exact.solve(weight)
        return solution.value[0], solution.cost[0]

    oracle = CallbackOracle(train, 2, exact.reference, 0.1)
    with pytest.raises(ValueError, match=r"captured_gain: expected something to gain .* got none at \[0.5"):
        plan_portfolio(oracle, captured_gain=0.9, method="lazy")
    assert len(calls) <= 10
    assert plan_portfolio(oracle, captured_gain=0.9, delta=0.01, method="lazy").solves <= 20


@pytest.mark.parametrize("most", [2, 0, 3.5, True])
def test_fewer_solves_than_bases_prove_nothing(trained, most):
    oracle, _, calls = trained(3)
    with pytest.raises(ValueError, match=f"most_solves: expected a whole number of at least K = 3, got {most}"):
        plan_portfolio(oracle, method="lazy", most_solves=most)
    assert calls == []


def test_what_solves_hundreds_of_weights_refuses_an_oracle_that_trains(trained, random_tensor):
    oracle, _, calls = trained(2)
    users = Population(np.eye(2), np.ones(2))
    one = plan_portfolio(GibbsOracle(random_tensor(0, 1), 0.1), epsilon=0.5)
    for name, call in {
        "plan_curve": lambda: plan_curve(oracle, sizes=[1, 2]),
        "extend": lambda: extend(one, oracle),
        "refine_weights": lambda: refine_weights(oracle, np.eye(2)),
        "refine_for_users": lambda: refine_for_users(oracle, np.eye(2), users),
    }.items():
        with pytest.raises(ValueError, match=f"oracle: expected one that is cheap to solve, for {name} solves hundreds of weights"):
            call()
    assert calls == []
