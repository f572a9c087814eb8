"""palm.portfolio.certify.worst_gap: every formula of the certificate, weight by weight and by hand."""

import numpy as np
import pytest

from palm.portfolio.certify import worst_gap


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.03), (0.1, 0.02)])
@pytest.mark.parametrize("seed", range(5))
def test_numbers_and_places_are_those_of_a_recount(seed, epsilon, delta):
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.1, 0.4, 30)
    served = base + rng.uniform(0.0, 0.3, 30)
    optimum = served + rng.uniform(0.0, 0.2, 30)
    gap = worst_gap(optimum, served, base, given_epsilon=epsilon, given_delta=delta)
    ratios = [(o - delta) / s - 1 for o, s in zip(optimum, served, strict=True)]
    missing = [o - (1 + epsilon) * s for o, s in zip(optimum, served, strict=True)]
    shares = [(s - b) / (o - b) for o, s, b in zip(optimum, served, base, strict=True)]
    allowed = [(s + delta - b) / (o - b) for o, s, b in zip(optimum, served, base, strict=True)]
    assert gap.epsilon == pytest.approx(max(0.0, *ratios), abs=1e-14)
    assert gap.delta == pytest.approx(max(0.0, *missing), abs=1e-14)
    assert gap.captured_gain == pytest.approx(min(1.0, *shares), abs=1e-14)
    assert gap.captured_given_delta == pytest.approx(min(1.0, *allowed), abs=1e-14)
    assert gap.at_epsilon == np.argmax(ratios)
    assert gap.at_delta == np.argmax(missing)
    assert gap.at_captured == np.argmin(shares)
    assert gap.at_captured_given_delta == np.argmin(allowed)


def test_each_number_is_tight_where_it_is_attained():
    """One weight with OPT .6, L_S .5 and .3 of the reference: 20 %, .1, two thirds; with .03 allowed 14 %, and .23 of .3."""
    one = [np.array([value]) for value in (0.6, 0.5, 0.3)]
    gap = worst_gap(*one, given_epsilon=0.1, given_delta=0.03)
    assert gap.epsilon == pytest.approx(0.57 / 0.5 - 1)
    assert gap.delta == pytest.approx(0.6 - 1.1 * 0.5)
    assert gap.captured_gain == pytest.approx(2 / 3)
    assert gap.captured_given_delta == pytest.approx(0.23 / 0.3)


def test_more_than_asked_for_is_no_more_than_all():
    gap = worst_gap(np.array([0.5]), np.array([0.5]), np.array([0.4]), given_epsilon=0.2, given_delta=0.2)
    assert (gap.epsilon, gap.delta, gap.captured_gain, gap.captured_given_delta) == (0.0, 0.0, 1.0, 1.0)


def test_where_nothing_is_to_be_gained_all_of_it_is_had():
    gap = worst_gap(np.array([0.4, 0.5]), np.array([0.4, 0.45]), np.array([0.4, 0.4]))
    assert gap.captured_gain == pytest.approx(0.5)
    assert gap.at_captured == 1
    assert worst_gap(np.array([0.4]), np.array([0.4]), np.array([0.4])).captured_gain == 1.0


def test_nothing_served_of_something_is_infinitely_far():
    gap = worst_gap(np.array([0.2, 0.1]), np.array([0.2, 0.0]), np.zeros(2))
    assert gap.epsilon == np.inf
    assert gap.at_epsilon == 1
    assert worst_gap(np.array([0.2, 0.1]), np.array([0.2, 0.0]), np.zeros(2), given_delta=0.1).epsilon == 0.0


def test_a_gain_that_is_rounding_of_the_largest_optimum_is_none():
    gap = worst_gap(np.array([1.0, 1e-20]), np.array([0.75, 0.0]), np.array([0.5, 0.0]), given_delta=1e-19)
    assert gap.captured_gain == pytest.approx(0.5)
    assert gap.at_captured == 0
    assert worst_gap(np.array([1e-20]), np.array([0.0]), np.array([0.0]), size=1e-20).captured_gain == 0.0


def test_no_epsilon_will_do_where_one_that_serves_others_spoils_negative_utilities():
    """The first weight asks for 50 %, at which -1 counts as -1.5, less than the optimum's -1.2 there."""
    optimum, served = np.array([1.5, -1.2]), np.array([1.0, -1.0])
    assert worst_gap(optimum, served, served).epsilon == np.inf
    assert worst_gap(np.array([1.0, -1.2]), served, served).epsilon == 0.0
