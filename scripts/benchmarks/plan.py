"""plan: where to solve, how fast, how many policies are kept, how good they are, and how the cost grows.

"solves": see `plan_solves`. "seconds": a whole plan on sampled candidates with its certificate, greedily few policies. "fewest":
the same by integer programs. "speed": weights a second, and a textbook search to the same certificate. "quality", "fresh",
"bounds": see `plan_quality`. "growth": seconds against K, epsilon, P and N.
"""

import time
from typing import Any

import numpy as np
from benchmarks.plan_ols import textbook_ols
from benchmarks.plan_quality import bench_bounds, bench_fresh, bench_quality
from benchmarks.plan_solves import bench_solves
from benchmarks.plan_world import KL, WORLDS, plan_world

from palm.portfolio import GibbsOracle, plan_portfolio
from palm.portfolio.lazy import lazy_search
from palm.simplex import sample_simplex

SECTIONS = ("solves", "seconds", "fewest", "speed", "quality", "fresh", "bounds", "growth")
_SECONDS = ((4, 0.01), (8, 0.05), (10, 0.05), (12, 0.1))  # K and epsilon
_FEWEST = ((2, 0.05), (2, 0.02), (2, 0.01), (3, 0.05), (3, 0.02), (3, 0.01))
_DEFAULT = {"bases": 4, "epsilon": 0.02, "prompts": 300, "candidates": 64}
_GROWTH: dict[str, tuple[float, ...]] = {  # against K at 5 %: at 2 % a portfolio for K = 8 has hundreds of policies
    "bases": (2, 3, 4, 5, 6, 8, 10),
    "epsilon": (0.1, 0.05, 0.02, 0.01),
    "prompts": (100, 300, 1000, 3000),
    "candidates": (16, 64, 256),
}


def bench_plan(
    *, sections: list[str], bases: list[int], epsilons: list[float], tensors: int, prompts: int, candidates: int, most_bases: int
) -> list[dict[str, Any]]:
    """Rows of the sections asked for; K above `most_bases` is left out of "seconds" and "growth"."""
    size = {"prompts": prompts, "candidates": candidates}
    rows: list[dict[str, Any]] = []
    if "solves" in sections:
        rows += [bench_solves(world, k, e, tensors, size) for world in WORLDS for k in bases for e in epsilons]
    if "seconds" in sections:
        rows += [_plan("seconds", k, e, size, "greedy") for k, e in _SECONDS if k <= most_bases]
    if "fewest" in sections:
        rows += [_plan("fewest", k, e, size, "milp") for k, e in _FEWEST if k in bases]
    if "speed" in sections:
        rows += [_weights_a_second(), *(_ols(k, e, size) for k in (3, 4) for e in (0.05, 0.02) if k in bases)]
    if "quality" in sections:
        rows += [row for k in bases for row in bench_quality(k, tensors, size)]
    if "fresh" in sections:
        rows += [bench_fresh(k, 0.02, tensors, size) for k in bases]
    if "bounds" in sections:
        rows += bench_bounds(tensors)
    if "growth" in sections:
        for name, values in _GROWTH.items():
            for value in values:
                chosen = {**_DEFAULT, **size, **({"epsilon": 0.05} if name == "bases" else {}), name: value}
                k, e = int(chosen.pop("bases")), chosen.pop("epsilon")
                if k <= most_bases:
                    rows.append(_plan(f"growth: {name}", k, e, {part: int(number) for part, number in chosen.items()}, "greedy"))
    return rows


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


def _weights_a_second() -> dict[str, Any]:
    oracle, count = GibbsOracle(plan_world("balanced", 0, 5, prompts=1000), KL), 4000
    weights = sample_simplex(count, 5, np.random.default_rng(0))
    oracle.optimum(weights[:400])
    start, busy = time.perf_counter(), time.process_time()
    oracle.optimum(weights)
    middle, middle_busy = time.perf_counter(), time.process_time()
    oracle.solve(weights)
    end, end_busy = time.perf_counter(), time.process_time()
    return {
        "section": "speed",
        "what": "weights a second, P 1000, N 64, K 5",
        "optimum": round(count / (middle - start)),
        "solve": round(count / (end - middle)),
        "optimum_per_cpu_second": round(count / (middle_busy - busy)),
        "solve_per_cpu_second": round(count / (end_busy - middle_busy)),
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
    start = time.process_time()
    portfolio = plan_portfolio(oracle, epsilon=epsilon, select="greedy")
    planned = time.process_time() - start
    return {
        "section": "speed",
        "what": "textbook search",
        "K": bases,
        "epsilon": epsilon,
        "textbook_solves": solved,
        "solved": len(pool),
        "planned_policies": len(portfolio),
        "textbook_cpu_seconds": round(textbook, 2),
        "cpu_seconds": round(taken, 3),
        "planned_cpu_seconds": round(planned, 2),
        "times_faster": round(textbook / taken, 1),
        "times_faster_planned": round(textbook / planned, 1),
    }
