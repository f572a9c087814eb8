"""Plain recounts of what the portfolio package computes, and the small worlds it is tried on."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import logsumexp

from palm.portfolio import GibbsOracle, Portfolio, Solution, plan_portfolio
from palm.portfolio.verify import FAILS, verify
from palm.rewards import RewardTensor


@pytest.fixture(scope="session")
def optimum_at():
    """OPT(w) = kl E_x log mean_n exp(w.phi_n / kl), from the formula: (rewards, weights, kl[, mask]) -> (M,)."""

    def recount(rewards, weights, kl, mask=None):
        present = np.ones(rewards.shape[:2], dtype=bool) if mask is None else mask
        logits = np.where(present, np.einsum("pnk,mk->mpn", np.where(present[:, :, None], rewards, 0), weights) / kl, -np.inf)
        return (kl * (logsumexp(logits, axis=2) - np.log(present.sum(axis=1)))).mean(axis=1)

    return recount


@pytest.fixture(scope="session")
def served_at():
    """L_S(w), policy by policy: (portfolio, weights) -> (M,)."""

    def recount(portfolio, weights):
        best = weights @ portfolio.reference
        for value, cost in zip(portfolio.value, portfolio.cost, strict=True):
            best = np.maximum(best, weights @ value - cost)
        return best

    return recount


@pytest.fixture(scope="session")
def random_tensor():
    """(seed, bases[, prompts, candidates]) -> (P, N, K) rewards in [0, 1]."""

    def make(seed, bases, prompts=5, candidates=7):
        rng = np.random.default_rng([seed, bases])
        return rng.beta(0.5, 0.8, size=(prompts, candidates, bases))

    return make


@pytest.fixture(scope="session")
def portfolio_of():
    """(oracle, weights) -> the portfolio of the policies that are optimal at the weights, without a certificate."""

    def make(oracle, weights):
        solution = oracle.solve(weights) if len(weights) else Solution(np.zeros((0, oracle.bases)), np.zeros(0), np.zeros(0))
        return Portfolio(
            weights=weights,
            value=solution.value,
            cost=solution.cost,
            reference=oracle.reference,
            kl=getattr(oracle, "kl", 0.0),
            ids=tuple(f"policy-{number}" for number in range(len(weights))),
        )

    return make


@dataclass(frozen=True)
class Pool:
    """An oracle over finitely many policies with values v_j and no KL cost: OPT(w) = max_j w.v_j."""

    values: np.ndarray
    reference: np.ndarray
    slack: float = 0.0
    assumptions: tuple[str, ...] = ("these are all the policies there are",)

    @property
    def bases(self):
        return self.values.shape[1]

    def solve(self, weights):
        utility = weights @ self.values.T
        return Solution(self.values[utility.argmax(axis=1)], np.zeros(len(weights)), utility.max(axis=1))

    def optimum(self, weights):
        return (weights @ self.values.T).max(axis=1)

    def upper_bound(self, weights):
        return self.optimum(weights) + self.slack

    def lower_bound(self, weights):
        return self.optimum(weights)


@pytest.fixture(scope="session")
def pool_oracle():
    """(values, reference[, slack]) -> an oracle over a finite pool, so that every number can be known by hand."""

    def make(values, reference, slack=0.0):
        return Pool(np.array(values, dtype=float), np.array(reference, dtype=float), slack)

    return make


@pytest.fixture(scope="session")
def two_sided():
    """kl -> the oracle of one prompt with the candidates (1, 0) and (0, 1): OPT(w) = kl log((e^{w1/kl} + e^{w2/kl}) / 2)."""

    def make(kl):
        return GibbsOracle(np.eye(2)[None], kl)

    return make


@pytest.fixture(scope="session")
def saved(tmp_path_factory, random_tensor):
    """A folder with a planned portfolio and the rewards it was planned on, some candidates missing."""
    folder = tmp_path_factory.mktemp("saved")
    rewards = random_tensor(0, 3, prompts=12, candidates=8)
    mask = np.random.default_rng(0).random(rewards.shape[:2]) < 0.8
    mask[:, :2] = True
    rewards = np.where(mask[:, :, None], rewards, 0)
    RewardTensor(rewards, mask).save(folder / "rewards.safetensors")
    portfolio = plan_portfolio(GibbsOracle(rewards, 0.05, mask=mask), epsilon=0.05)
    assert len(portfolio) >= 3
    assert portfolio.certificate.size_at_least >= 2
    portfolio.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def run():
    """(folder[, rewards][, options]) -> the verifier's lines, with few random weights."""

    def check(folder, rewards=True, **options):
        return verify(folder, folder / "rewards.safetensors" if rewards else None, **{"weights": 5000, "starts": 20, **options})

    return check


@pytest.fixture
def tampered(saved, run, tmp_path):
    """change -> what fails, with and without the rewards, after `change` had the file's record."""

    def tamper(change):
        record = json.loads((saved / "portfolio.json").read_text())
        change(record)
        (tmp_path / "portfolio.json").write_text(json.dumps(record))
        (tmp_path / "rewards.safetensors").write_bytes((saved / "rewards.safetensors").read_bytes())
        return [[line.what for line in run(tmp_path, rewards=rewards) if line.verdict == FAILS] for rewards in (True, False)]

    return tamper
