"""palm.portfolio.certify: what the bounds on the size are asked with, and what is made of their answers."""

import sys

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify
from palm.portfolio.gains import GainOracle

module = sys.modules["palm.portfolio.certify"]  # the package's attribute of that name is the function


@pytest.fixture
def planned(random_tensor, portfolio_of):
    """An oracle and a portfolio that is good enough for nobody, with corners of many shares of OPT and of the gain."""
    oracle = GibbsOracle(random_tensor(3, 3), 0.05)
    return portfolio_of(oracle, np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5]])), oracle


@pytest.fixture
def asked(monkeypatch):
    """Keeps what is asked of the two searches for incompatible weights; each answers with as many as `answers` says."""
    calls, answers = [], {"own": 2, "grid": 1}

    def own(oracle, weights, *, epsilon, delta):
        calls.append(("own", oracle, weights, epsilon, delta))
        return np.full((answers["own"], oracle.bases), 0.25)

    def grid(oracle, *, epsilon, delta):
        calls.append(("grid", oracle, None, epsilon, delta))
        return np.full((answers["grid"], oracle.bases), 0.75)

    monkeypatch.setattr(module, "incompatible_weights", own)
    monkeypatch.setattr(module, "incompatible_on_grid", grid)
    calls.clear()
    return calls, answers


def at_corners(portfolio, oracle):
    corners = module.corner_weights(module.folded(portfolio.value, portfolio.cost, portfolio.reference))
    served = np.maximum((corners @ portfolio.value.T - portfolio.cost).max(axis=1), corners @ portfolio.reference)
    return corners, oracle.optimum(corners), served, corners @ portfolio.reference


def test_the_bound_is_asked_at_the_gap_with_the_hardest_corners_first(planned, asked):
    portfolio, oracle = planned
    found = certify(portfolio, oracle, delta=0.004)
    corners, optimum, served, _ = at_corners(portfolio, oracle)
    hardest = sorted(range(len(corners)), key=lambda row: served[row] / optimum[row])[:48]
    (kind, whose, weights, epsilon, delta), other = asked[0]
    assert (kind, whose, epsilon, delta) == ("own", oracle, found.epsilon, 0.004)
    np.testing.assert_array_equal(weights, np.vstack([portfolio.weights, corners[hardest]]))
    assert other == ("grid", oracle, None, found.epsilon, 0.004)


def test_the_bound_for_the_captured_gain_is_asked_of_gains(planned, asked):
    portfolio, oracle = planned
    found = certify(portfolio, oracle, delta=0.004, search_bound=False, captured_bound=True)
    corners, optimum, served, base = at_corners(portfolio, oracle)
    hardest = sorted(range(len(corners)), key=lambda row: (served[row] - base[row]) / (optimum[row] - base[row]))[:48]
    assert len(asked[0]) == 2
    for kind, whose, _, epsilon, delta in asked[0]:
        assert kind in ("own", "grid")
        assert isinstance(whose, GainOracle)
        assert epsilon == pytest.approx(1 / found.captured_gain_given_delta - 1, rel=1e-12)
        assert delta == pytest.approx(0.004 / found.captured_gain_given_delta, rel=1e-12)
    np.testing.assert_array_equal(asked[0][0][2], np.vstack([portfolio.weights, corners[hardest]]))
    assert found.captured_gain_given_delta < 1


@pytest.mark.parametrize(("own", "grid"), [(2, 1), (1, 2), (0, 0), (3, 3)])
def test_the_more_of_both_are_kept(planned, asked, own, grid):
    asked[1].update(own=own, grid=grid)
    found = certify(*planned, captured_bound=True)
    assert found.size_at_least == max(own, grid, 1)  # that the reference does not suffice is known without a search
    assert found.captured_size_at_least == max(own, grid)
    expected = np.full((max(own, grid), 3), 0.75 if grid > own else 0.25)
    np.testing.assert_array_equal(found.incompatible, expected)
    np.testing.assert_array_equal(found.captured_incompatible, expected)


def test_a_bound_above_the_portfolios_own_size_is_cut_to_it(planned, asked):
    asked[1].update(own=5, grid=4)
    found = certify(*planned, captured_bound=True)
    assert (found.size_at_least, found.captured_size_at_least) == (3, 3)
    assert len(found.incompatible) == len(found.captured_incompatible) == 3


def test_given_weights_are_the_only_ones_looked_at(planned, asked):
    among = np.eye(3)
    certify(*planned, incompatible_among=among, captured_bound=True)
    assert [kind for kind, *_ in asked[0]] == ["own", "own"]
    for _, _, weights, _, _ in asked[0]:
        np.testing.assert_array_equal(weights, among)


def test_no_bound_is_looked_for_unless_wanted_and_there(planned, asked, pool_oracle, portfolio_of):
    certify(*planned, search_bound=False)
    assert asked[0] == []
    nothing_had = pool_oracle([[1, 0], [0, 1]], reference=[0, 0])
    found = certify(portfolio_of(nothing_had, np.eye(2)[:1]), nothing_had, captured_bound=True)
    assert (found.epsilon, found.captured_gain_given_delta) == (np.inf, 0.0)
    assert asked[0] == []
    assert (found.size_at_least, found.captured_size_at_least) == (0, 0)
