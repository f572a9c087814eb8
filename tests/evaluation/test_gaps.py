"""palm.evaluation.gaps: worst and mean gaps as counted by hand, intervals that cover the truth, whom policies serve."""

import numpy as np
import pytest

from palm.evaluation.diversity import perplexity
from palm.evaluation.gaps import gap_table, serving_table
from palm.evaluation.intervals import jackknife, resampled_interval
from palm.portfolio import GibbsOracle, OnPrompts, Portfolio, certify, optimal_on
from palm.simplex import sample_simplex

KL = 0.1
WEIGHTS = 0.7 * np.eye(3) + 0.1


def world(prompts: int, seed: int, weights: np.ndarray = WEIGHTS) -> OnPrompts:
    """Prompts of different difficulty with 6 candidates each, and policies that are optimal at some weights."""
    rng = np.random.default_rng(seed)
    rewards = rng.beta(0.6, 0.9, size=(prompts, 6, weights.shape[1])) * rng.uniform(0.3, 1.0, size=(prompts, 1, 1))
    return optimal_on(weights, rewards, np.ones(rewards.shape[:2], dtype=bool), KL)


@pytest.fixture(scope="module")
def prompts() -> OnPrompts:
    return world(12, 0)


@pytest.fixture(scope="module")
def users() -> np.ndarray:
    return sample_simplex(40, 3, np.random.default_rng(5))


def test_rows_are_what_oracle_and_portfolio_say(prompts: OnPrompts, users: np.ndarray) -> None:
    oracle = GibbsOracle(prompts.rewards, KL)
    portfolio = Portfolio(
        WEIGHTS, prompts.value.mean(axis=1), prompts.cost.mean(axis=1), oracle.reference, KL, ("policy-0", "policy-1", "policy-2")
    )
    whole, mean, worst_user, mean_user = gap_table(prompts, users, draws=20, weights=500, seed=3)
    exact = certify(portfolio, oracle)
    assert [(row.over, row.statistic, row.weights) for row in (whole, mean, worst_user, mean_user)] == [
        ("simplex", "worst", 0),
        ("simplex", "mean", 500),
        ("users", "worst", 40),
        ("users", "mean", 40),
    ]
    for name in ("epsilon", "delta", "captured_gain"):
        assert getattr(whole, name).mean == pytest.approx(getattr(exact, name))
        assert getattr(whole, name).count == 12
    drawn = sample_simplex(500, 3, np.random.default_rng(3))
    for weights, row in ((drawn, mean), (users, mean_user)):
        best, had, base = oracle.optimum(weights), portfolio.served(weights), weights @ oracle.reference
        assert row.epsilon.mean == pytest.approx((best / had - 1).mean())
        assert row.delta.mean == pytest.approx((best - had).mean())
        assert row.captured_gain.mean == pytest.approx((had - base).sum() / (best - base).sum())
    best, had, base = oracle.optimum(users), portfolio.served(users), users @ oracle.reference
    assert worst_user.epsilon.mean == pytest.approx((best / had - 1).max())
    assert worst_user.delta.mean == pytest.approx((best - had).max())
    assert worst_user.captured_gain.mean == pytest.approx(((had - base) / (best - base)).min())


def test_without_users_there_are_no_rows_of_them(prompts: OnPrompts) -> None:
    assert [row.over for row in gap_table(prompts, None, draws=5)] == ["simplex", "simplex"]
    assert [row.over for row in gap_table(prompts, np.zeros((0, 3)), draws=5)] == ["simplex", "simplex"]


def test_intervals_cover_the_truth() -> None:
    """200 samples of 25 prompts against 20,000: every row's interval of each gap covers in at least 93 %."""
    weights, users = np.array([[0.8, 0.2], [0.3, 0.7]]), sample_simplex(40, 2, np.random.default_rng(5))
    truth = gap_table(world(20_000, 1, weights), users, draws=2, weights=100)
    found = [gap_table(world(25, seed, weights), users, draws=80, weights=100) for seed in range(10, 210)]
    for number, row in enumerate(truth):
        for name in ("epsilon", "delta", "captured_gain"):
            right = getattr(row, name).mean
            covered = [getattr(rows[number], name).low <= right <= getattr(rows[number], name).high for rows in found]
            assert np.mean(covered) >= 0.93, (row.over, row.statistic, name)
            width = np.median([getattr(rows[number], name).high - getattr(rows[number], name).low for rows in found])
            assert width < 0.6 * max(right, 0.2), "an interval as wide as everything covers, too"


def test_optimum_and_policies_are_drawn_together() -> None:
    """Where every policy is optimal on every prompt nothing is uncertain, however different the prompts are."""
    rewards = np.random.default_rng(0).uniform(size=(10, 1, 2)) * np.arange(1, 11)[:, None, None] / 10
    alone = optimal_on(np.eye(2), rewards, np.ones((10, 1), dtype=bool), KL)
    for row in gap_table(alone, np.eye(2), draws=20):
        assert (row.delta.low, row.delta.high) == pytest.approx((0, 0), abs=1e-12)


def test_serving_shares_are_of_the_best_members(prompts: OnPrompts, users: np.ndarray) -> None:
    simplex, served = serving_table(prompts, ("a", "b", "c"), users, draws=50)
    value = prompts.value.mean(axis=1) - prompts.cost.mean(axis=1)[:, None]
    best = np.column_stack([users @ value.T, users @ prompts.reference.mean(axis=0)]).argmax(axis=1)
    share = np.bincount(best, minlength=4) / len(users)
    assert [served.share[name].mean for name in ("a", "b", "c", "reference")] == pytest.approx(share.tolist())
    assert served.perplexity.mean == pytest.approx(perplexity(share))
    assert 1 <= simplex.perplexity.low <= simplex.perplexity.mean <= simplex.perplexity.high <= 4
    assert simplex.perplexity.low < simplex.perplexity.high
    assert sum(entry.mean for entry in simplex.share.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, "draws: expected at least 2, got 1"),
        ({"level": 1.0}, r"level: expected a number above 0 and below 1, got 1\.0"),
        ({"weights": 0}, "weights: expected at least 1, got 0"),
        ({"users": np.array([[0.5, 0.2, 0.2]])}, "users"),
    ],
)
def test_options_out_of_range(prompts: OnPrompts, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gap_table(prompts, **options)  # type: ignore[arg-type]


def test_another_number_of_names(prompts: OnPrompts) -> None:
    with pytest.raises(ValueError, match="ids: expected 3, one per policy, got 1"):
        serving_table(prompts, ("a",))


def test_one_prompt_says_nothing_of_others() -> None:
    row = gap_table(world(1, 0), None, draws=5)[0]
    assert (row.epsilon.low, row.epsilon.high, row.captured_gain.high) == (0, np.inf, 1)


def test_intervals_of_a_mean_are_students() -> None:
    values = np.random.default_rng(0).normal(size=40)
    without = (values.sum() - values) / 39
    found = jackknife(float(values.mean()), without, 40)
    half = 2.0227 * values.std(ddof=1) / np.sqrt(40)  # Student's 97.5 % quantile, 39 degrees of freedom
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)
    rng = np.random.default_rng(1)
    drawn = values[rng.integers(40, size=(20_000, 40))].mean(axis=1)
    safe = resampled_interval(float(values.mean()), drawn, 40)
    assert safe.high - safe.low == pytest.approx(2 * half, rel=0.06)
    assert resampled_interval(0.2, np.array([0.1, 0.9] * 50), 40, least=0, most=0.8).high == 0.8
