"""quality, fresh and bounds: gaps at equal size, what becomes of covers of random weights, and how tight lower bounds are."""

from itertools import combinations
from typing import Any

import numpy as np
from benchmarks.plan_world import KL, plan_world

from palm.portfolio import GibbsOracle, Portfolio, certify, plan_portfolio
from palm.portfolio.fixed_size import swap_search
from palm.portfolio.grid import grid_of_size, palm_grid, random_weights
from palm.portfolio.pool import Pool, Trials, covers_of, solve_all
from palm.portfolio.search import cut_search
from palm.portfolio.select import greedy_cover
from palm.simplex import sample_simplex

SIZES = range(2, 8)
_FRESH = 5_000
_PALM = (0.3, 0.3)  # epsilon and delta of PALM's grid that is pruned: some 300 weights at K = 3


def bench_quality(bases: int, tensors: int, size: dict[str, int]) -> list[dict[str, Any]]:
    """Worst gap (certified) and mean gap (random weights) of m policies, mean and standard error over tensors."""
    gaps: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed in range(tensors):
        oracle = GibbsOracle(plan_world("balanced", seed, bases, **size), KL)
        fresh = sample_simplex(_FRESH, bases, np.random.default_rng([7, seed]))
        optimum = oracle.optimum(fresh)
        for count in SIZES:
            for name, weights in equal_sizes(oracle, count, seed).items():
                portfolio = portfolio_at(oracle, weights)
                worst = certify(portfolio, oracle, search_bound=False).epsilon
                mean = float((optimum / portfolio.served(fresh) - 1).mean())
                gaps.setdefault((count, name), []).append((worst, mean))
    rows = []
    for (count, name), numbers in gaps.items():
        worst, mean = np.array(numbers).T
        error = worst.std(ddof=1) / np.sqrt(len(worst)) if len(worst) > 1 else np.nan
        rows.append(
            {
                "section": "quality",
                "K": bases,
                "m": count,
                "way": name,
                "worst_gap": round(float(worst.mean()), 4),
                "standard_error": round(float(error), 4),
                "mean_gap": round(float(mean.mean()), 4),
                "tensors": tensors,
            }
        )
    return rows


def equal_sizes(oracle: GibbsOracle, count: int, seed: int) -> dict[str, np.ndarray]:
    """Weights of `count` policies by each way to find them; the vertices are K or fewer."""
    bases, rng = oracle.bases, np.random.default_rng([8, seed])
    return {
        "planned": plan_portfolio(oracle, size=count, refine=True).weights,
        "planned, not moved": plan_portfolio(oracle, size=count).weights,
        "uniform": spread(bases, count),
        "uniform, pruned": pruned(oracle, grid_of_size(bases, 300), count),
        "random": sample_simplex(count, bases, rng),
        "random, pruned": pruned(oracle, random_weights(bases, 300, rng), count),
        "PALM's grid, pruned": pruned(oracle, palm_grid(bases, *_PALM), count),
        "vertices": np.eye(bases)[:count],
    }


def spread(bases: int, count: int) -> np.ndarray:
    """`count` weights of a uniform grid: the middle, then always the one farthest from those chosen, in L1 distance."""
    grid = grid_of_size(bases, 500)
    chosen = [int(((grid - 1 / bases) ** 2).sum(axis=1).argmin())]
    while len(chosen) < count:
        chosen.append(int(np.abs(grid[:, None] - grid[chosen]).sum(axis=2).min(axis=1).argmax()))
    return grid[chosen]


def pruned(oracle: GibbsOracle, weights: np.ndarray, count: int) -> np.ndarray:
    """The `count` of some weights whose policies leave the smallest gap on these weights, by swapping."""
    pool = solve_all(oracle, weights)
    served = np.maximum(weights @ pool.value.T - pool.cost, 1e-300)
    ratio = np.maximum(pool.optimum[:, None] / served - 1, 0.0)
    free = np.maximum(pool.optimum / (weights @ oracle.reference) - 1, 0.0)
    return weights[swap_search(ratio, free, count)]


def portfolio_at(oracle: GibbsOracle, weights: np.ndarray) -> Portfolio:
    """The optimal policies at (m, K) weights."""
    solution = oracle.solve(weights)
    ids = tuple(f"policy-{number}" for number in range(len(weights)))
    return Portfolio(weights, solution.value, solution.cost, oracle.reference, oracle.kl, ids)


