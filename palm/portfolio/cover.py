"""Few policies that are good enough everywhere, greedily: cover finitely many weights, certify, patch where it fails.

Covering anew after every failure makes a new cover fail elsewhere, and the rounds never end. So a cover is *patched*: where it
fails, the few policies are added that mend most, until nothing fails. What failed is kept, and the next cover is chosen knowing
all of it; it replaces the last if it comes out smaller. Policies that are optimal in the middle of the weights that one policy
serves (Lloyd's step, as in k-means) join the pool: they cover more than those that are optimal where a cover failed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from palm.portfolio.certify import folded
from palm.portfolio.corners import corner_weights
from palm.portfolio.gibbs import GibbsOracle
from palm.portfolio.grid import grid_of_size
from palm.portfolio.oracle import Oracle
from palm.portfolio.pool import Pool, Trials, covers_of, served_by, solve_all
from palm.portfolio.rounding import size_of, slack_of
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
    passes only when OPT was asked, on all prompts, at every corner. OPT is remembered: one policy more, or fewer, leaves most
    corners where they were.

    Attributes:
        oracle: asked.
        epsilon, delta: tolerance.
        looks: corners at which OPT has been asked so far.
        known: OPT at those corners, by what `_names` calls them.
    """

    oracle: Oracle
    epsilon: float
    delta: float
    looks: int = 0
    known: dict[bytes, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._part: GibbsOracle | None = None
        self._size = size_of(self.oracle)
        if isinstance(self.oracle, GibbsOracle) and self.oracle.prompts >= 2 * _PROMPTS:
            self._part = self.oracle.part(np.arange(0, self.oracle.prompts, self.oracle.prompts // _PROMPTS))

    def failures(self, pool: Pool, chosen: np.ndarray) -> Trials:
        """Corners of the chosen policies' cells that fail, with OPT there; none exactly if the choice is good enough everywhere."""
        corners = corner_weights(folded(pool.value[chosen], pool.cost[chosen], self.oracle.reference))
        served = served_by(pool, chosen, corners, self.oracle.reference)
        names = _names(corners)
        optimum = np.array([self.known.get(name, np.nan) for name in names])
        fails = self._fails(optimum, served)
        new = np.flatnonzero(np.isnan(optimum))
        new = new[self._order(pool.weights[chosen], corners[new])]
        step = 2 * _BATCH
        while len(new) and fails.sum() < _BATCH:
            rows, new = new[:step], new[step:]
            optimum[rows] = self.oracle.upper_bound(corners[rows])
            self.known.update(zip([names[row] for row in rows], optimum[rows].tolist(), strict=True))
            fails[rows] = self._fails(optimum[rows], served[rows])
            self.looks += len(rows)
            step = step if fails[rows].any() else 4 * step
        return Trials(corners[fails], optimum[fails])

    def _fails(self, optimum: np.ndarray, served: np.ndarray) -> np.ndarray:
        """Where the tolerance does not hold, and OPT is known."""
        return optimum - (1 + self.epsilon) * served - self.delta > 2 * slack_of(optimum, self.epsilon, self._size)

    def _order(self, weights: np.ndarray, corners: np.ndarray) -> np.ndarray:
        if self._part is None or len(corners) < _SCREENED:
            return np.arange(len(corners))
        served = corners @ self._part.reference
        if len(weights):
            solution = self._part.solve(weights)
            served = np.maximum(served, (corners @ solution.value.T - solution.cost).max(axis=1))
        lack = self._part.optimum(corners) - (1 + self.epsilon) * served
        return np.argsort(-lack, kind="stable")


def _names(weights: np.ndarray) -> list[bytes]:
    """One for each of (M, K) weights, the same for weights that differ by rounding only."""
    return [row.tobytes() for row in np.round(weights, 11) + 0.0]


def first_pool(oracle: Oracle, *, count: int = 600) -> Pool:
    """A pool to begin with: the finest uniform grid of at most 200 weights and random ones, from near the faces to the middle."""
    rng = np.random.default_rng(0)
    random = [rng.dirichlet(np.full(oracle.bases, alpha), count // 3) for alpha in (0.3, 0.6, 1.2)]
    return solve_all(oracle, np.vstack([grid_of_size(oracle.bases, 200), *random]) if oracle.bases > 1 else np.ones((1, 1)))


def greedy_search(
    oracle: Oracle, *, epsilon: float, delta: float, pool: Pool | None = None, advance: Advance | None = None
) -> tuple[Pool, Trials, np.ndarray]:
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
    tests = Trials(pool.weights, pool.optimum)
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


def _cover(oracle: Oracle, pool: Pool, tests: Trials, tolerance: tuple[float, float], share: float, kept: np.ndarray) -> np.ndarray:
    """Positions of policies that cover all tests: those in `kept`, what they lack, less what that made superfluous.

    A share of the tolerance is used where some policy can do with that, so that the rest bridges the space between tests.
    """
    epsilon, delta = tolerance
    size = size_of(oracle)
    needs, covers = covers_of(pool, tests, oracle.reference, epsilon, delta, size=size)
    covers = covers[needs]
    if not covers.any(axis=1).all():
        weight = tests.weights[needs][int((~covers.any(axis=1)).argmax())]
        raise _unreachable(oracle, epsilon, delta, weight)
    left = ~covers[:, kept].any(axis=1)
    open_tests = Trials(tests.weights[needs][left], tests.optimum[needs][left])
    strict: np.ndarray = covers_of(pool, open_tests, oracle.reference, epsilon * share, delta * share, size=size)[1]
    added = greedy_cover(np.where(strict.any(axis=1, keepdims=True), strict, covers[left]))
    chosen = np.union1d(kept, added)
    return chosen[needed_columns(covers[:, chosen])]


def _with_centres(oracle: Oracle, pool: Pool, tests: Trials, epsilon: float, delta: float) -> Pool:
    """The pool and the policies that are optimal at the mean of the tests that one policy of a cover serves best, or alone."""
    needs, covers = covers_of(pool, tests, oracle.reference, epsilon, delta, size=size_of(oracle))
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


def _unreachable(oracle: Oracle, epsilon: float, delta: float, weight: np.ndarray) -> ValueError:
    """What to tell who asks for a gap that no policy of the pool has at a weight."""
    asked, place = f"{epsilon:g} and {delta:g}", np.round(weight, 4).tolist()
    if not oracle.slack:
        return ValueError(
            f"epsilon, delta: expected a gap that the pool's policies can reach, got {asked}, "
            f"which none of them does at weight {place}"
        )
    least, most = float(oracle.lower_bound(weight[None])[0]), float(oracle.upper_bound(weight[None])[0])
    own = most / least - 1 if least > 0 else np.inf  # such an oracle cannot vouch for its own policy there
    return ValueError(
        f"epsilon, delta: expected at least what the oracle's slack leaves, a gap of {own:.4g} at weight {place}, got {asked}; "
        "a given `size` gets the smallest gap there is"
    )
