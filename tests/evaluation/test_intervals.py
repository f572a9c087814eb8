import numpy as np
import pytest
from scipy.stats import binom

from palm.evaluation import bootstrap_mean
from palm.evaluation.intervals import Estimate, bounded_mean, resampled_interval


def test_the_interval_is_that_of_a_plain_bootstrap():
    values = np.random.default_rng(0).exponential(size=60)
    found = bootstrap_mean(values, draws=4000, seed=1)
    rng = np.random.default_rng(2)
    means = [rng.choice(values, size=60).mean() for _ in range(4000)]
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.02)
    assert found.count == 60


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    found = [bootstrap_mean(rng.normal(1, 2, size=50), draws=400, seed=n) for n in range(400)]
    assert 0.90 <= np.mean([one.low <= 1 <= one.high for one in found]) <= 0.98


def test_few_units_get_a_wider_interval_than_plain_percentiles():
    rng = np.random.default_rng(6)
    values = [rng.normal(size=10) for _ in range(1500)]
    found = [bootstrap_mean(one, draws=400, seed=n) for n, one in enumerate(values)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.925  # plain percentiles: .895
    draws = np.random.default_rng(0).integers(10, size=(400, 10))
    assert found[0].low < np.quantile(values[0][draws].mean(axis=1), 0.025)
    assert found[0].high > np.quantile(values[0][draws].mean(axis=1), 0.975)


@pytest.mark.parametrize("units", [2, 3, 5, 9])
def test_a_handful_of_units_gets_at_least_students_interval(units):
    """Resampled means cannot leave the range of so few numbers; plain percentiles of three hold the mean in 75 % of cases."""
    rng = np.random.default_rng(7)
    found = [bootstrap_mean(rng.normal(size=units), draws=100, seed=n) for n in range(1200)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.935
    values = rng.normal(size=units)
    wide, narrow = bootstrap_mean(values), bootstrap_mean(values, level=0.5)
    assert wide.high - wide.low > narrow.high - narrow.low > 0


def test_a_lower_level_gives_a_narrower_interval():
    values = np.random.default_rng(4).normal(size=100)
    wide, narrow = bootstrap_mean(values), bootstrap_mean(values, level=0.5)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_one_unit_has_no_interval_and_equal_units_a_narrow_one():
    assert bootstrap_mean(np.array([0.7])) == Estimate(0.7, 0.7, 0.7, 1)
    constant = bootstrap_mean(np.full(9, 2.5))
    assert (constant.low, constant.high) == (2.5, 2.5)


def test_many_units_are_resampled_in_blocks_with_the_same_result(monkeypatch):
    values = np.random.default_rng(5).normal(size=5_000)  # 2000 draws of 5000 units are more than one block
    found = bootstrap_mean(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(5_000), rel=0.1)
    assert bootstrap_mean(values) == found
    assert bootstrap_mean(values, seed=1) != found


def test_an_estimate_can_be_read_and_written():
    estimate = Estimate(0.5, 0.25, 0.75, 3)
    assert str(estimate) == "0.500 [0.250, 0.750]"
    assert Estimate(**estimate.record()) == estimate


@pytest.mark.parametrize("values", [[], [0.5, np.nan], [np.inf], [[1.0, 2.0]], 3.0])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match=r"values: expected finite numbers in the shape \(n,\), n at least 1, got"):
        bootstrap_mean(np.array(values))


def test_a_rate_of_few_is_never_certain():
    assert bounded_mean(np.array([1.0]), 0.0, 1.0) == Estimate(1.0, 0.0, 1.0, 1)
    twenty = bounded_mean(np.ones(20), 0.0, 1.0)
    assert 0.75 < twenty.low < 0.9  # the exact binomial interval begins at .832
    assert (twenty.mean, twenty.high) == (1.0, 1.0)
    with pytest.raises(ValueError, match=r"values: expected numbers from 0\.0 to 1\.0 in the shape \(n,\), n at least 1, got"):
        bounded_mean(np.array([0.5, 1.5]), 0.0, 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 15, 20, 41, 100])
def test_intervals_of_rates_hold_whatever_the_truth(count: int) -> None:
    wins = np.arange(count + 1)
    found = [bounded_mean((np.arange(count) < won).astype(float), 0.0, 1.0) for won in wins]
    truth = np.linspace(0.001, 0.999, 999)[:, None]
    inside = (np.array([one.low for one in found]) <= truth) & (truth <= np.array([one.high for one in found]))
    assert (binom.pmf(wins, count, truth) * inside).sum(axis=1).min() > 0.94


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_safe_intervals_of_few_units_hold(count: int) -> None:
    rng = np.random.default_rng(count)
    held = []
    for values in rng.normal(size=(400, count)):
        drawn = values[rng.integers(count, size=(200, count))].mean(axis=1)
        one = resampled_interval(float(values.mean()), drawn, count)
        held.append(one.low <= 0 <= one.high)
    assert np.mean(held) > 0.92  # percentiles alone: .5 of two, .8 of three
