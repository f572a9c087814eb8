"""Studentised bounds: against plain loops over the same draws, at a portfolio known by hand, and as prompts grow."""

from types import SimpleNamespace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, certify, optimal_on
from palm.portfolio.cell_means import all_members, own_cells
from palm.portfolio.corners import corner_weights
from palm.portfolio.studentised import studentised_bounds

SIDE = np.array([1, 1, -1])


def numbers(bounds):
    return np.array([bounds.epsilon, bounds.delta, bounds.captured_gain])


@pytest.fixture(scope="module")
def world(random_tensor, portfolio_of):
    """Three policies of three bases planned on 40 prompts, and 50 other prompts."""
    rewards = random_tensor(8, 3, prompts=90)
    oracle = GibbsOracle(rewards[:40], 0.1)
    planned = portfolio_of(oracle, np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    return planned, optimal_on(planned.weights, rewards[40:], np.ones((50, 7), dtype=bool), 0.1)


def samples_at(planned, prompts, weight, member):
    """(P,) OPT_x, utility and the reference's utility at one weight, prompt by prompt."""
    found = []
    for row in range(len(prompts.rewards)):
        reference = prompts.rewards[row].mean(axis=0) @ weight
        optimum = prompts.kl * np.log(np.mean(np.exp(prompts.rewards[row] @ weight / prompts.kl)))
        own = reference if member == len(planned.weights) else prompts.value[member, row] @ weight - prompts.cost[member, row]
        found.append((optimum, own, reference))
    return np.array(found).T


def pairs_of(planned):
    """Pairs of a corner and the members planned to be best there."""
    values = np.vstack([planned.value - planned.cost[:, None], planned.reference])
    pairs = []
    for corner in corner_weights(values):
        heights = values @ corner
        pairs += [(corner, member) for member in np.flatnonzero(heights >= heights.max() - 1e-7)]
    return pairs


def test_means_are_those_of_each_member_at_the_corners_of_its_own_cell_and_of_all_members(world):
    planned, prompts = world
    above, below = own_cells(planned, prompts), all_members(planned, prompts)
    expected = pairs_of(planned)
    assert len(above) == len(expected) > 3
    for position, (corner, member) in enumerate(expected):
        optimum, own, base = samples_at(planned, prompts, corner, member)
        np.testing.assert_allclose(above.optimum[:, position], optimum, atol=1e-12)
        np.testing.assert_allclose(above.utility[:, position], own, atol=1e-12)
        np.testing.assert_allclose(above.gain[:, position], optimum - base, atol=1e-12)
        np.testing.assert_allclose(above.regret[:, position], optimum - own, atol=1e-12)
    assert len(below) == 4 * len({tuple(corner) for corner, _ in expected})
    assert below.member.tolist() == [0, 1, 2, 3] * (len(below) // 4)
    optimum, own, _ = samples_at(planned, prompts, below.weights[6], 2)
    np.testing.assert_allclose(below.regret[:, 6], optimum - own, atol=1e-12)


def simultaneous(samples, draws, seed, tail):
    """Bounds from above and below on the means of (n, P) samples, draw by draw."""
    size, rng, up, down = samples.shape[1], np.random.default_rng(seed), [], []
    mean, error = samples.mean(axis=1), samples.std(axis=1, ddof=1) / np.sqrt(samples.shape[1])
    for _ in range(draws):
        drawn = samples[:, rng.integers(size, size=size)]
        ratio = (drawn.mean(axis=1) - mean) / (drawn.std(axis=1, ddof=1) / np.sqrt(size))
        up.append(max((-ratio).max(), 0))
        down.append(max(ratio.max(), 0))
    place = int(np.ceil((1 - tail) * (draws + 1))) - 1
    return mean + np.sort(up)[place] * error, mean - np.sort(down)[place] * error


@pytest.mark.parametrize("tail", [0.05, 0.2])
def test_ends_are_where_the_bounds_of_a_plain_recount_reach_0(world, tail):
    planned, prompts = world
    given = {"draws": 99, "seed": 3}
    worst, best = studentised_bounds(planned, prompts, tail=tail, **given)
    triples = np.array([samples_at(planned, prompts, *pair) for pair in pairs_of(planned)])
    optimum, own, base = triples[:, 0], triples[:, 1], triples[:, 2]
    corners = list(dict.fromkeys(tuple(corner) for corner, _ in pairs_of(planned)))
    every = np.array([samples_at(planned, prompts, np.array(corner), member) for corner in corners for member in range(4)])

    def upper(samples):
        return simultaneous(samples, tail=tail, **given)[0].max()

    def lower(samples):
        return simultaneous(samples, tail=tail, **given)[1].reshape(-1, 4).min(axis=1).max()

    assert worst.delta == pytest.approx(upper(optimum - own), rel=1e-9)
    assert best.delta == pytest.approx(max(lower(every[:, 0] - every[:, 1]), 0), rel=1e-9)
    for share, sign in ((worst.epsilon + 1e-5, -1), (worst.epsilon - 1e-5, 1)):
        assert np.sign(upper(optimum - own - share * own)) == sign
    for share, sign in ((1 - worst.captured_gain + 1e-5, -1), (1 - worst.captured_gain - 1e-5, 1)):
        assert np.sign(upper(optimum - own - share * (optimum - base))) == sign
    for share, sign in ((best.epsilon + 1e-5, -1), (best.epsilon - 1e-5, 1)):
        assert np.sign(lower(every[:, 0] - every[:, 1] - share * every[:, 1])) == sign
    for share, sign in ((1 - best.captured_gain + 1e-5, -1), (1 - best.captured_gain - 1e-5, 1)):
        assert np.sign(lower(every[:, 0] - every[:, 1] - share * (every[:, 0] - every[:, 2]))) == sign


def test_both_ends_close_in_on_the_certificate_as_prompts_grow(world):
    planned, prompts = world
    oracle = GibbsOracle(prompts.rewards, prompts.kl)
    planned = planned.revalued(oracle)  # so that the planned cells are those of these prompts and only sampling is left
    found = certify(planned, oracle, search_bound=False)
    truth = np.array([found.epsilon, found.delta, found.captured_gain])
    widths = []
    for times in (1, 100):
        rows = np.tile(np.arange(50), times)
        on = optimal_on(planned.weights, prompts.rewards[rows], prompts.mask[rows], prompts.kl)
        worst, best = (numbers(end) for end in studentised_bounds(planned, on, tail=0.05, draws=60))
        assert (worst * SIDE >= truth * SIDE).all()
        assert (best * SIDE <= truth * SIDE).all()
        widths.append(np.abs(worst - best))
    assert (widths[1] < 0.13 * widths[0]).all()  # a tenth, and what the skew of 50 prompts adds


def test_a_given_gap_is_taken_off(world):
    planned, prompts = world
    plain, _ = studentised_bounds(planned, prompts, tail=0.05, draws=60)
    given, optimistic = studentised_bounds(planned, prompts, tail=0.05, draws=60, epsilon=0.05, delta=0.02)
    assert plain.epsilon - 0.08 < given.epsilon < plain.epsilon - 0.02
    assert plain.delta - 0.05 < given.delta < plain.delta - 0.01
    assert given.captured_gain == plain.captured_gain
    assert (optimistic.epsilon, optimistic.delta) <= (given.epsilon, given.delta)


def test_numbers_that_do_not_vary_are_bounded_by_themselves():
    """Every prompt the same: OPT is 1/2 + what two candidates add, the reference 1/2, and nothing is uncertain."""
    kl = 0.1
    rewards = np.tile(np.array([[[0.0], [1.0]]]), (20, 1, 1))
    planned = SimpleNamespace(weights=np.zeros((0, 1)), value=np.zeros((0, 1)), cost=np.zeros(0), reference=np.array([0.4]))
    on = optimal_on(np.zeros((0, 1)), rewards, np.ones((20, 2), bool), kl)
    optimum = kl * np.log((1 + np.exp(1 / kl)) / 2)
    for end in studentised_bounds(planned, on, tail=0.05, draws=40):
        np.testing.assert_allclose(numbers(end), [optimum / 0.5 - 1, optimum - 0.5, 0], atol=1e-6)


def test_a_gap_without_bound_is_said_to_be_without_bound():
    """One prompt in twelve has any reward: the reference's could be 0, and no epsilon will do."""
    rewards = np.zeros((12, 3, 1))
    rewards[0, 0] = 1
    planned = SimpleNamespace(weights=np.zeros((0, 1)), value=np.zeros((0, 1)), cost=np.zeros(0), reference=np.array([0.1]))
    on = optimal_on(np.zeros((0, 1)), rewards, np.ones((12, 3), bool), 0.1)
    worst, best = studentised_bounds(planned, on, tail=0.05, draws=40)
    assert worst.epsilon == np.inf
    assert worst.delta > on.gaps(np.ones(12)).delta > best.delta >= 0
