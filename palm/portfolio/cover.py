"""Few policies that are good enough everywhere, greedily: cover finitely many weights, certify, patch where it fails.

Covering anew after every failure makes a new cover fail elsewhere, and the rounds never end. So a cover is *patched*: where it
fails, the few policies are added that mend most, until nothing fails. What failed is kept, and the next cover is chosen knowing
all of it; it replaces the last if it comes out smaller. Policies that are optimal in the middle of the weights that one policy
serves (Lloyd's step, as in k-means) join the pool: they cover more than those that are optimal where a cover failed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from palm.portfolio.certify import folded
from palm.portfolio.corners import corner_weights
from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import GibbsOracle, Oracle
from palm.portfolio.pool import ROUNDING, Pool, Tests, covers_of, served_by, solve_all
from palm.portfolio.select import greedy_cover, needed_columns

Advance = Callable[[str], object]
_BATCH = 192  # failing corners that end a look; more would tell little that is new
_SCREENED = 300  # corners from which a look begins with a part of the prompts
_PROMPTS = 40  # in that part
_SHARES = (0.98, 0.95, 0.92, 0.88)  # of the tolerance that a cover of the tests may use up, in turn
_LOOKS = 60_000  # corners at which OPT may be asked before further covers are no longer tried


@dataclass
class Certifier:
    """Finds corners where a choice of policies fails, asking the oracle at as few as it can.

    Corners are tried in the order of their gap on a few of the prompts (the policies' values taken on the same prompts, so that
    what prompts have in common cancels), and a look ends early once enough have failed. That order decides nothing: a choice
    passes only when OPT was asked, on all prompts, at every corner.

    Attributes:
        oracle: asked.
        epsilon, delta: tolerance.
        looks: corners at which OPT has been asked so far.
    """

    oracle: Oracle
    epsilon: float
    delta: float
    looks: int = 0

    def __post_init__(self) -> None:
        self._part: GibbsOracle | None = None
        if isinstance(self.oracle, GibbsOracle) and self.oracle.prompts >= 2 * _PROMPTS:
            self._part = self.oracle.part(np.arange(0, self.oracle.prompts, self.oracle.prompts // _PROMPTS))

    def failures(self, pool: Pool, chosen: np.ndarray) -> Tests:
        """Corners of the chosen policies' cells that fail, with OPT there; none exactly if the choice is good enough everywhere."""
        corners = corner_weights(folded(pool.value[chosen], pool.cost[chosen], self.oracle.reference))
        served = served_by(pool, chosen, corners, self.oracle.reference)
        order = self._order(pool.weights[chosen], corners)
        failing: list[np.ndarray] = []
        optima: list[np.ndarray] = []
        start, step = 0, 2 * _BATCH
        while start < len(order) and sum(len(rows) for rows in failing) < _BATCH:
            rows = order[start : start + step]
            optimum = self.oracle.optimum(corners[rows]) + self.oracle.slack
            lack = optimum - (1 + self.epsilon) * served[rows] - self.delta
            fails = lack > 2 * ROUNDING * np.maximum(1.0, np.abs(optimum))
            failing.append(rows[fails])
            optima.append(optimum[fails])
            start += len(rows)
            step = step if fails.any() else 4 * step
        self.looks += start
        return Tests(corners[np.concatenate(failing)], np.concatenate(optima))

    def _order(self, weights: np.ndarray, corners: np.ndarray) -> np.ndarray:
        if self._part is None or len(corners) < _SCREENED:
            return np.arange(len(corners))
        served = corners @ self._part.reference
        if len(weights):
            solution = self._part.solve(weights)
            served = np.maximum(served, (corners @ solution.value.T - solution.cost).max(axis=1))
        lack = self._part.optimum(corners) - (1 + self.epsilon) * served
        return np.argsort(-lack, kind="stable")


