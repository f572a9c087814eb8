"""palm.portfolio.next_weight against brute force over a fine grid of weights."""

from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, Portfolio, certify
from palm.portfolio.next_weight import NEAR, hardest_weight, needed


@pytest.fixture
def oracle() -> GibbsOracle:
    return GibbsOracle(np.random.default_rng(0).beta(0.6, 0.6, size=(6, 12, 3)), kl=0.1)


def portfolio_at(oracle: GibbsOracle, weights: np.ndarray) -> Portfolio:
    empty = Portfolio(
        weights, np.zeros_like(weights), np.zeros(len(weights)), oracle.reference, oracle.kl, tuple(map(str, range(len(weights))))
    )
    return empty.revalued(oracle)


def grid(steps: int = 60) -> np.ndarray:
    first, second = np.meshgrid(np.arange(steps + 1), np.arange(steps + 1), indexing="ij")
    there = first + second <= steps
    return np.column_stack([first[there], second[there], steps - first[there] - second[there]]) / steps


def epsilon_at(portfolio: Portfolio, oracle: GibbsOracle, weights: np.ndarray, delta: float = 0.0) -> np.ndarray:
    return (oracle.optimum(weights) - delta) / portfolio.served(weights) - 1


@pytest.mark.parametrize("delta", [0.0, 0.05])
def test_no_weight_of_a_fine_grid_is_harder(oracle: GibbsOracle, delta: float) -> None:
    portfolio = portfolio_at(oracle, np.array([[0.4, 0.4, 0.2]]))
    found = hardest_weight(portfolio, oracle, epsilon=0.01, delta=delta)
    assert found is not None
    hardest = epsilon_at(portfolio, oracle, found[None, :], delta)[0]
    assert hardest >= epsilon_at(portfolio, oracle, grid(), delta).max() - 1e-12
    assert hardest == pytest.approx(certify(portfolio, oracle, delta=delta).epsilon)


def test_the_target_ends_the_search(oracle: GibbsOracle) -> None:
    portfolio = portfolio_at(oracle, np.array([[0.4, 0.4, 0.2]]))
    gap = certify(portfolio, oracle).epsilon
    assert hardest_weight(portfolio, oracle, epsilon=gap * 0.999) is not None
    assert hardest_weight(portfolio, oracle, epsilon=gap * 1.001) is None
    assert hardest_weight(portfolio, oracle, epsilon=0.0, delta=1.0) is None


def test_weights_that_did_not_help_are_not_asked_for_again(oracle: GibbsOracle) -> None:
    """Near them nothing is asked for, farther away the hardest; when all corners are spent, nothing is left."""
    portfolio = portfolio_at(oracle, np.array([[0.4, 0.4, 0.2]]))
    spent: list[np.ndarray] = []
    while (found := hardest_weight(portfolio, oracle, epsilon=0.0, spent=np.array(spent))) is not None:
        assert all(np.abs(found - other).sum() > NEAR for other in spent)
        spent.append(found)
    gaps = [epsilon_at(portfolio, oracle, weight[None, :])[0] for weight in spent]
    assert gaps == sorted(gaps, reverse=True)
    assert len(spent) >= 3
    assert all(any(np.abs(vertex - weight).sum() <= NEAR for weight in spent) for vertex in np.eye(3))


def test_what_the_gap_needs(oracle: GibbsOracle) -> None:
    """A copy and a policy that is worse everywhere go, the copy that came last first; what carries the gap stays."""
    weights = np.array([[0.4, 0.4, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.2, 0.4, 0.4]])
    portfolio = portfolio_at(oracle, weights)
    value = portfolio.value.copy()
    value[4] = value[0] - 0.3
    portfolio = replace(portfolio, value=value, cost=np.append(portfolio.cost[:4], 0.5))

    def gap(places: list[int]) -> float:
        kept = replace(
            portfolio,
            weights=weights[places],
            value=value[places],
            cost=portfolio.cost[places],
            ids=tuple(str(place) for place in places),
        )
        return certify(kept, oracle).epsilon

    kept = needed(portfolio, oracle, among=[1, 2, 3, 4])
    assert kept[0] == 0
    assert 4 not in kept
    assert 3 not in kept
    assert gap(kept) == pytest.approx(gap([0, 1, 2, 3, 4]), abs=1e-12)
    for place in kept[1:]:
        assert gap([other for other in kept if other != place]) > gap(kept) + 1e-9
    assert needed(portfolio, oracle, among=[]) == [0, 1, 2, 3, 4]