def bench_fresh(bases: int, epsilon: float, tensors: int, size: dict[str, int]) -> dict[str, Any]:
    """How often a cover of 200 random weights breaks epsilon at fresh ones, and how often a plan does."""
    cover, plan = [], []
    for seed in range(tensors):
        oracle = GibbsOracle(plan_world("balanced", seed, bases, **size), KL)
        rng = np.random.default_rng([9, seed])
        pool = solve_all(oracle, random_weights(bases, 200, rng))
        needs, covers = covers_of(pool, Trials(pool.weights, pool.optimum), oracle.reference, epsilon, 0.0)
        fresh = sample_simplex(20_000, bases, rng)
        optimum = oracle.optimum(fresh)
        for found, weights in (
            (cover, pool.weights[greedy_cover(covers[needs])]),
            (plan, plan_portfolio(oracle, epsilon=epsilon, select="greedy").weights),
        ):
            served = portfolio_at(oracle, weights).served(fresh)
            found.append((float((optimum / served).max() - 1), len(weights)))
    gaps = {name: np.array(found) for name, found in (("random_cover", cover), ("plan", plan))}
    return {
        "section": "fresh",
        "K": bases,
        "epsilon": epsilon,
        "tensors": tensors,
        **{f"{name}_breaks": int((found[:, 0] > epsilon).sum()) for name, found in gaps.items()},
        **{f"{name}_largest": round(float(found[:, 0].max()), 4) for name, found in gaps.items()},
        **{f"{name}_policies": float(np.median(found[:, 1])) for name, found in gaps.items()},
    }


def bench_bounds(tensors: int) -> list[dict[str, Any]]:
    """Sizes of plans at K = 3 and epsilon 5 % against the bound by incompatible weights; integer programs against all subsets."""
    rows = []
    for name, world in (("5 prompts, 7 candidates", _kinked), ("40 prompts, 16 candidates", _smooth)):
        sizes, bounds = [], []
        for seed in range(tensors):
            portfolio = plan_portfolio(GibbsOracle(world(seed), KL), epsilon=0.05)
            assert portfolio.certificate is not None
            sizes.append(len(portfolio))
            bounds.append(portfolio.certificate.size_at_least)
        size, bound = np.array(sizes), np.array(bounds)
        rows.append(
            {
                "section": "bounds",
                "what": f"incompatible weights, K = 3: {name}",
                "tensors": tensors,
                "equal": int((size == bound).sum()),
                "one_less": int((size == bound + 1).sum()),
                "above": int((bound > size).sum()),
                "mean_policies": round(float(size.mean()), 2),
            }
        )
    equal = sum(
        fewest(*pool_of(seed)) == len(cut_search(pool_of(seed)[0], epsilon=pool_of(seed)[2], delta=0.0, pool=pool_of(seed)[1])[1])
        for seed in range(tensors)
    )
    return [*rows, {"section": "bounds", "what": "fewest of a pool of 12: as all subsets say", "tensors": tensors, "equal": equal}]


def pool_of(seed: int) -> tuple[GibbsOracle, Pool, float]:
    """A small oracle, a pool of 12 policies that is good enough, and the gap that it has and a little more."""
    rng = np.random.default_rng([10, seed])
    bases = 2 + seed % 2
    oracle = GibbsOracle(rng.beta(0.5, 0.8, size=(5, 7, bases)), 0.1)
    pool = solve_all(oracle, np.vstack([np.eye(bases), sample_simplex(12 - bases, bases, rng)]))
    return oracle, pool, certify(portfolio_at(oracle, pool.weights), oracle, search_bound=False).epsilon * 1.3 + 0.01


def fewest(oracle: GibbsOracle, pool: Pool, epsilon: float) -> int:
    """The size of the smallest part of a pool that is good enough everywhere, by certifying every part."""
    for count in range(len(pool) + 1):
        for part in combinations(range(len(pool)), count):
            weights = pool.weights[list(part)]
            portfolio = portfolio_at(oracle, weights) if count else None
            gap = (oracle.optimum(np.eye(oracle.bases)) / oracle.reference).max() - 1
            if portfolio is not None:
                gap = certify(portfolio, oracle, search_bound=False).epsilon
            if gap <= epsilon:
                return count
    return len(pool)


def _kinked(seed: int) -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng([seed, 3]).beta(0.5, 0.8, size=(5, 7, 3))
    return drawn


def _smooth(seed: int) -> np.ndarray:
    return plan_world("balanced", seed, 3, prompts=40, candidates=16)
