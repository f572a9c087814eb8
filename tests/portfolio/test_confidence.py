"""Bounds over the distribution of prompts: do they cover a truth that is known, and are they what the formulas say?"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, OnPrompts, Portfolio, certify, confidence, held_out_confidence, optimal_on, plan_portfolio
from palm.portfolio.bernstein import bernstein_bounds, largest_regret
from palm.portfolio.confidence import Confidence
from palm.portfolio.on_prompts import resampled_gaps


def world(bases, kl, epsilon):
    """A population of 3,000 prompts, a portfolio planned on 200 others, and the population's true gaps."""
    rng = np.random.default_rng(bases)
    centre = rng.beta(0.8, 1.2, size=(3200, 1, bases))
    rewards = np.clip(centre + rng.normal(scale=0.25, size=(3200, 5, bases)), 0, 1)
    planned = plan_portfolio(GibbsOracle(rewards[:200], kl), epsilon=epsilon)
    people = optimal_on(planned.weights, rewards[200:], np.ones((3000, 5), dtype=bool), kl)
    return planned, people, certify(planned.revalued(GibbsOracle(rewards[200:], kl)), GibbsOracle(rewards[200:], kl))


def drawn(people, rows):
    return OnPrompts(people.rewards[rows], people.mask[rows], people.kl, people.value[:, rows], people.cost[:, rows])


def numbers(bounds):
    return np.array([bounds.epsilon, bounds.delta, bounds.captured_gain])


SIDE = np.array([1, 1, -1])  # what is on the safe side: gaps from above, captured gain from below


def test_every_bound_and_interval_covers_the_true_gap_in_at_least_95_percent_of_200_draws():
    planned, people, whole = world(2, 0.1, 0.05)
    truth = numbers(whole)
    hits, misses_of_estimate = np.zeros((3, 3)), np.zeros(3)
    for repeat in range(200):
        rows = np.random.default_rng([1, repeat]).integers(3000, size=200)
        found = confidence(planned, drawn(people, rows), draws=60, seed=repeat)
        hits[0] += numbers(found.bernstein) * SIDE >= truth * SIDE
        hits[1] += numbers(found.bootstrap) * SIDE >= truth * SIDE
        hits[2] += (numbers(found.low) <= truth) & (truth <= numbers(found.high))
        misses_of_estimate += numbers(found.estimate) * SIDE < truth * SIDE
    assert (hits >= 190).all(), hits
    assert (misses_of_estimate > 20).all()  # without an allowance for sampling none of them would


@pytest.mark.parametrize("bases", [3, 4])
def test_bernstein_bounds_cover_with_more_bases_and_come_down_to_the_gap_as_prompts_grow(bases):
    planned, people, whole = world(bases, 0.2, 0.04)
    truth = numbers(whole)
    widths = []
    for prompts in (60, 600, 30_000):
        found = []
        for repeat in range(200 if prompts == 60 else 2):
            rows = np.random.default_rng([2, repeat]).integers(3000, size=prompts)
            found.append(numbers(bernstein_bounds(planned, drawn(people, rows))[0]))
        covered = (np.array(found) * SIDE >= truth * SIDE).mean(axis=0)
        assert (covered >= 0.95).all()
        widths.append(np.abs(np.median(found, axis=0) - truth))
    assert (widths[0][:2] > widths[1][:2]).all()
    assert (widths[1] > widths[2]).all()  # the captured gain needs more prompts to be bounded at all
    assert widths[2][:2].max() < 0.02