def test_an_infinite_gap_says_of_no_policy_that_it_is_not_needed() -> None:
    """Where nothing gives anything every ratio is infinite; beside a reference that gives something the same policies can go."""
    oracle = GibbsOracle(np.array([[[0.6, 0.5], [0.3, 0.7]]]), kl=0.1)
    useless = Portfolio(np.eye(2), np.zeros((2, 2)), np.zeros(2), oracle.reference, 0.1, ("a", "b"))
    assert needed(useless, oracle, among=[0, 1]) == []
    assert needed(replace(useless, reference=np.zeros(2)), oracle, among=[0, 1]) == [0, 1]


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_bad_targets(oracle: GibbsOracle, bad: float) -> None:
    portfolio = portfolio_at(oracle, np.eye(3))
    with pytest.raises(ValueError, match="epsilon: expected a number of at least 0, got"):
        hardest_weight(portfolio, oracle, epsilon=bad)
    with pytest.raises(ValueError, match="delta: expected a number of at least 0, got"):
        needed(portfolio, oracle, delta=bad, among=[])


def test_bad_positions_and_bases(oracle: GibbsOracle) -> None:
    portfolio = portfolio_at(oracle, np.eye(3))
    with pytest.raises(ValueError, match=r"among: expected positions from 0 to 2, got \[3\]"):
        needed(portfolio, oracle, among=[3])
    with pytest.raises(ValueError, match="oracle: expected 3 bases as the policies have, got 2"):
        hardest_weight(portfolio, GibbsOracle(np.ones((1, 2, 2))), epsilon=0.1)


def test_no_policies_and_one_basis(oracle: GibbsOracle) -> None:
    none = portfolio_at(oracle, np.zeros((0, 3)))
    found = hardest_weight(none, oracle, epsilon=0.0)
    assert found is not None
    assert found.max() == 1.0, "against the reference alone the gap is convex"
    assert needed(none, oracle, among=[]) == []
    single = GibbsOracle(np.array([[[0.2], [0.9]]]), kl=0.1)
    assert hardest_weight(portfolio_at(single, np.zeros((0, 1))), single, epsilon=0.0) == pytest.approx([1.0])
    assert hardest_weight(portfolio_at(single, np.ones((1, 1))), single, epsilon=1e-9) is None


def test_what_is_given_decides_which_weight_is_hardest() -> None:
    """Where utility is small a ratio is large; with an additive gap given, the weight of the large utility is the harder one."""
    rewards = np.random.default_rng(1).beta([0.1, 0.6, 5.0], [3.0, 0.6, 5.0], size=(6, 12, 3))
    oracle = GibbsOracle(rewards, kl=0.1)
    portfolio = portfolio_at(oracle, np.zeros((0, 3)))
    found = {delta: hardest_weight(portfolio, oracle, epsilon=0.0, delta=delta) for delta in (0.0, 0.025)}
    for delta, weight in found.items():
        assert weight is not None
        assert (
            epsilon_at(portfolio, oracle, weight[None, :], delta)[0]
            >= epsilon_at(portfolio, oracle, np.eye(3), delta).max() - 1e-12
        )
    assert not np.allclose(found[0.0], found[0.025]), "or this test says nothing"


def test_a_weight_beside_one_that_did_not_help_is_left_alone(oracle: GibbsOracle) -> None:
    portfolio = portfolio_at(oracle, np.array([[0.4, 0.4, 0.2]]))
    first = hardest_weight(portfolio, oracle, epsilon=0.0)
    assert first is not None
    for away, same in ((NEAR / 2, False), (2 * NEAR, True)):
        beside = first + away / 2 * (np.roll(np.eye(3)[int(first.argmax())], 1) - np.eye(3)[int(first.argmax())])
        found = hardest_weight(portfolio, oracle, epsilon=0.0, spent=beside[None, :])
        assert found is not None
        assert np.allclose(found, first) == same


def test_the_copy_that_came_last_goes_and_a_given_gap_lets_more_go(oracle: GibbsOracle) -> None:
    weights = np.vstack([np.full(3, 1 / 3), np.eye(3), np.eye(3)[:2]])
    portfolio = portfolio_at(oracle, weights)
    kept = needed(portfolio, oracle, among=range(1, 6))
    assert not {4, 5} & set(kept)
    assert set(kept) > {0}
    assert needed(portfolio, oracle, delta=1.0, among=range(1, 6)) == [0]
