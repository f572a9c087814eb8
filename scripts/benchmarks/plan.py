"""plan: where to solve, how fast, how many policies are kept, and how the cost grows.

Sections: "solves" counts the solves that a certificate takes which may use nothing but what was solved, against a uniform grid and
random weights (the smallest number at which it holds) and PALM's grid; "seconds" times a whole plan with its certificate over the
simplex on sampled candidates; "growth" does so against K, epsilon, P and N; "ols" times a textbook search to the same certificate.
"""

import time
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from benchmarks.plan_ols import textbook_ols
from benchmarks.plan_world import WORLDS, plan_world

from palm.portfolio import GibbsOracle, plan_portfolio
from palm.portfolio.grid import palm_grid_size, random_weights
from palm.portfolio.lazy import lazy_search
from palm.portfolio.pool import Pool, solve_all
from palm.portfolio.scheme import proven
from palm.simplex import uniform_grid

KL = 0.1
_MOST = 1500  # weights of a grid or a sample that are tried
_PALM_DELTA = 0.01
_SECONDS = ((4, 0.01), (8, 0.05), (10, 0.05), (12, 0.1))  # K and epsilon
_DEFAULT = {"bases": 4, "epsilon": 0.02, "prompts": 300, "candidates": 64}
_GROWTH: dict[str, tuple[float, ...]] = {
    "bases": (2, 3, 4, 5, 6, 8),
    "epsilon": (0.1, 0.05, 0.02, 0.01),
    "prompts": (100, 300, 1000, 3000),
    "candidates": (16, 64, 256),
}


def bench_plan(
    *,
    sections: list[str],
    bases: list[int],
    epsilons: list[float],
    tensors: int,
    prompts: int,
    candidates: int,
    most_seconds_bases: int,
    select: str,
) -> list[dict[str, Any]]:
    """Rows of the sections asked for; K above `most_seconds_bases` is left out of "seconds" and "growth"."""
    size = {"prompts": prompts, "candidates": candidates}
    rows: list[dict[str, Any]] = []
    if "solves" in sections:
        rows += [_solves(world, k, e, tensors, size) for world in WORLDS for k in bases for e in epsilons]
    if "seconds" in sections:
        rows += [_plan("seconds", k, e, size, select) for k, e in _SECONDS if k <= most_seconds_bases]
    if "growth" in sections:
        for name, values in _GROWTH.items():
            for value in values:
                chosen = {**_DEFAULT, **size, name: value}
                k, e = int(chosen.pop("bases")), chosen.pop("epsilon")
                if k <= most_seconds_bases:
                    rows.append(_plan(f"growth: {name}", k, e, {part: int(number) for part, number in chosen.items()}, "greedy"))
    if "ols" in sections:
        rows += [_ols(k, e, size) for k in (3, 4) for e in (0.05, 0.02) if k <= max(bases)]
    return rows


def certified_count(oracle: GibbsOracle, epsilon: float, weights: Callable[[int], np.ndarray]) -> int | None:
    """The smallest n, by doubling and bisection, at which solving `weights(n)` proves epsilon; None if it takes too many."""

    def holds(number: int) -> bool:
        return proven(oracle, solve_all(oracle, weights(number)), 0.0)[0] <= epsilon

    high = oracle.bases
    while not holds(high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2  # does not hold, or is below the vertices
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= oracle.bases and holds(middle) else (middle, high)
    return high


def certified_grid(oracle: GibbsOracle, epsilon: float) -> int | None:
    """Weights of the coarsest uniform grid that proves epsilon."""
    for steps in count(1):
        grid = uniform_grid(oracle.bases, steps)
        if len(grid) > _MOST:
            return None
        if proven(oracle, solve_all(oracle, grid), 0.0)[0] <= epsilon:
            return len(grid)
    return None


def _solves(world: str, bases: int, epsilon: float, tensors: int, size: dict[str, int]) -> dict[str, Any]:
    found: dict[str, list[float]] = {"lazy": [], "ols": [], "uniform": [], "random": []}
    for seed in range(tensors):
        oracle = GibbsOracle(plan_world(world, seed, bases, **size), KL)
        draws = random_weights(bases, _MOST + bases, np.random.default_rng(seed))
        lazy: Pool = lazy_search(oracle, epsilon=epsilon, delta=0.0)[0]
        found["lazy"].append(len(lazy))
        found["ols"].append(len(lazy_search(oracle, epsilon=epsilon, delta=0.0, ahead=False)[0]))
        found["uniform"].append(certified_grid(oracle, epsilon) or np.inf)
        found["random"].append(certified_count(oracle, epsilon, lambda number, draws=draws: draws[:number]) or np.inf)  # type: ignore[misc]
    medians = {name: float(np.median(numbers)) for name, numbers in found.items()}
    return {
        "section": "solves",
        "world": world,
        "K": bases,
        "epsilon": epsilon,
        **{name: _number(median) for name, median in medians.items()},
        "of_uniform": round(medians["lazy"] / medians["uniform"], 2) if np.isfinite(medians["uniform"]) else "",
        "palm_grid": palm_grid_size(bases, epsilon, _PALM_DELTA),
    }


def _number(value: float) -> float | str:
    return value if np.isfinite(value) else f"more than {_MOST}"


def _plan(section: str, bases: int, epsilon: float, size: dict[str, int], select: str) -> dict[str, Any]:
    oracle = GibbsOracle(plan_world("balanced", 0, bases, **size), KL)
    start, busy = time.perf_counter(), time.process_time()
    portfolio = plan_portfolio(oracle, epsilon=epsilon, select=select)
    taken, busy = time.perf_counter() - start, time.process_time() - busy
    certificate = portfolio.certificate
    assert certificate is not None
    return {
        "section": section,
        "K": bases,
        "epsilon": epsilon,
        "P": size["prompts"],
        "N": size["candidates"],
        "policies": len(portfolio),
        "at_least": certificate.size_at_least,
        "certified": round(certificate.epsilon, 5),
        "corners": certificate.corners,
        "solved": portfolio.solves,
        "seconds": round(taken, 2),
        "cpu_seconds": round(busy, 2),
    }


def _ols(bases: int, epsilon: float, size: dict[str, int]) -> dict[str, Any]:
    oracle = GibbsOracle(plan_world("balanced", 0, bases, **size), KL)
    lazy_search(oracle, epsilon=1.0, delta=0.0)  # what is read once is not timed
    start = time.process_time()
    solved = textbook_ols(oracle, epsilon)[0]
    textbook = time.process_time() - start
    start = time.process_time()
    pool = lazy_search(oracle, epsilon=epsilon, delta=0.0, ahead=False)[0]
    taken = time.process_time() - start
    return {
        "section": "ols",
        "K": bases,
        "epsilon": epsilon,
        "textbook_solves": solved,
        "solved": len(pool),
        "textbook_cpu_seconds": round(textbook, 2),
        "cpu_seconds": round(taken, 3),
        "times_faster": round(textbook / taken, 1),
    }
