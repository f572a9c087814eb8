"""Tensors that are hard on geometry, and certificates tried by brute force on them."""

import time
from dataclasses import dataclass

import numpy as np

from palm.portfolio import Certificate, GibbsOracle, Portfolio, certify, plan_portfolio
from palm.portfolio.recount import Recount, ascend, random_weights

KINDS = ("plain", "ties", "duplicate candidates", "constant basis", "duplicate basis", "opposed bases", "one prompt", "constant")


@dataclass(frozen=True)
class Tried:
    """A certificate after the search for a counterexample; numbers are relative to the optimum.

    Attributes:
        seed, kind, bases, kl, policies, corners: what was tried.
        excess: the most by which any weight breaks a statement; at most rounding if the certificate is right.
        short: the most by which a statement's own worst weight misses equality.
        nearest: how close brute force came to equality, for the statement for which it came least close.
        seconds: that it took.
    """

    seed: int
    kind: str
    bases: int
    kl: float
    policies: int
    corners: int
    excess: float
    short: float
    nearest: float
    seconds: float


def odd_tensor(seed: int) -> tuple[str, np.ndarray, float]:
    """Kind, (P, N, K) rewards with K from 2 to 6, and kl from 0.02 to 1: one of the eight kinds after the other."""
    rng = np.random.default_rng([33, seed])
    kind, bases = KINDS[seed % len(KINDS)], 2 + (seed // len(KINDS)) % 5
    prompts, candidates = (1, 5) if kind == "one prompt" else (int(rng.integers(2, 5)), int(rng.integers(2, 7)))
    rewards = rng.beta(0.5, 0.8, size=(prompts, candidates, bases))
    if kind == "ties":
        rewards = np.round(2 * rewards) / 2
    elif kind == "duplicate candidates":
        rewards = np.repeat(rewards[:, :2], 3, axis=1)
    elif kind == "constant basis":
        rewards[:, :, 0] = 0.4
    elif kind == "duplicate basis":
        rewards[:, :, -1] = rewards[:, :, 0]
    elif kind == "opposed bases":
        rewards[:, :, -1] = 1 - rewards[:, :, 0]
    elif kind == "constant":
        rewards[:] = 0.3
    return kind, rewards, float(np.exp(rng.uniform(np.log(0.02), 0.0)))


def some_portfolio(seed: int, oracle: GibbsOracle) -> Portfolio:
    """Planned, at up to eight random weights with repeats, at the vertices, or with values as if measured."""
    rng = np.random.default_rng([34, seed])
    how = rng.integers(5)
    if how == 0:
        return plan_portfolio(oracle, size=int(rng.integers(1, 5)), weights=30, method="uniform")
    weights = rng.dirichlet(np.full(oracle.bases, rng.choice([0.3, 1.0])), size=int(rng.integers(0, 9)))
    if how == 1:
        weights = np.eye(oracle.bases)
    if how == 2 and len(weights):
        weights = np.vstack([weights, weights[:2]])
    solution = oracle.solve(weights) if len(weights) else None
    value = np.zeros((0, oracle.bases)) if solution is None else solution.value
    cost = np.zeros(0) if solution is None else solution.cost
    if how == 3:
        value = np.maximum(value + rng.normal(scale=0.05, size=value.shape), 0)
    ids = tuple(f"policy-{number}" for number in range(len(weights)))
    return Portfolio(weights, value, cost, oracle.reference, oracle.kl, ids)


def try_certificate(seed: int, *, count: int = 100_000, starts: int = 100, rounds: int = 40) -> Tried:
    """Certify one portfolio and look for a weight that breaks what it says.

    Args:
        seed: of tensor, portfolio, given gaps and weights.
        count: random weights.
        starts: climbs from the worst of them, for every statement.
        rounds: of each climb.
    """
    started = time.process_time()
    kind, rewards, kl = odd_tensor(seed)
    oracle = GibbsOracle(rewards, kl)
    portfolio = some_portfolio(seed, oracle)
    epsilon, delta = ((0.0, 0.0), (0.03, 0.01))[seed % 2]
    found = certify(portfolio, oracle, epsilon=epsilon, delta=delta, search_bound=False)
    recount = Recount(rewards, kl)
    weights = random_weights(count, oracle.bases, np.random.default_rng([35, seed]))
    heights = lacks(found, portfolio, recount, weights)
    tops_of = heights.max(axis=1)
    for statement, row in enumerate(heights):
        tops = ascend(
            lambda where, statement=statement: lacks(found, portfolio, recount, where)[statement],
            weights[np.argsort(-row)[:starts]],
            rounds=rounds,
            seed=seed,
        )
        tops_of[statement] = max(tops_of[statement], float(lacks(found, portfolio, recount, tops)[statement].max()))
    worst = np.stack([found.worst_weight, found.worst_weight_delta, found.worst_weight_captured])
    worst = np.vstack([worst, found.worst_weight_captured_given_delta])
    at_worst = np.diag(lacks(found, portfolio, recount, worst)).copy()
    more_than_enough = [found.epsilon == 0, found.delta == 0, found.captured_gain == 1, found.captured_gain_given_delta == 1]
    short = float(np.where(more_than_enough, np.maximum(at_worst, 0), np.abs(at_worst)).max())
    excess, nearest = float(tops_of.max()), float(np.where(more_than_enough, 0, -tops_of).max())
    taken = time.process_time() - started
    return Tried(seed, kind, oracle.bases, kl, len(portfolio), found.corners, excess, short, nearest, taken)


def lacks(found: Certificate, portfolio: Portfolio, recount: Recount, weights: np.ndarray) -> np.ndarray:
    """(4, M) by how much each statement is broken at each weight, relative to the optimum there; at most 0 if it holds."""
    optimum = recount.optimum(weights)
    base = weights @ recount.reference
    served = base
    for value, cost in zip(portfolio.value, portfolio.cost, strict=True):
        served = np.maximum(served, weights @ value - cost)
    rows = [
        optimum - (1 + found.epsilon) * served - found.given_delta,
        optimum - (1 + found.given_epsilon) * served - found.delta,
        found.captured_gain * (optimum - base) - (served - base),
        found.captured_gain_given_delta * (optimum - base) - (served - base) - found.given_delta,
    ]
    return np.stack(rows) / optimum