def first_pool(oracle: Oracle, *, count: int = 600) -> Pool:
    """A pool to begin with: the finest uniform grid of at most 200 weights and random ones, from near the faces to the middle."""
    rng = np.random.default_rng(0)
    random = [rng.dirichlet(np.full(oracle.bases, alpha), count // 3) for alpha in (0.3, 0.6, 1.2)]
    return solve_all(oracle, np.vstack([grid_of_size(oracle.bases, 200), *random]) if oracle.bases > 1 else np.ones((1, 1)))


def greedy_search(
    oracle: Oracle, *, epsilon: float, delta: float, pool: Pool | None = None, advance: Advance | None = None
) -> tuple[Pool, Tests, np.ndarray]:
    """Few policies that are good enough everywhere.

    Args:
        oracle: asked thousands of times.
        epsilon, delta: tolerance.
        pool: policies to choose from, which must be good enough together; by default the search makes its own.
        advance: called with a line of text after every look.

    Returns:
        the pool, the weights that choices were tried on, and the positions of the chosen policies in the pool.

    Raises:
        ValueError: no policy of the pool is good enough at some weight.
    """
    grow = pool is None
    pool = first_pool(oracle) if pool is None else pool
    tests = Tests(pool.weights, pool.optimum)
    certifier = Certifier(oracle, epsilon, delta)
    best: np.ndarray | None = None
    for share in _SHARES * 2:
        if grow:
            pool = _with_centres(oracle, pool, tests, epsilon * share, delta * share)
        chosen = _cover(oracle, pool, tests, (epsilon, delta), share, np.zeros(0, dtype=np.intp))
        while best is None or len(chosen) < len(best):
            failures = certifier.failures(pool, chosen)
            if advance is not None:
                advance(f"{len(pool)} solves, {len(chosen)} policies, {len(failures)} corners open")
            if len(failures) == 0:
                best = chosen
                break
            tests = tests.joined(failures.weights, failures.optimum)
            if grow:
                pool = pool.joined(oracle, failures.weights)
            chosen = _cover(oracle, pool, tests, (epsilon, delta), share, chosen)
        if best is None or len(best) <= 1 or not grow or certifier.looks > _LOOKS:
            break
    return pool, tests, best if best is not None else chosen


def _cover(oracle: Oracle, pool: Pool, tests: Tests, tolerance: tuple[float, float], share: float, kept: np.ndarray) -> np.ndarray:
    """Positions of policies that cover all tests: those in `kept`, what they lack, less what that made superfluous.

    A share of the tolerance is used where some policy can do with that, so that the rest bridges the space between tests.
    """
    epsilon, delta = tolerance
    needs, covers = covers_of(pool, tests, oracle.reference, epsilon, delta)
    covers = covers[needs]
    if not covers.any(axis=1).all():
        weight = tests.weights[needs][int((~covers.any(axis=1)).argmax())]
        raise ValueError(
            f"epsilon, delta: expected a gap that the pool's policies can reach, got {epsilon:g} and {delta:g}, "
            f"which none of them does at weight {np.round(weight, 4).tolist()}"
        )
    left = ~covers[:, kept].any(axis=1)
    open_tests = Tests(tests.weights[needs][left], tests.optimum[needs][left])
    strict: np.ndarray = covers_of(pool, open_tests, oracle.reference, epsilon * share, delta * share)[1]
    added = greedy_cover(np.where(strict.any(axis=1, keepdims=True), strict, covers[left]))
    chosen = np.union1d(kept, added)
    return chosen[needed_columns(covers[:, chosen])]


def _with_centres(oracle: Oracle, pool: Pool, tests: Tests, epsilon: float, delta: float) -> Pool:
    """The pool and the policies that are optimal at the mean of the tests that one policy of a cover serves best, or alone."""
    needs, covers = covers_of(pool, tests, oracle.reference, epsilon, delta)
    needs &= covers.any(axis=1)
    if not needs.any():
        return pool
    chosen = greedy_cover(covers[needs])
    weights, few = tests.weights[needs], covers[np.ix_(needs, chosen)]
    best = (weights @ pool.value[chosen].T - pool.cost[chosen]).argmax(axis=1)[:, None] == np.arange(len(chosen))
    alone = few & (few.sum(axis=1) == 1)[:, None]
    groups = np.hstack([best, alone]).astype(np.float64)
    groups = groups[:, groups.any(axis=0)]
    return pool.joined(oracle, groups.T @ weights / groups.sum(axis=0)[:, None])
