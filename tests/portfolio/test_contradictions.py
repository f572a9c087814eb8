"""What a file says of itself is compared without the rewards."""

from dataclasses import replace

import numpy as np
import pytest

from palm.portfolio import GibbsOracle, PoolOracle, certify, plan_portfolio
from palm.portfolio.verify import OPEN, sound


def more_witnesses(record):
    """As many witnesses as there are policies, and one more, all on the simplex."""
    count = len(record["policies"]) + 1
    rows = np.random.default_rng(0).dirichlet(np.ones(3), size=count)
    record["certificate"]["incompatible"], record["certificate"]["size_at_least"] = rows.tolist(), count


def more_captured_witnesses(record):
    more_witnesses(record)
    for name in ("incompatible", "size_at_least"):
        record["certificate"][f"captured_{name}"] = record["certificate"][name]
    record["certificate"]["incompatible"], record["certificate"]["size_at_least"] = [], 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (more_witnesses, "and the portfolio is that good with"),
        (more_captured_witnesses, "and the portfolio captures as much with"),
        (lambda record: record["certificate"].__setitem__("captured_size_at_least", 2), "and 0 weights are there to show it"),
    ],
)
def test_a_portfolio_is_its_own_counterexample_to_a_bound_above_its_size(tampered, change, message):
    for few in tampered(change):
        assert any(message in what for what in few), few


def test_measured_values_may_exceed_the_optimum_that_bounds_are_of(tampered, tmp_path, run):
    tampered(lambda record: (more_witnesses(record), record.__setitem__("origin", "measured")))
    lines = run(tmp_path, rewards=False)
    assert any(
        "must exceed the optimum on candidates, or the bound is wrong" in line.what for line in lines if line.verdict == OPEN
    )
    assert sound(lines)


def perfect(record):
    """Nothing of what the file says of itself contradicts a portfolio without any gap, but that OPT is smooth."""
    record["certificate"].update(epsilon=0.0, delta=0.0, captured_gain=1.0, captured_gain_given_delta=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (perfect, "bends between cells: epsilon, delta, captured_gain, captured_gain_given_delta cannot be"),
        (lambda record: record["certificate"].__setitem__("delta", 0.0), "bends between cells: delta cannot be"),
        (lambda record: record["policies"].pop(1), "the optimum was evaluated at"),
        (lambda record: record["certificate"].__setitem__("corners", 3), "the optimum was evaluated at 3 corners; the cells have"),
        (lambda record: record["certificate"].__setitem__("epsilon", None), "as an epsilon without bound says"),
    ],
)
def test_contradictions_need_no_rewards(tampered, change, message):
    for few in tampered(change):
        assert any(message in what for what in few), few


@pytest.mark.parametrize("seed", range(24))
def test_no_sound_certificate_contradicts_itself(tmp_path, run, portfolio_of, seed):
    """Ties, repeated members, bases that repeat or never change: more planes meet in a corner than must."""
    rng = np.random.default_rng([7, seed])
    rewards = rng.beta(0.5, 0.8, size=(3, 5, 2 + seed % 4))
    rewards = [rewards, np.round(2 * rewards) / 2, np.concatenate([rewards, rewards[..., :1]], axis=2), 0 * rewards + 0.3][seed % 4]
    oracle = GibbsOracle(rewards, float(np.exp(rng.uniform(np.log(0.02), 0))))
    weights = rng.dirichlet(np.full(oracle.bases, 0.3), size=int(rng.integers(0, 9)))
    portfolio = portfolio_of(oracle, np.concatenate([weights, weights[:1]]))
    found = certify(portfolio, oracle, delta=(0.0, 0.01)[seed % 2], captured_bound=True)
    replace(portfolio, certificate=found).save_pretrained(tmp_path)
    assert sound(run(tmp_path, rewards=False))


def test_optima_of_another_kind_may_be_reached_everywhere(tmp_path, run):
    """Of a pool's policies the whole pool is a perfect portfolio; what kl would say of candidates is not held against it."""
    pool = PoolOracle(np.eye(3), np.zeros(3), reference=np.zeros(3))
    portfolio = replace(plan_portfolio(pool, size=3), kl=0.1)
    assert portfolio.certificate.epsilon == 0
    portfolio.save_pretrained(tmp_path)
    lines = run(tmp_path, rewards=False)
    assert sound(lines)
    assert any("not known, for optima are over the" in line.what for line in lines if line.verdict == OPEN)
