"""solves: how many weights a certificate takes that may use nothing but what was solved there.

Ours (lazy search that looks ahead), the same without looking ahead, the textbook search (chords alone, largest gap first), the
coarsest uniform grid and the fewest of a sequence of random weights that prove the gap with our bound, and the size of PALM's grid
by its formula.
"""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from benchmarks.plan_world import KL, plan_world

from palm.portfolio import GibbsOracle
from palm.portfolio.grid import palm_grid_size, random_weights
from palm.portfolio.lazy import lazy_search
from palm.portfolio.pool import solve_all
from palm.portfolio.scheme import proven
from palm.simplex import uniform_grid

_MOST = 1500  # weights of a grid or a sample that are tried
_PALM_DELTA = 0.01


class ChordsOnly(GibbsOracle):
    """An oracle that does not tell how strongly OPT can bend."""

    most_curvature = None  # type: ignore[assignment]


def bench_solves(world: str, bases: int, epsilon: float, tensors: int, size: dict[str, int]) -> dict[str, Any]:
    """Medians over the tensors of a world."""
    found: dict[str, list[float]] = {"ours": [], "largest_gap": [], "textbook": [], "uniform": [], "random": []}
    for seed in range(tensors):
        rewards = plan_world(world, seed, bases, **size)
        oracle = GibbsOracle(rewards, KL)
        draws = random_weights(bases, _MOST + bases, np.random.default_rng(seed))
        found["ours"].append(len(lazy_search(oracle, epsilon=epsilon, delta=0.0)[0]))
        found["largest_gap"].append(len(lazy_search(oracle, epsilon=epsilon, delta=0.0, ahead=False)[0]))
        found["textbook"].append(len(lazy_search(ChordsOnly(rewards, KL), epsilon=epsilon, delta=0.0, ahead=False)[0]))
        found["uniform"].append(certified_grid(oracle, epsilon) or np.inf)
        found["random"].append(certified_count(oracle, epsilon, lambda number, draws=draws: draws[:number]) or np.inf)  # type: ignore[misc]
    medians = {name: float(np.median(numbers)) for name, numbers in found.items()}
    return {
        "section": "solves",
        "world": world,
        "K": bases,
        "epsilon": epsilon,
        "tensors": tensors,
        **{name: median if np.isfinite(median) else f"more than {_MOST}" for name, median in medians.items()},
        "of_uniform": round(medians["ours"] / medians["uniform"], 2) if np.isfinite(medians["uniform"]) else "",
        "palm_grid": palm_grid_size(bases, epsilon, _PALM_DELTA),
    }


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