@pytest.mark.parametrize("kl", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("length", [1e-5, 0.2, 1.0, 2.0])
def test_the_range_of_a_regret_is_attained_by_two_points_and_exceeded_by_no_distribution(kl, length):
    share = np.concatenate([np.linspace(0, 1, 20_001), np.geomspace(1e-12, 1, 20_001)])
    upper = kl * np.logaddexp(np.log1p(-np.minimum(share, 1 - 1e-16)), np.log(np.maximum(share, 1e-300)) + length / kl)
    most = float((upper - share * length).max())
    bound = float(largest_regret(np.array([length]), kl)[0])
    assert bound == pytest.approx(most, rel=1e-4, abs=1e-13)
    rng = np.random.default_rng(0)
    for _ in range(200):
        z = rng.beta(0.2, 0.2 + 3 * rng.random(), size=6) * length
        assert kl * np.log(np.exp((z - z.max()) / kl).mean()) + z.max() - z.mean() <= bound + 1e-12
    assert largest_regret(np.zeros(1), kl)[0] == 0


@pytest.mark.parametrize(("size", "some"), [(40, 10), (4000, 2000)])
def test_bounds_are_maurer_and_pontils_at_a_portfolio_known_by_hand(size, some):
    """K = 1 and no policy: one corner, one member. Every prompt has the candidates 0 and 1, or 0 twice: regret h or 0."""
    kl, level = 0.1, 0.9
    rewards = np.zeros((size, 2, 1))
    rewards[:some, 1] = 1
    planned = SimpleNamespace(weights=np.zeros((0, 1)), value=np.zeros((0, 1)), cost=np.zeros(0), reference=np.array([0.3]))
    found, pairs = bernstein_bounds(planned, optimal_on(np.zeros((0, 1)), rewards, np.ones((size, 2), bool), kl), level=level)
    regret = np.where(np.arange(size) < some, kl * np.log((1 + np.exp(1 / kl)) / 2) - 0.5, 0)
    log_term, width = np.log(2 / (1 - level)), float(largest_regret(np.ones(1), kl)[0])
    by_hand = regret.mean() + np.sqrt(2 * regret.var(ddof=1) * log_term / size) + 7 * width * log_term / (3 * (size - 1))
    assert pairs == 1
    assert found.delta == pytest.approx(by_hand, rel=1e-12)
    assert found.captured_gain == 0
    base = np.where(np.arange(size) < some, 0.5, 0)

    def bound(share):
        samples = regret - share * base
        spread = np.sqrt(2 * samples.var(ddof=1) * log_term / size)
        return samples.mean() + spread + 7 * (width + share) * log_term / (3 * (size - 1))

    assert np.isfinite(found.epsilon) == (size == 4000)
    if size == 4000:
        assert bound(found.epsilon) == pytest.approx(0, abs=1e-9)
    else:
        assert bound(1e9) > 0


def test_given_gaps_are_taken_off(random_tensor):
    planned, people, whole = world(2, 0.1, 0.05)
    on = drawn(people, np.arange(3000))
    plain, given = bernstein_bounds(planned, on)[0], bernstein_bounds(planned, on, epsilon=0.03, delta=0.01)[0]
    assert 0 < given.epsilon < plain.epsilon
    assert 0 < given.delta < plain.delta
    assert given.captured_gain == plain.captured_gain
    centre, _ = resampled_gaps(on, draws=1, seed=0, epsilon=0.03, delta=0.01)
    oracle = GibbsOracle(people.rewards, people.kl)
    known = certify(planned.revalued(oracle), oracle, epsilon=0.03, delta=0.01)
    np.testing.assert_allclose(numbers(centre), numbers(known), atol=1e-9)
    assert given.epsilon > known.epsilon
    assert given.delta > known.delta
    assert whole.epsilon > known.epsilon


def test_policies_prompt_by_prompt_are_the_oracles(random_tensor):
    rewards = random_tensor(0, 3)
    mask = np.random.default_rng(0).random(rewards.shape[:2]) < 0.6
    mask[:, 0] = True
    rewards = np.where(mask[:, :, None], rewards, 0)
    weights = np.random.default_rng(1).dirichlet(np.ones(3), size=4)
    oracle = GibbsOracle(rewards, 0.1, mask=mask)
    on, solution = optimal_on(weights, rewards, mask, 0.1), oracle.solve(weights)
    np.testing.assert_allclose(on.value.mean(axis=1), solution.value, atol=1e-12)
    np.testing.assert_allclose(on.cost.mean(axis=1), solution.cost, atol=1e-12)
    np.testing.assert_allclose(on.reference.mean(axis=0), oracle.reference, atol=1e-12)
    np.testing.assert_allclose(on.optimum(weights).mean(axis=0), oracle.optimum(weights), atol=1e-12)
    rows = np.array([0, 0, 3])
    twice = GibbsOracle(rewards[rows], 0.1, mask=mask[rows])
    counts = np.bincount(rows, minlength=len(rewards))
    portfolio = Portfolio(weights, solution.value, solution.cost, oracle.reference, 0.1, tuple("abcd"))
    np.testing.assert_allclose(numbers(on.gaps(counts)), numbers(certify(portfolio.revalued(twice), twice)), atol=1e-9)


@pytest.fixture(scope="module")
def stated():
    planned, people, _ = world(2, 0.1, 0.05)
    return planned, drawn(people, np.arange(50))


def test_it_is_saved_with_the_portfolio_and_old_files_have_none(stated, tmp_path):
    planned, on = stated
    found = confidence(planned, on, draws=20)
    replace(planned, confidence=found).save_pretrained(tmp_path)
    assert Portfolio.from_pretrained(tmp_path).confidence == found
    endless = replace(found, bernstein=replace(found.bernstein, epsilon=np.inf))
    replace(planned, confidence=endless).save_pretrained(tmp_path)
    assert Portfolio.from_pretrained(tmp_path).confidence == endless
    without = confidence(planned, on, draws=20, bernstein=False)
    assert (without.bernstein, without.pairs) == (None, 0)
    assert Confidence.from_record(json.loads(json.dumps(without.record()))) == without
    planned.save_pretrained(tmp_path)
    assert "confidence" not in json.loads((tmp_path / "portfolio.json").read_text())
    assert Portfolio.from_pretrained(tmp_path).confidence is None
    assert replace(planned, confidence=found).revalued(GibbsOracle(on.rewards, 0.1)).confidence is None


def test_ends_are_in_order_and_the_same_for_the_same_seed(stated):
    planned, on = stated
    found, again, other = (confidence(planned, on, draws=40, seed=seed) for seed in (0, 0, 1))
    assert found == again
    assert found.bootstrap != other.bootstrap
    low, middle, high = map(numbers, (found.low, found.estimate, found.high))
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert (numbers(found.bernstein) * SIDE >= numbers(found.bootstrap) * SIDE).all()
    assert (np.where(SIDE > 0, high, low) * SIDE >= numbers(found.bootstrap) * SIDE).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.0}, "level: expected a number above 0 and below 1, got 1.0"),
        ({"level": np.nan}, "level: expected a number above 0 and below 1, got nan"),
        ({"draws": 1}, "draws: expected at least 2, got 1"),
        ({"epsilon": -0.1}, "epsilon: expected a finite number of at least 0, got -0.1"),
        ({"delta": np.nan}, "delta: expected a finite number of at least 0, got nan"),
    ],
)
def test_bad_wishes_are_refused(stated, change, message):
    with pytest.raises(ValueError, match=message):
        confidence(*stated, **change)


def test_prompts_that_cannot_certify_are_refused(stated, random_tensor):
    planned, on = stated
    with pytest.raises(ValueError, match="prompts: expected at least 2, got 1"):
        confidence(planned, drawn(on, np.arange(1)))
    with pytest.raises(ValueError, match=r"prompts: expected rewards in \[0, 1\].* got 0 to 2"):
        confidence(planned, replace(on, rewards=2 * on.rewards))
    with pytest.raises(ValueError, match="prompts: expected values of 2 members as in the portfolio, got 1"):
        confidence(planned, replace(on, value=on.value[:1], cost=on.cost[:1]))
    three = optimal_on(np.eye(3)[:2], random_tensor(0, 3), np.ones((5, 7), dtype=bool), 0.1)
    with pytest.raises(ValueError, match="prompts: expected 2 bases as in the portfolio, got 3"):
        confidence(planned, three)
    with pytest.raises(ValueError, match="prompts: expected other prompts than the portfolio was planned on, got the same"):
        confidence(planned.revalued(GibbsOracle(on.rewards, on.kl)), on)


def test_one_held_out_prompt_says_nothing_and_more_say_what_confidence_does(stated):
    planned, on = stated
    assert held_out_confidence(planned, on.rewards[:1], on.mask[:1], on.kl) is None
    found = held_out_confidence(planned, on.rewards, on.mask, on.kl, delta=0.01, seed=4)
    expected = confidence(planned, on, delta=0.01, seed=4)
    np.testing.assert_allclose(numbers(found.bootstrap), numbers(expected.bootstrap), rtol=1e-9)
    np.testing.assert_allclose(numbers(found.low), numbers(expected.low), rtol=1e-9)
    assert (found.given_epsilon, found.given_delta, found.level) == (0.0, 0.01, 0.95)
    old = found.record()
    del old["given_epsilon"], old["given_delta"]
    assert Confidence.from_record(json.loads(json.dumps(old))).given_delta == 0.0


def test_with_few_prompts_the_level_is_said_to_be_nominal(stated):
    planned, on = stated
    few = confidence(planned, on, draws=20)
    assert few.caution == "95 % is nominal: 50 prompts, fewer than 100, so bounds by resampling may hold less often"
    assert few.assumptions[-1] == few.caution
    assert Confidence.from_record(json.loads(json.dumps(few.record()))).caution == few.caution
    twice = drawn(on, np.arange(100) % 50)
    enough = confidence(planned, twice, draws=20)
    assert enough.caution == ""
    assert not any("nominal" in text for text in enough.assumptions)
    less = confidence(planned, drawn(twice, np.arange(99)), draws=20, level=0.9)
    assert less.caution.startswith("90 % is nominal: 99 prompts")


@pytest.mark.parametrize(("epsilon", "captured_gain", "says"), [(np.inf, 0.0, False), (0.5, 0.0, True), (np.inf, 0.1, True)])
def test_bounds_that_say_nothing_are_told_apart(stated, epsilon, captured_gain, says):
    found = confidence(*stated, draws=20)
    assert replace(found, bernstein=replace(found.bernstein, epsilon=epsilon, captured_gain=captured_gain)).stands is says
    assert not replace(found, bernstein=None).stands
